"""Training jobs: their life from the request to the end, under a lease while in progress."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, insert, select, update

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import IllegalTransition, NotFound
from clm_core.domain.events import EventType, TrainingJobCreated
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.listings import JobQuery, Page
from clm_core.domain.vocabulary import JobStatus, Role
from clm_core.ledger import alerts, audit_records, events, leases, paging, rows, versions
from clm_core.ledger.tables import Base, JobRow, VersionRow, storable

_JOBS, _VERSIONS = (Base.metadata.tables[row.__tablename__] for row in (JobRow, VersionRow))


class JobStore:
    """Training jobs. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create_job(self, job: TrainingJob) -> TrainingJob:
        """Record a pending job.

        Raises:
            AlreadyExists: a job with the same id is recorded.
        """
        with rows.recording(self._engine, f"Job {job.id}") as connection:
            record_job(connection, job, Actor(name=job.requested_by, role=Role.OPERATOR))
        return job

    def start_job(self, job_id: UUID, holder: str, now: datetime, lease_for: timedelta) -> Lease:
        """Put a pending job in progress, run by the holder for as long as the lease is renewed.

        Raises:
            IllegalTransition: the job is not pending.
            NotFound: the job does not exist.
        """
        started = (
            update(_JOBS)
            .where(_JOBS.c.id == job_id, _JOBS.c.status == JobStatus.PENDING)
            .values(status=JobStatus.IN_PROGRESS, started_at=now)
            .returning(*_JOBS.c)
        )
        with self._engine.begin() as connection:
            row = connection.execute(started).mappings().one_or_none()
            if row is not None:
                lease = leases.take(connection, job_id, holder, now, lease_for)
                audit_records.job_started(connection, read_job(row), lease, now)
                return lease
        job = self.job(job_id)
        raise IllegalTransition(
            f"Job {job_id} is {job.status}: only a pending job can be started. Ask for a new job instead."
        )

    def renew_lease(self, lease: Lease, now: datetime, lease_for: timedelta) -> None:
        with self._engine.begin() as connection:
            leases.renew(connection, lease, now, lease_for)

    def suspect_leases(self, now: datetime) -> list[Lease]:
        """Leases whose holder may be dead; a living holder renews the lease within `leases.grace`."""
        with self._engine.begin() as connection:
            return leases.suspects(connection, now)

    def take_over(
        self, seen: Sequence[Lease], holder: str, now: datetime, lease_for: timedelta
    ) -> list[Lease]:
        """Hand leases to the caller, under new tokens, except those renewed or taken over since they were
        seen."""
        with self._engine.begin() as connection:
            return leases.take_over(connection, seen, holder, now, lease_for)

    def pin_data(
        self, lease: Lease, data_snapshot: str, series: Mapping[str, str], now: datetime
    ) -> TrainingJob:
        """Record the bars and own series of a job whose bars were fetched by the run."""
        pinned = (
            update(_JOBS)
            .where(_JOBS.c.id == lease.job_id)
            .values(data_snapshot=data_snapshot, series=dict(series))
            .returning(*_JOBS.c)
        )
        with self._engine.begin() as connection:
            leases.require(connection, lease.job_id, lease)
            job = read_job(connection.execute(pinned).mappings().one())
            audit_records.job_data_fetched(connection, job, now)
        return job

    def complete_job(self, lease: Lease, now: datetime) -> TrainingJob:
        with self._engine.begin() as connection:
            job = _end(connection, lease, JobStatus.COMPLETED, finished_at=now)
            audit_records.job_completed(connection, job, lease, now)
        return job

    def fail_job(
        self, lease: Lease, cause: str, now: datetime, cancelled_by: str | None = None
    ) -> TrainingJob:
        """End a job as failed, together with its versions: no version serves before its job is completed.

        Args:
            cancelled_by: person or part behind a cancellation, without an alert; None for a failure.
        """
        cause = storable(cause)
        ends = {"finished_at": now, "failure_cause": cause, "cancelled_by": cancelled_by}
        with self._engine.begin() as connection:
            job = _end(connection, lease, JobStatus.FAILED, **ends)
            if cancelled_by is None:
                message = f"{job.model_id}: {cause}. See `clm jobs`, then retrain."
                alert = Alert(kind=AlertKind.JOB_FAILED, subject=str(job.id), message=message, at=now)
                alerts.record(connection, alert)
            audit_records.job_failed(connection, job, lease, now)
            versions.fail_versions(connection, lease.job_id, now)
        return job

    def cancel_job(self, job_id: UUID, by: Actor, now: datetime) -> TrainingJob:
        """End a pending job as failed, cancelled by a person; nobody is alerted.

        A cancelled job stays as it is.

        Raises:
            IllegalTransition: the job was started.
            NotFound: the job does not exist.
        """
        with self._engine.begin() as connection:
            cancelled = _cancel(connection, _JOBS.c.id == job_id, by, now)
        if cancelled:
            return cancelled[0]
        job = self.job(job_id)
        if job.cancelled_by is not None:
            return job
        raise IllegalTransition(f"Job {job_id} is {job.status}: only a pending job can be cancelled.")

    def job(self, job_id: UUID) -> TrainingJob:
        """
        Raises:
            NotFound: the job does not exist.
        """
        jobs = rows.newest_rows(self._engine, _JOBS, {"id": job_id}, limit=1)
        if not jobs:
            raise NotFound(f"There is no job {job_id}. `clm jobs` lists the jobs.")
        return read_job(jobs[0])

    def jobs(
        self, status: JobStatus | None = None, model_id: str | None = None, limit: int = 50
    ) -> list[TrainingJob]:
        """Jobs, newest first."""
        equal = {"status": status, "model_id": model_id}
        return [read_job(row) for row in rows.newest_rows(self._engine, _JOBS, equal, limit)]

    def newest_trained(self) -> list[TrainingJob]:
        """Job of the newest version of each model."""
        newest = (
            select(*_JOBS.c)
            .distinct(_VERSIONS.c.model_id)
            .join(_VERSIONS, _VERSIONS.c.training_job_id == _JOBS.c.id)
            .order_by(_VERSIONS.c.model_id, _VERSIONS.c.created_at.desc(), _VERSIONS.c.version.desc())
        )
        with self._engine.begin() as connection:
            return [read_job(row) for row in connection.execute(newest).mappings()]

    def pool_members(self, name: str) -> tuple[str, ...]:
        """Symbols of a pool by its first job; empty for a name without jobs of a pool."""
        first = (
            select(_JOBS.c.symbols)
            .where(_JOBS.c.symbol == name, _JOBS.c.symbols != [])
            .order_by(_JOBS.c.created_at, _JOBS.c.id)
            .limit(1)
        )
        with self._engine.begin() as connection:
            return tuple(connection.scalar(first) or ())

    def members_by_pool(self) -> dict[str, tuple[str, ...]]:
        """Symbols of every pool with a job, by its first job."""
        first = (
            select(_JOBS.c.symbol, _JOBS.c.symbols)
            .where(_JOBS.c.symbols != [])
            .distinct(_JOBS.c.symbol)
            .order_by(_JOBS.c.symbol, _JOBS.c.created_at, _JOBS.c.id)
        )
        with self._engine.begin() as connection:
            return {name: tuple(symbols) for name, symbols in connection.execute(first)}

    def pool_names(self) -> frozenset[str]:
        """Names of all pools with a job."""
        pools = select(_JOBS.c.symbol).where(_JOBS.c.symbols != []).distinct()
        with self._engine.begin() as connection:
            return frozenset(connection.scalars(pools))

    def find_jobs(self, query: JobQuery) -> Page[TrainingJob]:
        """
        Raises:
            InvalidCursor: the cursor is malformed, or belongs to another list.
        """
        conditions = [_JOBS.c[name] == value for name, value in paging.filters(query, "model_id", "status")]
        matching = select(*_JOBS.c).where(*conditions, *paging.created(query, _JOBS.c.created_at))
        keys = (_JOBS.c.created_at, _JOBS.c.id)
        with self._engine.begin() as connection:
            page_rows = connection.execute(paging.seek(matching, keys, query)).mappings().all()
        return paging.page(page_rows, keys, query, read_job)


