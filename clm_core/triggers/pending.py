"""Pending jobs by hand: run here, started in a worker, cancelled."""

import contextlib
import uuid
from datetime import timedelta
from uuid import UUID

from clm_core.domain.actors import Actor
from clm_core.domain.errors import IllegalTransition, ServerUnavailable
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.vocabulary import JobStatus
from clm_core.platform.prefect_runs import prefect_runs
from clm_core.retraining.jobs import reap_dead_jobs
from clm_core.services import Services
from clm_core.triggers import dispatch


def cancel(services: Services, job_id: UUID, by: Actor) -> TrainingJob:
    """End a pending job as failed, and its Prefect run as cancelled. A cancelled job stays as it is.

    Raises:
        IllegalTransition: the job was started.
        NotFound: the job does not exist.
    """
    job = services.ledger.cancel_job(job_id, by, services.clock())
    # with Prefect down, the next dispatch cancels the run
    with contextlib.suppress(ServerUnavailable), prefect_runs(services.settings.home) as prefect:
        dispatch.cancel_runs(services, prefect)
    return job


def require_startable(services: Services, job_id: UUID) -> TrainingJob:
    """The job, pending, of a model without a job in progress; dead jobs are ended first.

    Raises:
        IllegalTransition: the job is not pending, or another job of the model is in progress.
        NotFound: the job does not exist.
    """
    job = _pending(services, job_id)
    reap_dead_jobs(services)
    running = services.ledger.jobs(status=JobStatus.IN_PROGRESS, model_id=job.model_id, limit=1)
    if running:
        raise IllegalTransition(
            f"Job {running[0].id} of {job.model_id} is in progress: job {job_id} can start when it has ended."
        )
    return job


def reserve(services: Services, job_id: UUID) -> TrainingJob:
    """Reserve a pending job for the duration of a lease, for a run in this process.

    A Prefect run of the job is cancelled.

    Raises:
        IllegalTransition, NotFound: see `require_startable`.
    """
    job = require_startable(services, job_id)
    run_id = services.ledger.triggers.run_of(job_id)
    if run_id is not None:
        # with Prefect down, the run fails at its start, since the job is no longer pending
        with contextlib.suppress(ServerUnavailable), prefect_runs(services.settings.home) as prefect:
            prefect.cancel(run_id, f"Job {job_id} is run by hand, outside Prefect's workers.")
    now = services.clock()
    reserved_until = now + timedelta(seconds=services.settings.lease_seconds)
    services.ledger.triggers.set_run(job_id, uuid.uuid4(), now, reserved_until)
    return job


def start(services: Services, job_id: UUID) -> UUID:
    """Prefect run of a pending job, created where there is none, ahead of older jobs of the model.

    Raises:
        IllegalTransition: the job is not pending.
        NotFound: the job does not exist.
        ServerUnavailable: Prefect does not answer, or has no deployment for the model.
    """
    return dispatch.start_job(services, _pending(services, job_id))


def _pending(services: Services, job_id: UUID) -> TrainingJob:
    job = services.ledger.job(job_id)
    if job.status is not JobStatus.PENDING:
        raise IllegalTransition(f"Job {job_id} is {job.status}: only a pending job can be started.")
    return job
