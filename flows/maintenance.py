"""Maintenance of an installation: every minute where `clm up` makes no passes of its own."""

from prefect import State, flow

from clm_core.operations.maintenance import MaintenanceReport
from clm_core.operations.passes import run_name
from flows.sequences.maintenance import maintenance as sequence


@flow(name="maintenance", flow_run_name=run_name("maintenance"))
def maintenance() -> State[MaintenanceReport]:
    """Run every part; fails after the pass if a part failed."""
    return sequence().state()
