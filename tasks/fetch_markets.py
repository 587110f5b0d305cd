from clm_core.operations import ingest
from clm_core.services import services
from tasks.step import step


@step()
def fetch_markets() -> ingest.IngestReport:
    return ingest.run(services())
