"""Dispatch of waiting messages and jobs, started by an event in Prefect."""

from prefect import flow

from clm_core.operations.passes import run_name
from tasks.dispatch import dispatch as dispatch_waiting


@flow(name="dispatch", flow_run_name=run_name("dispatch"))
def dispatch() -> None:
    """Answer waiting events and messages, and start the jobs that wait."""
    dispatch_waiting()
