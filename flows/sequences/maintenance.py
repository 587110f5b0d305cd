"""A maintenance pass, step by step."""

from clm_core.operations.maintenance import MaintenanceReport
from flows.sequences.ended import Ended
from tasks.maintenance import maintain
from tasks.record_success import record_success
from tasks.send_heartbeat import send_heartbeat


def maintenance() -> Ended[MaintenanceReport]:
    """Run every part; fails after the pass if a part failed."""
    # no page: a pass every minute would leave 1,440 artifacts a day
    report = maintain().complete()
    record_success("maintenance")
    send_heartbeat()
    return Ended(report.headline, report)
