"""What waits to serve is followed after each bar."""

from prefect import flow
from prefect.runtime import flow_run

from clm_core.domain.errors import PassIncomplete
from clm_core.lifecycle.shadow import ShadowReport
from clm_core.market.timeframes import Timeframe
from tasks.shadow import follow
from tasks.show_shadow import show_shadow


def _name() -> str:
    of = flow_run.parameters["timeframe"] or "all"
    return f"shadow {of} {flow_run.scheduled_start_time:%Y-%m-%d %H:%M} UTC"


@flow(name="shadow", flow_run_name=_name)
def shadow(timeframe: Timeframe | None = None) -> ShadowReport:
    """Write down what each version wants, of one timeframe or all; fails if something went wrong with one,
    after all others were followed.
    """
    report = follow(timeframe)
    show_shadow(report, timeframe)
    if report.problems:
        raise PassIncomplete("\n".join(report.problems))
    return report
