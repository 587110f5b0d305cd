"""Hourly check of the production versions for staleness, drift and poor performance."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.lifecycle.watch import WatchReport
from clm_core.operations.passes import run_name
from tasks.record_success import record_success
from tasks.show_pass import show_pass
from tasks.watch import watch_production


@flow(name="watch", flow_run_name=run_name("watch"))
def watch() -> State[WatchReport]:
    """Request retrains where due; fails after the pass if a model could not be checked."""
    report = watch_production()
    show_pass(report, "watch")
    report.complete()
    record_success("watch")
    return Completed(message=report.headline, data=report)
