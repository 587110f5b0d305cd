from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core import upkeep
from clm_core.services import services


@task(cache_policy=NO_CACHE)
def keep_up() -> upkeep.UpkeepReport:
    return upkeep.run(services(), in_full=False)
