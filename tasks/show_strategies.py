"""Front of a search for strategies: picture and report in the home, and the run's page in the Prefect UI."""

from clm_core.domain.kinds import artifact_key
from clm_core.domain.strategy_search import StrategySearchResult
from clm_core.search.strategy_report import headline, summary_page, write_picture, write_report
from clm_core.services import services
from tasks.run_page import show_markdown
from tasks.step import step


@step("show {result.name}")
def show_strategies(result: StrategySearchResult) -> StrategySearchResult:
    show_markdown(
        f"{artifact_key(result.subject)}-search",
        lambda: summary_page(services().page_addresses, result),
        headline(result),
    )
    return write_report(services().reports, write_picture(services().reports, result))
