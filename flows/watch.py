"""What serves is looked at, every hour: is it stale, does it earn what it should?"""

from prefect import flow
from prefect.runtime import flow_run

from clm_core.domain.errors import PassIncomplete
from clm_core.lifecycle.watch import WatchReport
from tasks.show_watch import show_watch
from tasks.watch import look


def _name() -> str:
    return f"watch {flow_run.scheduled_start_time:%Y-%m-%d %H:%M} UTC"


@flow(name="watch", flow_run_name=_name)
def watch() -> WatchReport:
    """Ask for a retrain of what needs one; fails if a model could not be looked at, after all others were."""
    report = look()
    show_watch(report)
    if report.problems:
        raise PassIncomplete("\n".join(report.problems))
    return report
