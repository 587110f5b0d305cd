"""Summary of an evolution on the run's page in the Prefect UI."""

from clm_core.domain.evolution import EvolveResult
from clm_core.domain.kinds import artifact_key
from clm_core.search.evolution_report import headline, summary_page
from clm_core.services import services
from tasks.run_page import show_markdown
from tasks.step import step


@step("show {result.name}")
def show_evolution(result: EvolveResult) -> None:
    show_markdown(
        f"{artifact_key(result.model_id)}-evolution",
        lambda: summary_page(services().page_addresses, result),
        headline(result),
    )
