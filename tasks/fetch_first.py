from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.operations import ingest
from clm_core.services import services
from tasks.step import step


@step("fetch first bars of {job.symbol}")
def fetch_first(lease: Lease, job: TrainingJob) -> TrainingJob:
    """The job with its data; the bars of a market without any are fetched before."""
    return ingest.fetch_first(services(), lease, job)
