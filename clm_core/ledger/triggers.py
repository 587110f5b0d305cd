"""Requests to retrain and their answers, the inbox, and the Prefect runs of jobs.

Requests are answered one at a time: the budget of all models together is counted under the intake's lock.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.kinds import Kind
from clm_core.domain.triggers import Answer, History, Message, Reply, TriggerDecision, TriggerRequest
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, TriggerReason
from clm_core.ledger import alerts
from clm_core.ledger.jobs import read_job
from clm_core.ledger.tables import Base, InboxRow, JobRow, StartRow, TriggerRow, VersionRow, storable
from clm_core.platform.locks import AdvisoryLock

_REQUESTS, _INBOX, _RUNS, _JOBS, _VERSIONS = (
    Base.metadata.tables[row.__tablename__] for row in (TriggerRow, InboxRow, StartRow, JobRow, VersionRow)
)
DAY = timedelta(hours=24)
CLOCK_MARGIN = timedelta(minutes=1)
"""Time by which a concurrent transaction may have read the clock later than the reader."""


class TriggerStore:
    """Requests, messages and runs. Methods are transactions, the module's functions join the caller's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Transaction for an answer and everything that the answer depends on."""
        with self._engine.begin() as connection:
            yield connection

    def answers(
        self,
        model_id: str | None = None,
        reply: Reply | None = None,
        message: tuple[str, str] | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Answer]:
        """Answers, newest first.

        Args:
            message: source and id of the message with the requests.
            before: exclusive upper limit of the answers' numbers, for the following page.
        """
        query = select(_REQUESTS).order_by(_REQUESTS.c.number.desc()).limit(limit)
        if model_id is not None:
            query = query.where(_REQUESTS.c.model_id == model_id)
        if reply is not None:
            query = query.where(_REQUESTS.c.reply == reply)
        if message is not None:
            query = query.where(_REQUESTS.c.inbox_number == _number_of(*message).scalar_subquery())
        if before is not None:
            query = query.where(_REQUESTS.c.number < before)
        with self._engine.begin() as connection:
            return [_answer(row) for row in connection.execute(query).mappings()]

    def receive(
        self, source: str, message_id: str, body: bytes, body_hash: str, now: datetime
    ) -> tuple[bool, datetime, str]:
        """Keep a message.

        Returns:
            True if the message is new, the time of the first receipt, and the hash of the first body.
        """
        row = {
            "source": source,
            "message_id": message_id,
            "body": body,
            "body_hash": body_hash,
            "received_at": now,
        }
        stored = upsert(_INBOX).values(row).on_conflict_do_nothing().returning(_INBOX.c.number)
        with self._engine.begin() as connection:
            is_new = connection.execute(stored).one_or_none() is not None
            known = select(_INBOX.c.received_at, _INBOX.c.body_hash).where(
                _INBOX.c.number == _number_of(source, message_id).scalar_subquery()
            )
            known_message = connection.execute(known).one()
        return is_new, known_message.received_at, known_message.body_hash

    def messages(self, set_aside: bool = False, limit: int = 50) -> list[Message]:
        """Newest messages: all messages, or only messages set aside."""
        query = select(_INBOX).order_by(_INBOX.c.number.desc()).limit(limit)
        if set_aside:
            query = query.where(_INBOX.c.error.is_not(None))
        with self._engine.begin() as connection:
            return [_message(row) for row in connection.execute(query).mappings()]

    def last_received(self, source: str) -> datetime | None:
        """Time of receipt of a source's newest message; None without messages."""
        newest = select(func.max(_INBOX.c.received_at)).where(_INBOX.c.source == source)
        with self._engine.begin() as connection:
            received_at: datetime | None = connection.scalar(newest)
        return received_at

    def with_jobs(self, run_ids: Collection[UUID]) -> set[UUID]:
        """Runs with a job, among the given runs."""
        known = select(_RUNS.c.run_id).where(_RUNS.c.run_id.in_(run_ids))
        with self._engine.begin() as connection:
            return set(connection.scalars(known))

    def startable(self, now: datetime) -> list[TrainingJob]:
        """Oldest pending job of each model without a job in progress, if the job has no run; oldest first."""
        other = _JOBS.alias()
        of_model = other.c.model_id == _JOBS.c.model_id
        under_way = exists().where(of_model, other.c.status == JobStatus.IN_PROGRESS)
        earlier = tuple_(other.c.created_at, other.c.id) < tuple_(_JOBS.c.created_at, _JOBS.c.id)
        is_behind = exists().where(of_model, other.c.status == JobStatus.PENDING, earlier)
        waiting = select(_JOBS).where(
            _JOBS.c.status == JobStatus.PENDING, ~under_way, ~is_behind, ~_has_run(now)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(waiting.order_by(_JOBS.c.created_at, _JOBS.c.id)).mappings()
            return [read_job(row) for row in rows]

    def unstarted_runs(self) -> dict[UUID, UUID]:
        """Prefect runs of pending jobs, by job."""
        waiting = (
            select(_RUNS.c.job_id, _RUNS.c.run_id)
            .join(_JOBS, _JOBS.c.id == _RUNS.c.job_id)
            .where(_JOBS.c.status == JobStatus.PENDING, _RUNS.c.expires_at.is_(None))
        )
        with self._engine.begin() as connection:
            return {row.job_id: row.run_id for row in connection.execute(waiting)}

    def runs_in_progress(self) -> dict[UUID, UUID]:
        """Prefect runs of jobs in progress, by job."""
        running = (
            select(_RUNS.c.job_id, _RUNS.c.run_id)
            .join(_JOBS, _JOBS.c.id == _RUNS.c.job_id)
            .where(_JOBS.c.status == JobStatus.IN_PROGRESS)
        )
        with self._engine.begin() as connection:
            return {row.job_id: row.run_id for row in connection.execute(running)}

    def runs_of_failed(self, cause: str, since: datetime) -> dict[UUID, UUID]:
        """Prefect runs of jobs that failed for a cause since a moment, by job."""
        failed = (
            select(_RUNS.c.job_id, _RUNS.c.run_id)
            .join(_JOBS, _JOBS.c.id == _RUNS.c.job_id)
            .where(_JOBS.c.failure_cause == cause, _JOBS.c.finished_at >= since)
        )
        with self._engine.begin() as connection:
            return {row.job_id: row.run_id for row in connection.execute(failed)}

    def is_reserved_for(self, job_id: UUID, run_id: UUID) -> bool:
        """True if the run alone may start the job."""
        own = select(_RUNS.c.job_id).where(_RUNS.c.job_id == job_id, _RUNS.c.run_id == run_id)
        with self._engine.begin() as connection:
            return connection.execute(own).first() is not None

    def run_of(self, job_id: UUID) -> UUID | None:
        """Prefect run of a job; None without a run, and for a job that a process has reserved."""
        query = select(_RUNS.c.run_id).where(_RUNS.c.job_id == job_id, _RUNS.c.expires_at.is_(None))
        with self._engine.begin() as connection:
            run_id: UUID | None = connection.scalar(query)
        return run_id

    def runs_of_cancelled(self) -> dict[UUID, UUID]:
        """Prefect runs of cancelled jobs, by job."""
        cancelled = (
            select(_RUNS.c.job_id, _RUNS.c.run_id)
            .join(_JOBS, _JOBS.c.id == _RUNS.c.job_id)
            .where(_JOBS.c.cancelled_by.is_not(None), _RUNS.c.expires_at.is_(None))
        )
        with self._engine.begin() as connection:
            return {row.job_id: row.run_id for row in connection.execute(cancelled)}

    def set_run(self, job_id: UUID, run_id: UUID, now: datetime, expires_at: datetime | None = None) -> None:
        """Record the Prefect run created for a job, or a reservation that ends."""
        with self._engine.begin() as connection:
            give_to_run(connection, job_id, run_id, now, expires_at)

    def forget_run(self, job_id: UUID) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(_RUNS).where(_RUNS.c.job_id == job_id))

    def retrains_since_training(self, model_id: str) -> "RetrainsSince":
        with self._engine.begin() as connection:
            return retrains_since_training(connection, model_id)

    def kinds(self, symbol: str, timeframe: str) -> list[Kind]:
        """Kinds of model with a version on a market."""
        kinds = (
            select(_VERSIONS.c.model_type, _VERSIONS.c.plugin)
            .distinct()
            .where(_VERSIONS.c.symbol == symbol, _VERSIONS.c.timeframe == timeframe)
            .order_by("model_type", "plugin")
        )
        with self._engine.begin() as connection:
            return [Kind(ModelType(row.model_type), row.plugin) for row in connection.execute(kinds)]

    def forget(self, before: datetime) -> int:
        """Delete messages processed before a moment; returns the number of deleted messages."""
        with self._engine.begin() as connection:
            return connection.execute(delete(_INBOX).where(_INBOX.c.processed_at < before)).rowcount


