from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment, flow_run

from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Answer
from clm_core.services import services
from clm_core.triggers import intake
from tasks.asked_by import actor_of_run


@task(cache_policy=NO_CACHE, task_run_name="open job")
def open_job(request: RetrainRequest, job_id: UUID | None) -> TrainingJob | Answer:
    """The job for this run, or the answer of the intake if the request gets no job."""
    if job_id is not None:
        return services().ledger.job(job_id)
    source = f"deployment/{deployment.name}" if deployment.name else "terminal"
    return intake.submit_and_claim(services(), request, source, UUID(flow_run.id), actor_of_run())
