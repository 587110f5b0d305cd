from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.lifecycle import shadow
from clm_core.market.timeframes import Timeframe
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="record shadow positions")
def record_positions(timeframe: Timeframe | None) -> shadow.ShadowReport:
    return shadow.run(services(), timeframe=timeframe)
