from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.operations import maintenance
from clm_core.services import services


@task(cache_policy=NO_CACHE)
def maintain() -> maintenance.MaintenanceReport:
    return maintenance.run(services(), in_full=False)
