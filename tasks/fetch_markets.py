from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.operations import ingest
from clm_core.services import services


@task(cache_policy=NO_CACHE)
def fetch_markets() -> ingest.IngestReport:
    return ingest.run(services())
