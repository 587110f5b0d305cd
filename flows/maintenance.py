"""Scheduled maintenance of an installation, every minute."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.operations.maintenance import MaintenanceReport
from clm_core.operations.passes import run_name
from tasks.maintenance import maintain
from tasks.record_success import record_success
from tasks.send_heartbeat import send_heartbeat


@flow(name="maintenance", flow_run_name=run_name("maintenance"))
def maintenance() -> State[MaintenanceReport]:
    """Run every part; fails after the pass if a part failed."""
    # no page: a pass every minute would leave 1,440 artifacts a day
    report = maintain().complete()
    record_success("maintenance")
    send_heartbeat()
    return Completed(message=report.headline, data=report)
