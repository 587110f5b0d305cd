"""Page of a scheduled pass on its run in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from clm_core.operations.passes import PassReport


@task(cache_policy=NO_CACHE, task_run_name="show {key}")
def show_pass(report: PassReport, key: str) -> None:
    create_markdown_artifact(report.page(), key=key, description=report.headline)
