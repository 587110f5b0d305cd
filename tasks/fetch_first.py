from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.operations import ingest
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="fetch first bars of {job.symbol}")
def fetch_first(lease: Lease, job: TrainingJob) -> TrainingJob:
    """The job with its data; the bars of a market without any are fetched before."""
    return ingest.fetch_first(services(), lease, job)
