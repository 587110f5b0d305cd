"""Summary of a tuning on the run's page in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from clm_core.domain.kinds import artifact_key
from clm_core.domain.tuning import TuneResult
from clm_core.search.tuning_report import headline, summary_page
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="show {result.study}")
def show_tuning(result: TuneResult) -> None:
    create_markdown_artifact(
        summary_page(services().page_addresses, result),
        key=f"{artifact_key(result.model_id)}-tuning",
        description=headline(result),
    )
