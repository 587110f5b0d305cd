"""Bars come in, after each bar."""

from prefect import flow
from prefect.runtime import flow_run

from clm_core.domain.errors import PassIncomplete
from clm_core.operations.ingest import FeedReport
from tasks.fetch_markets import fetch_markets
from tasks.show_fetched import show_fetched


def _name() -> str:
    return f"fetch {flow_run.scheduled_start_time:%Y-%m-%d %H:%M} UTC"


@flow(name="fetch", flow_run_name=_name)
def fetch() -> FeedReport:
    """Fetch what closed since the last time; fails if a market could not be, after all others were."""
    report = fetch_markets()
    show_fetched(report)
    if report.problems:
        raise PassIncomplete("\n".join(report.problems))
    return report