def lock(connection: Connection) -> None:
    """Take the intake's lock: other requests wait until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.INTAKE)))


def give_to_run(
    connection: Connection, job_id: UUID, run_id: UUID, now: datetime, expires_at: datetime | None
) -> None:
    """Assign a job to a Prefect run, which alone may start the job until `expires_at`."""
    row = {"run_id": run_id, "at": now, "expires_at": expires_at}
    given = upsert(_RUNS).values(row | {"job_id": job_id})
    connection.execute(given.on_conflict_do_update(index_elements=["job_id"], set_=row))


def _has_run(now: datetime) -> ColumnElement[bool]:
    """Condition on a job: a Prefect run of the job is known, or a run has reserved the job."""
    # a reservation from before the clock was put back has ended
    reserved = and_(_RUNS.c.expires_at > now, _RUNS.c.at <= now + CLOCK_MARGIN)
    return exists().where(_RUNS.c.job_id == _JOBS.c.id, or_(_RUNS.c.expires_at.is_(None), reserved))


def history(connection: Connection, job: TrainingJob, key: str | None, now: datetime) -> History:
    """Jobs and earlier requests of the model of a job that is not recorded yet."""
    model_id = job.model_id
    of_model = _REQUESTS.c.model_id == model_id
    accepted = select(
        _REQUESTS.c.trigger_reason,
        # a request from before the clock was put back would extend the cooldown by the step
        func.max(case((_REQUESTS.c.at <= now, _REQUESTS.c.at))).label("last"),
        func.count(case((_REQUESTS.c.at > now - DAY, 1))).label("within_a_day"),
    ).where(of_model, _REQUESTS.c.reply == Reply.ACCEPTED)
    rows = connection.execute(accepted.group_by(_REQUESTS.c.trigger_reason)).all()
    in_all = select(func.count()).where(_REQUESTS.c.reply == Reply.ACCEPTED, _REQUESTS.c.at > now - DAY)
    pending = _job_of(connection, model_id, JobStatus.PENDING)
    return History(
        running=_job_of(connection, model_id, JobStatus.IN_PROGRESS),
        pending=pending,
        same_training=None if pending is None else _same_training(connection, job),
        last_accepted={TriggerReason(row.trigger_reason): row.last for row in rows if row.last is not None},
        accepted={TriggerReason(row.trigger_reason): row.within_a_day for row in rows},
        accepted_in_all=connection.execute(in_all).scalar_one(),
        same_key=None if key is None else _job_with_key(connection, model_id, key),
        unpromoted=retrains_since_training(connection, model_id).ended,
    )


@dataclass(frozen=True)
class RetrainsSince:
    """Retrains of a model since the training of the production version."""

    ended: int
    """Jobs completed or failed; none of them led to a promotion."""
    failed: int
    newest: datetime | None
    """Time of the newest request; None: none."""


def retrains_since_training(connection: Connection, model_id: str) -> RetrainsSince:
    """Jobs opened after the production version's own; none without a production version."""
    produced = (
        select(func.max(_JOBS.c.created_at))
        .join(_VERSIONS, _VERSIONS.c.training_job_id == _JOBS.c.id)
        .where(_VERSIONS.c.model_id == model_id, _VERSIONS.c.status == ModelStatus.PRODUCTION)
    )
    ended = and_(_JOBS.c.status.in_((JobStatus.COMPLETED, JobStatus.FAILED)), _JOBS.c.cancelled_by.is_(None))
    counted = select(
        func.count(case((ended, 1))).label("ended"),
        func.count(case((and_(ended, _JOBS.c.status == JobStatus.FAILED), 1))).label("failed"),
        func.max(_JOBS.c.created_at).label("newest"),
    ).where(_JOBS.c.model_id == model_id, _JOBS.c.created_at > produced.scalar_subquery())
    row = connection.execute(counted).one()
    return RetrainsSince(row.ended, row.failed, row.newest)


