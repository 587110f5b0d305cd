"""What a person sees of a fetch on the run's page in the Prefect UI."""

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from clm_core.operations.ingest import FeedReport, rows


@task(cache_policy=NO_CACHE, task_run_name="show what came in")
def show_fetched(report: FeedReport) -> None:
    create_table_artifact(rows(report), key="fetch", description=report.headline)
