from uuid import UUID, uuid4

from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Answer
from clm_core.platform.flow_run import current_run
from clm_core.services import services
from clm_core.triggers import intake
from tasks.asked_by import actor_of_run, deployment_of_run
from tasks.step import step


@step("open job")
def open_job(request: RetrainRequest, job_id: UUID | None) -> TrainingJob | Answer:
    """The job for this run, or the answer of the intake if the request gets no job."""
    if job_id is not None:
        return services().ledger.job(job_id)
    run = current_run()
    deployment = deployment_of_run()
    return intake.submit_and_claim(
        services(),
        request,
        "terminal" if deployment is None else f"deployment/{deployment}",
        # the job is reserved for this process until it starts
        uuid4() if run is None else run.id,
        actor_of_run(),
    )
