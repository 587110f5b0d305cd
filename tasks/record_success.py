from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="record the success")
def record_success(name: str) -> None:
    """Tell the dead man's switch that a scheduled pass has succeeded."""
    services().ledger.passes.succeeded(name)
