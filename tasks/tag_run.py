"""Tags of a run, to search by in the Prefect UI."""

from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run


@task(cache_policy=NO_CACHE, task_run_name="tag this run")
def tag_run(*tags: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags={*flow_run.tags, *tags})
