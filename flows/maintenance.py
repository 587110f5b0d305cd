"""One pass of what keeps the registry right; scheduled, so that it runs while nobody looks."""

from prefect import flow

from clm_core.domain.errors import PassIncomplete
from clm_core.operations.maintenance import MaintenanceReport
from tasks.maintenance import keep_up


@flow(name="maintenance")
def maintenance() -> MaintenanceReport:
    """Put right what went wrong and tell of the rest; fails if a part did, after all were tried."""
    report = keep_up()
    if report.failed:
        raise PassIncomplete("\n".join(problem for part in report.parts for problem in part.problems))
    return report