def record(
    connection: Connection,
    request: TriggerRequest,
    model_id: str,
    decision: TriggerDecision,
    job_id: UUID | None,
    inbox_number: int | None,
    now: datetime,
) -> Answer:
    row = {
        "model_id": model_id,
        "trigger_reason": request.training.trigger_reason,
        "key": request.key,
        "request": request.model_dump(mode="json"),
        "at": now,
        "reply": decision.reply,
        "because": decision.because,
        "job_id": job_id,
        "waits_for": decision.waits_for,
        "inbox_number": inbox_number,
    }
    received_at = select(_INBOX.c.received_at).where(_INBOX.c.number == inbox_number).scalar_subquery()
    written = insert(_REQUESTS).values(received_at=received_at).returning(*_REQUESTS.c)
    return _answer(connection.execute(written, row).mappings().one())


def answer_to(connection: Connection, key: str, since: datetime) -> Answer | None:
    """First answer recorded since a moment for a request with a key, if any."""
    query = select(_REQUESTS).where(_REQUESTS.c.key == key, _REQUESTS.c.at > since)
    row = connection.execute(query.order_by(_REQUESTS.c.number).limit(1)).mappings().one_or_none()
    return None if row is None else _answer(row)


def next_message(connection: Connection) -> Message | None:
    """Oldest waiting message without a lock, locked until the transaction ends."""
    waiting = select(_INBOX).where(_INBOX.c.processed_at.is_(None)).order_by(_INBOX.c.number).limit(1)
    row = connection.execute(waiting.with_for_update(skip_locked=True)).mappings().one_or_none()
    return None if row is None else _message(row)


