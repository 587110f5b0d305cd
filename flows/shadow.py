"""Shadow testing after each bar: records the positions of candidate versions and decides on them."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.lifecycle.shadow import ShadowReport
from clm_core.market.timeframes import Timeframe
from clm_core.operations.passes import run_name
from tasks.record_success import record_success
from tasks.shadow import record_and_decide
from tasks.show_pass import show_pass


@flow(name="shadow", flow_run_name=run_name("shadow"))
def shadow(timeframe: Timeframe | None = None) -> State[ShadowReport]:
    """Record positions and decide, on one timeframe or all; fails at the end if a version had a problem."""
    report = record_and_decide(timeframe)
    show_pass(report, f"shadow-{timeframe or 'all'}")
    report.complete()
    record_success(f"shadow-{timeframe or 'all'}")
    return Completed(message=report.headline, data=report)
