"""What a person sees of a pass over the shadows on the run's page in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from clm_core.lifecycle.shadow import ShadowReport, summary_page
from clm_core.market.timeframes import Timeframe


@task(cache_policy=NO_CACHE, task_run_name="show what was followed")
def show_shadow(report: ShadowReport, timeframe: Timeframe | None) -> None:
    key = f"shadow-{timeframe or 'all'}"
    create_markdown_artifact(summary_page(report), key=key, description=report.headline)
