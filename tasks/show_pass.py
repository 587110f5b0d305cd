"""Page of a scheduled pass on its run in the Prefect UI."""

from clm_core.operations.passes import PassReport
from tasks.run_page import show_markdown
from tasks.step import step


@step("show {key}")
def show_pass(report: PassReport, key: str) -> None:
    show_markdown(key, report.page, report.headline)
