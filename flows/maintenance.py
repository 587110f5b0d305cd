"""Scheduled maintenance of an installation, every minute."""

from prefect import flow

from clm_core.operations.maintenance import MaintenanceReport
from tasks.maintenance import maintain


@flow(name="maintenance")
def maintenance() -> MaintenanceReport:
    """Run every part; fails after the pass if a part failed."""
    # no page: a pass every minute would leave 1,440 artifacts a day
    return maintain().complete()