def record_job(connection: Connection, job: TrainingJob, by: Actor) -> None:
    """Record a pending job in the caller's transaction.

    Raises:
        IllegalTransition: the job is not pending.
    """
    if job.status is not JobStatus.PENDING:
        raise IllegalTransition(f"Job {job.id} is {job.status}: a new job has to be pending.")
    connection.execute(insert(_JOBS), job.model_dump() | {"model_id": job.model_id})
    events.record(connection, EventType.TRAINING_JOB_CREATED, _created_event(job), job.created_at)
    audit_records.job_created(connection, job, by)


def cancel_pending(connection: Connection, model_id: str, by: Actor, now: datetime) -> list[TrainingJob]:
    """End the pending jobs of a model in the caller's transaction."""
    return _cancel(connection, _JOBS.c.model_id == model_id, by, now)


def _cancel(
    connection: Connection, condition: ColumnElement[bool], by: Actor, now: datetime
) -> list[TrainingJob]:
    name = storable(by.name)
    ended = (
        update(_JOBS)
        .where(condition, _JOBS.c.status == JobStatus.PENDING)
        .values(
            status=JobStatus.FAILED,
            started_at=now,
            finished_at=now,
            failure_cause=f"cancelled by {name}",
            cancelled_by=name,
        )
    )
    jobs = [read_job(row) for row in connection.execute(ended.returning(*_JOBS.c)).mappings()]
    for job in jobs:
        audit_records.job_cancelled(connection, job, by, now)
    return jobs


def read_job(row: Mapping[Any, Any]) -> TrainingJob:
    return TrainingJob.model_validate({name: row[name] for name in TrainingJob.model_fields})


def _end(connection: Connection, lease: Lease, status: JobStatus, **values: Any) -> TrainingJob:
    leases.give_back(connection, lease)
    ended = update(_JOBS).where(_JOBS.c.id == lease.job_id).values(status=status, **values)
    return read_job(connection.execute(ended.returning(*_JOBS.c)).mappings().one())


def _created_event(job: TrainingJob) -> TrainingJobCreated:
    shared = TrainingJobCreated.model_fields.keys() - {"job_id", "model_id"}
    return TrainingJobCreated(job_id=job.id, model_id=job.model_id, **job.model_dump(include=shared))
