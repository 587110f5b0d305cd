"""What waits is moved on: messages to the door, jobs to Prefect."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from clm_core.domain.errors import IllegalTransition, ServerUnavailable
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Answer
from clm_core.platform.prefect_runs import Runs, RunState, prefect_runs
from clm_core.retraining.jobs import reap_dead_jobs
from clm_core.services import Services
from clm_core.triggers import inbox, prefect_events

FLOW = "retrain"
ON_DEMAND = "on-demand"
"""Deployment of the flow that takes the jobs of models which have none of their own."""


@dataclass(frozen=True)
class StartedJobs:
    """What became of the jobs that wait."""

    runs: dict[UUID, UUID]
    """The Prefect run created for a job."""
    failed: tuple[UUID, ...]
    """Jobs whose run ended before it started them."""
    waiting: tuple[UUID, ...]
    """Jobs without a run still: the next drain tries again."""
    problem: str | None
    """Why they wait; None when none does."""


@dataclass(frozen=True)
class DispatchResult:
    answers: tuple[Answer, ...]
    set_aside: int
    """Messages that could not be answered."""
    started: StartedJobs


def dispatch_pending(services: Services) -> DispatchResult:
    """Answer all messages that wait, events on Prefect's bus too, then have every job started that may.

    Safe to be killed, and to be run by several at once; Prefect may be down.
    """
    with contextlib.suppress(ServerUnavailable):
        # what it is too ill to tell waits there; that it is, `start_pending` says
        prefect_events.collect(services)
    answers, set_aside = answer_all(services)
    return DispatchResult(tuple(answers), set_aside, start_pending(services))


def answer_all(services: Services) -> tuple[list[Answer], int]:
    """Take every message that waits to the door; the answers, and how many messages were set aside."""
    answers, set_aside = list[Answer](), 0
    while (answered := inbox.answer_next(services)) is not None:
        answers += answered[1] or []
        set_aside += answered[1] is None
    inbox.forget_old(services)
    return answers, set_aside


def start_pending(services: Services) -> StartedJobs:
    """Create a Prefect run for every job that waits without one and whose model has no job in progress.

    Asked twice, Prefect makes one run for a job; when it does not answer, the jobs wait for the next time.
    """
    reap_dead_jobs(services)
    runs, failed, problem = dict[UUID, UUID](), list[UUID](), None
    try:
        with prefect_runs(services.settings.home) as prefect:
            failed += _end_abandoned(services, prefect)
            for job, run_id in _create_runs(services, prefect):
                if run_id is None:
                    problem = _no_deployment(job)
                else:
                    runs[job.id] = run_id
    except ServerUnavailable as error:
        problem = str(error)
    waiting = services.ledger.triggers.startable(services.clock())
    return StartedJobs(runs, tuple(failed), tuple(job.id for job in waiting), problem if waiting else None)


def _create_runs(services: Services, prefect: Runs) -> Iterator[tuple[TrainingJob, UUID | None]]:
    jobs = services.ledger.triggers.startable(services.clock())
    deployments = prefect.deployments(FLOW) if jobs else {}
    for job in jobs:
        deployment = deployments.get(job.model_id) or deployments.get(ON_DEMAND)
        run_id = None if deployment is None else _create_run(prefect, deployment, job)
        if run_id is not None:
            services.ledger.triggers.set_run(job.id, run_id, services.clock())
        yield job, run_id


def _create_run(prefect: Runs, deployment: UUID, job: TrainingJob) -> UUID:
    request = job.model_dump(mode="json", include=set(RetrainRequest.model_fields))
    parameters = {"request": request, "job_id": str(job.id)}
    return prefect.create(deployment, parameters, str(job.id), [job.model_id, job.trigger_reason.value])


def _no_deployment(job: TrainingJob) -> str:
    return (
        f"Prefect has no deployment {FLOW}/{job.model_id} or {FLOW}/{ON_DEMAND} for {job.model_id}: "
        "add its market to the universe, then `clm deploy`"
    )


def _end_abandoned(services: Services, prefect: Runs) -> list[UUID]:
    """End the jobs whose run ended without starting them; a run that was deleted is replaced."""
    store, ended = services.ledger.triggers, list[UUID]()
    given = store.unstarted_runs()
    runs = prefect.read(set(given.values()))
    for job_id, run_id in given.items():
        if runs[run_id].state is RunState.MISSING:
            store.forget_run(job_id)
        elif runs[run_id].state is RunState.ENDED and _fail(services, job_id, runs[run_id].told):
            ended.append(job_id)
    return ended


def _fail(services: Services, job_id: UUID, told: str) -> bool:
    """False: it was started after all, between our two looks."""
    try:
        lease = services.ledger.start_job(job_id, "drain", services.clock(), timedelta(minutes=1))
    except IllegalTransition:
        return False
    services.ledger.fail_job(lease, f"its run ended before it began: {told}", services.clock())
    return True
