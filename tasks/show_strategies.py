"""Front of a search for strategies: picture and report in the home, and the run's page in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from clm_core.domain.kinds import artifact_key
from clm_core.domain.strategy_search import StrategySearchResult
from clm_core.search.strategy_report import headline, summary_page, write_picture, write_report
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="show {result.name}")
def show_strategies(result: StrategySearchResult) -> StrategySearchResult:
    create_markdown_artifact(
        summary_page(services().page_addresses, result),
        key=f"{artifact_key(result.subject)}-search",
        description=headline(result),
    )
    return write_report(services().reports, write_picture(services().reports, result))
