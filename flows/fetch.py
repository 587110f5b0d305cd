"""Fetch of the newest bars from the exchanges, after each bar."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.operations.ingest import IngestReport
from clm_core.operations.passes import run_name
from tasks.fetch_markets import fetch_markets
from tasks.record_success import record_success
from tasks.show_pass import show_pass


@flow(name="fetch", flow_run_name=run_name("fetch"))
def fetch() -> State[IngestReport]:
    """Fetch the bars closed since the last pass; fails after the pass if a market could not be fetched."""
    report = fetch_markets()
    show_pass(report, "fetch")
    report.complete()
    record_success("fetch")
    return Completed(message=report.headline, data=report)
