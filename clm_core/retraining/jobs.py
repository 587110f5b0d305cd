"""Life of a retraining job: opening, running under a lease, completing, failing, and reaping dead jobs."""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from clm_core.domain.errors import LeaseLost, NotFound, RegistryUnavailable, UnknownSeries
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.jobs import Lease, RetrainRequest, TrainingJob
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.vocabulary import JobStatus
from clm_core.ledger import leases
from clm_core.ledger.store import Ledger
from clm_core.platform import tracing
from clm_core.platform.log_fields import log_fields
from clm_core.retraining import resume
from clm_core.retraining.cancellation import stopped_run
from clm_core.services import Services

LEASE_LOST_CAUSE = "lost its lease"
"""Failure cause of a job whose process stopped renewing the lease."""
MAX_LEASE = timedelta(hours=1)
"""Longest lease that the settings allow."""


def new_job(services: Services, request: RetrainRequest) -> TrainingJob:
    """The job for a request, not yet recorded; bad parameters are refused before any data is loaded.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        UnknownSeries: no source has the requested bars, or an own series in use is not stored.
        NotFound: a member of an ensemble does not exist.
        PoolRefused: the symbols cannot make the pool asked for.
    """
    # a maintenance pass, which makes no job, does without the libraries of models and bars
    from clm_core.models import catalog
    from clm_core.models.params import series_names
    from clm_core.retraining import pools
    from clm_core.retraining.ensembles import resolve_members

    request = pools.resolve(services, request)
    params = catalog.requested_params(
        request.model_type,
        request.training_params,
        request.plugin,
        services.settings.execution.rules,
    )
    now = services.clock()
    if request.symbols:
        return pools.new_job(services, request.model_copy(update={"training_params": params}), now)
    try:
        series = services.market.newest(request.symbol, request.timeframe)
    except UnknownSeries:
        if services.settings.fetched_market(request.symbol, request.timeframe) is None:
            raise
        return _job_before_fetch(services, request.model_copy(update={"training_params": params}), now)
    # read here already, so that a damaged file or a series without a closed bar is refused without a job
    services.market.bars(series.symbol, series.timeframe, content_hash=series.content_hash, closed_by=now)
    changes = {"symbol": series.symbol, "timeframe": series.timeframe.value, "training_params": params}
    normalised = request.model_copy(update=changes)
    fields = resolve_members(services.ledger, normalised).model_dump(exclude={"again"})
    own_series = services.market.newest_series(series_names(fields["training_params"]), series.symbol)
    data = {"data_snapshot": series.content_hash, "series": own_series}
    return TrainingJob(id=uuid.uuid4(), created_at=now, **fields | data)


def _job_before_fetch(services: Services, request: RetrainRequest, now: datetime) -> TrainingJob:
    """The job for a market of the universe without bars, which the run fetches first."""
    from clm_core.retraining.ensembles import resolve_members

    named = request.model_copy(update={"symbol": normalise_symbol(request.symbol)})
    fields = resolve_members(services.ledger, named).model_dump(exclude={"again"})
    return TrainingJob(id=uuid.uuid4(), created_at=now, data_snapshot="", **fields)


def open_job(services: Services, request: RetrainRequest) -> TrainingJob:
    """Record a job directly, without asking the intake.

    Dead jobs are reaped first, so that no retrain waits for a job without a process.
    """
    job = new_job(services, request)
    reap_dead_jobs(services)
    services.ledger.create_job(job)
    crash_at(Fault.JOB_RECORDED, services.settings.fault)
    return job


@contextlib.contextmanager
def running(services: Services, job: TrainingJob) -> Iterator[Lease]:
    """Run a job: in progress inside the block, completed after it, or failed with the error as its cause.

    The block writes with the lease, which a heartbeat renews until the block ends. A block whose lease was
    taken over raises LeaseLost at the next write and changes nothing any more.
    """
    length = timedelta(seconds=services.settings.lease_seconds)
    lease = services.ledger.start_job(job.id, _process_name(), services.clock(), length)
    crash_at(Fault.JOB_STARTED, services.settings.fault)
    every = leases.interval(length)
    with (
        log_fields(job_id=str(job.id), model_id=job.model_id),
        _traced(job),
        leases.heartbeat(lambda: services.ledger.renew_lease(lease, services.clock(), length), every),
    ):
        try:
            try:
                yield lease
            except BaseException:
                resume.keep_training(services.work, job)
                raise
            # before the job is completed: the folder of a completed job would never be deleted
            resume.clear_workspace(services.work, job.id)
        except LeaseLost:
            # no ledger knows the runs and versions stored in MLflow after the lease was lost
            services.registry.abandon(job.id, LEASE_LOST_CAUSE, services.clock())
            raise
        except BaseException as error:
            _fail(services, lease, error)
            raise
        else:
            crash_at(Fault.FOLDER_REMOVED, services.settings.fault)
            services.ledger.complete_job(lease, services.clock())
            crash_at(Fault.COMPLETED, services.settings.fault)


