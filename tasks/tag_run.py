"""Tags of a run, to search by in the Prefect UI."""

from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from clm_core.domain.jobs import RetrainRequest


@task(cache_policy=NO_CACHE, task_run_name="tag this run")
def tag_run(request: RetrainRequest) -> None:
    tags = {*flow_run.tags, request.model_id, str(request.kind), request.trigger_reason.value}
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=tags)
