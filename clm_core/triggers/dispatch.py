"""Dispatch of pending work: messages to the intake, jobs to Prefect."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from clm_core.domain.errors import IllegalTransition, ServerUnavailable
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Answer
from clm_core.platform.prefect_runs import Run, Runs, RunState, prefect_runs
from clm_core.platform.tracing import traced
from clm_core.retraining.cancellation import CANCELLED_IN_PREFECT, PREFECT
from clm_core.retraining.jobs import end_killed_jobs, reap_dead_jobs
from clm_core.services import Services
from clm_core.triggers import inbox, prefect_events

FLOW = "retrain"
KILLED = frozenset({"OOMKilled", "Evicted"})
"""Diagnoses of a pod in Kubernetes whose processes are gone."""
ON_DEMAND = "on-demand"
"""Deployment for the jobs of models without a deployment."""


@dataclass(frozen=True)
class StartedJobs:
    """Result of starting the pending jobs."""

    runs: dict[UUID, UUID]
    """Prefect run created for each job."""
    failed: tuple[UUID, ...]
    """Jobs whose run ended before the job was started, or was killed by Kubernetes."""
    waiting: tuple[UUID, ...]
    """Jobs still without a run; the next dispatch tries again."""
    problem: str | None
    """Reason why jobs wait; None when no job waits."""

    def followed_by(self, later: "StartedJobs") -> "StartedJobs":
        """Result of both starts."""
        failed = (*self.failed, *later.failed)
        return replace(later, runs=self.runs | later.runs, failed=failed)


@dataclass(frozen=True)
class DispatchResult:
    answers: tuple[Answer, ...]
    set_aside: int
    """Number of messages that could not be answered."""
    started: StartedJobs


@traced("dispatch")
def dispatch_pending(services: Services) -> DispatchResult:
    """Answers all pending messages, Prefect's events included, then starts every job that may start.

    Safe to kill and to run several times at once; Prefect may be down.
    """
    with contextlib.suppress(ServerUnavailable):
        # the events wait in Prefect; `start_pending_jobs` reports that Prefect is down
        prefect_events.collect(services)
    answers, set_aside = answer_messages(services)
    return DispatchResult(tuple(answers), set_aside, start_pending_jobs(services))


def answer_messages(services: Services) -> tuple[list[Answer], int]:
    """Submits every pending message; the answers, and the number of messages set aside."""
    answers = list[Answer]()
    set_aside = 0
    while (answered := inbox.answer_next(services)) is not None:
        answers += answered[1] or []
        set_aside += answered[1] is None
    inbox.forget_old(services)
    return answers, set_aside


def start_pending_jobs(services: Services) -> StartedJobs:
    """Creates a Prefect run for every pending job whose model has no job in progress.

    Prefect creates a single run for a job, however often requested. While Prefect is down, the jobs wait.
    """
    started = _start_waiting(services)
    # last, since the wait for heartbeats must not hold up the jobs of other models
    if not reap_dead_jobs(services):
        return started
    return started.followed_by(_start_waiting(services))


def _start_waiting(services: Services) -> StartedJobs:
    runs = dict[UUID, UUID]()
    failed = list[UUID]()
    problem = None
    try:
        with prefect_runs(services.settings.home) as prefect:
            cancel_runs(services, prefect)
            failed += [*_end_abandoned(services, prefect), *_end_killed(services, prefect)]
            for job, run_id in _create_runs(services, prefect):
                if run_id is None:
                    problem = _no_deployment(job)
                else:
                    runs[job.id] = run_id
    except ServerUnavailable as error:
        problem = str(error)
    waiting = services.ledger.triggers.startable(services.clock())
    return StartedJobs(runs, tuple(failed), tuple(job.id for job in waiting), problem if waiting else None)


def start_job(services: Services, job: TrainingJob) -> UUID:
    """Prefect run of a pending job; created unless a run is under way already.

    Raises:
        ServerUnavailable: Prefect does not answer, or has no deployment for the model.
    """
    store = services.ledger.triggers
    with prefect_runs(services.settings.home) as prefect:
        run_id = store.run_of(job.id)
        if run_id is not None and prefect.read({run_id})[run_id].state is RunState.UNDER_WAY:
            return run_id
        deployment = _deployment_of(prefect.deployments(FLOW), job)
        if deployment is None:
            raise ServerUnavailable(_no_deployment(job))
        created = _create_run(prefect, deployment, job)
        store.set_run(job.id, created, services.clock())
        return created


def _create_runs(services: Services, prefect: Runs) -> Iterator[tuple[TrainingJob, UUID | None]]:
    jobs = services.ledger.triggers.startable(services.clock())
    deployments = prefect.deployments(FLOW) if jobs else {}
    for job in jobs:
        deployment = _deployment_of(deployments, job)
        run_id = None if deployment is None else _create_run(prefect, deployment, job)
        if run_id is not None:
            services.ledger.triggers.set_run(job.id, run_id, services.clock())
        yield job, run_id


def _deployment_of(deployments: Mapping[str, UUID], job: TrainingJob) -> UUID | None:
    return deployments.get(job.model_id) or deployments.get(ON_DEMAND)


def _create_run(prefect: Runs, deployment: UUID, job: TrainingJob) -> UUID:
    request = job.model_dump(mode="json", include=set(RetrainRequest.model_fields))
    parameters = {"request": request, "job_id": str(job.id)}
    return prefect.create(deployment, parameters, str(job.id), [job.model_id, job.trigger_reason.value])


def _no_deployment(job: TrainingJob) -> str:
    return (
        f"Prefect has no deployment {FLOW}/{job.model_id} or {FLOW}/{ON_DEMAND} for {job.model_id}: "
        "add its market to the universe, then `clm deploy`"
    )


def cancel_runs(services: Services, prefect: Runs) -> None:
    """Cancels the runs of cancelled jobs."""
    store = services.ledger.triggers
    cancelled = store.runs_of_cancelled()
    runs = prefect.read(set(cancelled.values()))
    for job_id, run_id in cancelled.items():
        if runs[run_id].state is RunState.UNDER_WAY:
            prefect.cancel(run_id, f"Job {job_id} was cancelled.")
        store.forget_run(job_id)


def _end_abandoned(services: Services, prefect: Runs) -> list[UUID]:
    """Ends the jobs whose run ended without starting the job; deleted runs are replaced later."""
    store = services.ledger.triggers
    ended = list[UUID]()
    unstarted = store.unstarted_runs()
    runs = prefect.read(set(unstarted.values()))
    diagnoses = prefect.pod_diagnoses([run_id for run_id, run in runs.items() if run.state is RunState.ENDED])
    for job_id, run_id in unstarted.items():
        run = runs[run_id]
        if run.state is RunState.MISSING:
            store.forget_run(job_id)
        elif run.state is RunState.ENDED and _fail(services, job_id, run, diagnoses.get(run_id)):
            ended.append(job_id)
    return ended


def _end_killed(services: Services, prefect: Runs) -> list[UUID]:
    """Ends the jobs in progress whose pod was killed: memory and eviction leave no process behind."""
    running = services.ledger.triggers.runs_in_progress()
    runs = prefect.read(set(running.values()))
    diagnoses = prefect.pod_diagnoses([run_id for run_id, run in runs.items() if run.state is RunState.ENDED])
    causes = {
        job_id: f"the run was killed: {_reason(runs[run_id], diagnoses[run_id])}"
        for job_id, run_id in running.items()
        if diagnoses.get(run_id) in KILLED
    }
    return [job.id for job in end_killed_jobs(services, causes)] if causes else []


def _reason(run: Run, diagnosis: str | None) -> str:
    return run.description if diagnosis is None else f"{diagnosis}: {run.description}"


def _fail(services: Services, job_id: UUID, run: Run, diagnosis: str | None) -> bool:
    """True if the job failed, False if the job was started in the meantime."""
    try:
        lease = services.ledger.start_job(job_id, "dispatch", services.clock(), timedelta(minutes=1))
    except IllegalTransition:
        return False
    cause = f"the run ended before the start: {_reason(run, diagnosis)}"
    by = None
    if run.cancelled:
        cause = f"{CANCELLED_IN_PREFECT} before the start ({run.description})"
        by = PREFECT
    services.ledger.fail_job(lease, cause, services.clock(), cancelled_by=by)
    return True
