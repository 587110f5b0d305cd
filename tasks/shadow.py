from clm_core.lifecycle import shadow_decisions
from clm_core.lifecycle.shadow import ShadowReport
from clm_core.market.timeframes import Timeframe
from clm_core.services import services
from tasks.step import step


@step("record shadow positions and decide")
def record_and_decide(timeframe: Timeframe | None) -> ShadowReport:
    return shadow_decisions.run(services(), timeframe=timeframe)
