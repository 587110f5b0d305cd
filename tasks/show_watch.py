"""What a person sees of a watch on the run's page in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from clm_core.lifecycle.watch import WatchReport, summary_page


@task(cache_policy=NO_CACHE, task_run_name="show what was seen")
def show_watch(report: WatchReport) -> None:
    create_markdown_artifact(summary_page(report), key="watch", description=report.headline)