@contextlib.contextmanager
def _traced(job: TrainingJob) -> Iterator[None]:
    """The first span of the job's trace, with a span for the time from the request to the run."""
    reason = job.trigger_reason.value
    requested_by = job.requested_by
    with tracing.trace_span("retrain", job.id, first=True, reason=reason, requested_by=requested_by):
        with tracing.span("waiting for a run", start=job.created_at):
            pass
        yield


def reap_dead_jobs(services: Services) -> list[TrainingJob]:
    """End every job whose process sends no heartbeat as failed, and return the jobs ended.

    Waits half a minute if a lease has expired: a living process renews the lease meanwhile, after a step of
    the clock, a suspension of the machine or an outage of the database. The process of a dead job has died,
    or is refused at its next write. When the reaper itself dies halfway, the lease it took over expires too,
    and the next pass ends the job. Runs and versions in MLflow of jobs that failed while MLflow was
    unavailable are closed as well.
    """
    ended = list[TrainingJob]()
    for lease in _take_over_dead(services):
        ended.append(_end_dead(services, lease, LEASE_LOST_CAUSE))
    for job_id in services.registry.left_open():
        if _has_failed(services.ledger, job_id):
            services.registry.abandon(job_id, "its job failed", services.clock())
    return ended


def end_killed_jobs(services: Services, causes: Mapping[UUID, str]) -> list[TrainingJob]:
    """End jobs in progress as failed whose process was killed for certain, before the leases expire.

    A job whose lease is renewed meanwhile goes on.

    Args:
        causes: failure cause of each job.
    """
    length = timedelta(seconds=services.settings.lease_seconds)
    # every lease has expired by then
    held = services.ledger.suspect_leases(services.clock() + MAX_LEASE)
    killed = [lease for lease in held if lease.job_id in causes]
    taken = services.ledger.take_over(killed, _process_name(), services.clock(), length)
    return [_end_dead(services, lease, causes[lease.job_id]) for lease in taken]


def _end_dead(services: Services, lease: Lease, cause: str) -> TrainingJob:
    services.registry.abandon(lease.job_id, cause, services.clock())
    resume.keep_training(services.work, services.ledger.job(lease.job_id))
    return services.ledger.fail_job(lease, cause, services.clock())


def _take_over_dead(services: Services) -> list[Lease]:
    suspects = services.ledger.suspect_leases(services.clock())
    if not suspects:
        return []
    wait = leases.grace(suspects)
    holders = ", ".join(sorted({lease.holder for lease in suspects}))
    services.announce(f"Waiting {wait.total_seconds():.0f} s for a heartbeat of {holders}", 0.0)
    services.pause(wait.total_seconds())
    length = timedelta(seconds=services.settings.lease_seconds)
    return services.ledger.take_over(suspects, _process_name(), services.clock(), length)


def _fail(services: Services, lease: Lease, error: BaseException) -> None:
    stopped = stopped_run(error, services.settings.home)
    now = services.clock()
    if stopped is None:
        cause = f"{type(error).__name__}: {error}"
        services.ledger.fail_job(lease, cause, now)
    else:
        cause = stopped.cause
        services.ledger.fail_job(lease, cause, now, cancelled_by=stopped.cancelled_by)
    # last, because MLflow may be the cause of the failure; the next reaping tries again
    with contextlib.suppress(RegistryUnavailable):
        services.registry.abandon(lease.job_id, f"its job failed: {cause}", now)


def _has_failed(ledger: Ledger, job_id: UUID) -> bool:
    with contextlib.suppress(NotFound):
        return ledger.job(job_id).status is JobStatus.FAILED
    # the job belongs to another installation on the same MLflow
    return False


def _process_name() -> str:
    """Machine and process as the holder of a lease: `trainer-3:4711`."""
    return f"{socket.gethostname()}:{os.getpid()}"