def processed(connection: Connection, message: Message, now: datetime) -> None:
    """Mark a message as answered."""
    done = update(_INBOX).where(_INBOX.c.number == message.number)
    connection.execute(done.values(processed_at=now))


def set_aside(connection: Connection, message: Message, error: str, now: datetime) -> None:
    """Set a message aside that cannot be answered, and alert."""
    done = update(_INBOX).where(_INBOX.c.number == message.number)
    connection.execute(done.values(processed_at=now, error=storable(error)))
    subject = storable(f"{message.source}/{message.message_id}")
    text = (
        f"A message from {message.source} was set aside: {storable(error)}. See `clm triggers --set-aside`."
    )
    alerts.record(connection, Alert(kind=AlertKind.MESSAGE_SET_ASIDE, subject=subject, message=text, at=now))


def _number_of(source: str, message_id: str) -> Select[Any]:
    return select(_INBOX.c.number).where(_INBOX.c.source == source, _INBOX.c.message_id == message_id)


def _job_of(connection: Connection, model_id: str, status: JobStatus) -> UUID | None:
    """Oldest job of a model with a status."""
    oldest = (
        select(_JOBS.c.id)
        .where(_JOBS.c.model_id == model_id, _JOBS.c.status == status)
        .order_by(_JOBS.c.created_at, _JOBS.c.id)
        .limit(1)
    )
    job_id: UUID | None = connection.scalar(oldest)
    return job_id


def _same_training(connection: Connection, job: TrainingJob) -> UUID | None:
    """Oldest pending job with the data, the parameters and the seed of a job."""
    pending = select(_JOBS).where(_JOBS.c.model_id == job.model_id, _JOBS.c.status == JobStatus.PENDING)
    rows = connection.execute(pending.order_by(_JOBS.c.created_at, _JOBS.c.id)).mappings()
    return next((each.id for each in map(read_job, rows) if each.trains_like(job)), None)


def has_started_pending(connection: Connection, model_id: str, now: datetime) -> bool:
    """True if a pending job of the model has a run."""
    pending = select(_JOBS.c.id).where(_JOBS.c.model_id == model_id, _JOBS.c.status == JobStatus.PENDING)
    return connection.execute(pending.where(_has_run(now)).limit(1)).first() is not None


def _job_with_key(connection: Connection, model_id: str, key: str) -> UUID | None:
    query = (
        select(_REQUESTS.c.job_id)
        .where(_REQUESTS.c.model_id == model_id, _REQUESTS.c.key == key, _REQUESTS.c.job_id.is_not(None))
        .order_by(_REQUESTS.c.number)
        .limit(1)
    )
    job_id: UUID | None = connection.scalar(query)
    return job_id


def _answer(row: Mapping[Any, Any]) -> Answer:
    return Answer.model_validate({name: row[name] for name in Answer.model_fields})


def _message(row: Mapping[Any, Any]) -> Message:
    return Message.model_validate({name: row[name] for name in Message.model_fields})
