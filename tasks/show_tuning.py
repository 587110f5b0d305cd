"""Summary of a tuning on the run's page in the Prefect UI."""

from clm_core.domain.kinds import artifact_key
from clm_core.domain.tuning import TuneResult
from clm_core.search.tuning_report import headline, summary_page
from clm_core.services import services
from tasks.run_page import show_markdown
from tasks.step import step


@step("show {result.study}")
def show_tuning(result: TuneResult) -> None:
    show_markdown(
        f"{artifact_key(result.model_id)}-tuning",
        lambda: summary_page(services().page_addresses, result),
        headline(result),
    )
