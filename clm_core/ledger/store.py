"""Writing into the ledger and reading from it, in the words of the domain."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ScalarSelect,
    Table,
    and_,
    func,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.actors import SYSTEM, Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import AlreadyExists, IllegalTransition, NotFound
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.events import EventType, ModelEvaluated, ModelTrained, TrainingJobCreated
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.listings import JobQuery, ListedVersion, Page, VersionQuery
from clm_core.domain.versions import Lineage, ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, Role, VersionOrder
from clm_core.ledger import alerts, audit_log, audit_records, events, leases, paging
from clm_core.ledger.candidates import CandidateStore
from clm_core.ledger.hash_chain import Anchor, Recorded
from clm_core.ledger.promotions import PromotionStore
from clm_core.ledger.replies import ReplyStore
from clm_core.ledger.shadows import ShadowStore
from clm_core.ledger.tables import Base, EvaluationRow, JobRow, TrialRow, VersionRow, storable
from clm_core.ledger.tokens import TokenStore
from clm_core.ledger.trials import TrialStore
from clm_core.ledger.triggers import TriggerStore
from clm_core.ledger.tunings import TuningStore

_JOBS, _VERSIONS, _EVALUATIONS, _TRIALS = (
    Base.metadata.tables[row.__tablename__] for row in (JobRow, VersionRow, EvaluationRow, TrialRow)
)
_RANKS = {
    VersionOrder.CREATED_AT: _VERSIONS.c.created_at,
    VersionOrder.SHARPE_RATIO: _VERSIONS.c.sharpe_rank,
    VersionOrder.PROMOTION_SCORE: _VERSIONS.c.score_rank,
}
# one that is added late need not be the newest
_RANK = text("""
UPDATE model_versions SET
    sharpe_rank = CASE newest.sharpe_ratio WHEN 'NaN' THEN '-Infinity' ELSE newest.sharpe_ratio END,
    score_rank = newest.promotion_score
FROM (
    SELECT sharpe_ratio, promotion_score FROM evaluations WHERE model_id = :model_id AND version = :version
    ORDER BY created_at DESC, id DESC LIMIT 1
) newest
WHERE model_id = :model_id AND version = :version
""")
_CHANGES = text("""
SELECT count(*) FILTER (WHERE kind IN ('promotion', 'adoption')) AS promotions,
       count(*) FILTER (WHERE kind = 'rollback') AS rollbacks,
       count(*) FILTER (WHERE forced) AS forced,
       coalesce(sum(confirmations), 0) AS confirmations
FROM promotions WHERE state = 'committed'
""")
_PROMOTION_RATE = text("""
SELECT avg(EXISTS (
    SELECT FROM promotions p
    WHERE p.state = 'committed' AND p.model_id = judged.model_id AND p.to_version = judged.version
)::int)::float8
FROM (SELECT DISTINCT model_id, version FROM evaluations) AS judged
""")


@dataclass(frozen=True)
class Counts:
    """How much the ledger holds; statuses that nothing has are left out."""

    models: int
    """Model ids with at least one version."""
    types: Mapping[ModelType, int]
    """The same by kind of model."""
    versions: Mapping[ModelStatus, int]
    jobs: Mapping[JobStatus, int]
    promotions: int
    """Committed ones, forced ones and adoptions included."""
    rollbacks: int
    forced: int
    """Promotions, adoptions and rollbacks for which an admin overruled the gate."""
    confirmations: int
    """How often an admin let one of these stand for longer."""
    promotion_rate: float | None
    """Share of the judged versions that ever served, 0..1; None while nothing is judged."""


class Ledger:
    """What was asked for, what came of it and what was thought of that. Every method is a transaction.

    Every change is an entry of the audit, written last in its transaction.

    About a job in progress, its versions and their evaluations only who holds its lease writes; everybody
    else is refused with IllegalTransition, and with LeaseLost who has held it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.promotions = PromotionStore(engine)
        self.triggers = TriggerStore(engine)
        self.candidates = CandidateStore(engine)
        self.trials = TrialStore(engine)
        self.tunings = TuningStore(engine)
        self.shadows = ShadowStore(engine)
        self.tokens = TokenStore(engine)
        self.replies = ReplyStore(engine)

    def require_reachable(self) -> None:
        """Raises whatever the database says when it does not answer."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def audit_after(self, seq: int, limit: int) -> list[Recorded]:
        """Oldest first."""
        return audit_log.following(self._engine, seq, limit)

    def create_job(self, job: TrainingJob) -> TrainingJob:
        """Record a job that waits to be started.

        Raises:
            AlreadyExists: a job of that id is recorded.
        """
        with self._recording(f"Job {job.id}") as connection:
            record_job(connection, job, Actor(name=job.requested_by, role=Role.OPERATOR))
        return job

    def start_job(self, job_id: UUID, holder: str, now: datetime, lease_for: timedelta) -> Lease:
        """A pending job is in progress from now on, run by the holder for as long as its lease is renewed."""
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
                audit_records.started(connection, _job(row), lease, now)
                return lease
        found = self.job(job_id)
        raise IllegalTransition(
            f"Job {job_id} is {found.status}: only a pending job can be started. Ask for a new job instead."
        )

    def renew_lease(self, lease: Lease, now: datetime, lease_for: timedelta) -> None:
        with self._engine.begin() as connection:
            leases.renew(connection, lease, now, lease_for)

    def take_over_expired(self, holder: str, now: datetime, lease_for: timedelta) -> list[Lease]:
        """The leases of the jobs whose holders have not renewed them in time, now the caller's."""
        with self._engine.begin() as connection:
            return leases.take_over_expired(connection, holder, now, lease_for)

    def complete_job(self, lease: Lease, now: datetime) -> TrainingJob:
        with self._engine.begin() as connection:
            done = _end(connection, lease, JobStatus.COMPLETED, finished_at=now)
            audit_records.completed(connection, done, lease, now)
        return done

    def fail_job(self, lease: Lease, cause: str, now: datetime) -> TrainingJob:
        """End a job as failed, and with it its versions: none of them serves before its job is completed."""
        cause = storable(cause)
        with self._engine.begin() as connection:
            failed = _end(connection, lease, JobStatus.FAILED, finished_at=now, failure_cause=cause)
            message = f"{failed.model_id}: {cause}. See `clm jobs`, then retrain."
            alert = Alert(kind=AlertKind.JOB_FAILED, subject=str(failed.id), message=message, at=now)
            alerts.record(connection, alert)
            audit_records.failed(connection, failed, lease, now)
            _fail_versions(connection, lease.job_id, now)
        return failed

    def job(self, job_id: UUID) -> TrainingJob:
        rows = self._select(_JOBS, {"id": job_id}, limit=1)
        if not rows:
            raise NotFound(f"There is no job {job_id}. `clm jobs` lists them.")
        return _job(rows[0])

    def jobs(
        self, status: JobStatus | None = None, model_id: str | None = None, limit: int = 50
    ) -> list[TrainingJob]:
        """Newest first."""
        return [_job(row) for row in self._select(_JOBS, {"status": status, "model_id": model_id}, limit)]

    def find_jobs(self, query: JobQuery) -> Page[TrainingJob]:
        """
        Raises:
            InvalidCursor: the cursor is none, or another list's.
        """
        wanted = [_JOBS.c[name] == value for name, value in paging.filters(query, "model_id", "status")]
        rows = select(*_JOBS.c).where(*wanted, *paging.created(query, _JOBS.c.created_at))
        keys = (_JOBS.c.created_at, _JOBS.c.id)
        with self._engine.begin() as connection:
            found = connection.execute(paging.seek(rows, keys, query)).mappings().all()
        return paging.page(found, keys, query, _job)

    def add_version(self, version: ModelVersion, lease: Lease | None = None) -> ModelVersion:
        """Record a version of a recorded job.

        Raises:
            AlreadyExists: the model has a version of that label, made in the same second.
            NotFound: its job or its parent is not in the ledger.
        """
        with self._recording(f"Version {version.version} of {version.model_id}") as connection:
            leases.require(connection, version.training_job_id, lease)
            connection.execute(insert(_VERSIONS).values(version.model_dump()))
            events.record(connection, EventType.MODEL_TRAINED, _trained(version), version.created_at)
            audit_records.registered(connection, version)
        return version

    def version(self, model_id: str, label: str) -> ModelVersion:
        rows = self._select(_VERSIONS, {"model_id": model_id, "version": label}, limit=1)
        if not rows:
            raise _no_version(model_id, label)
        return _version(rows[0])

    def lineage(self, model_id: str, label: str) -> Lineage:
        """
        Raises:
            NotFound: the model has no such version.
        """
        version = self.version(model_id, label)
        return Lineage.of(version, self.job(version.training_job_id))

    def versions(
        self,
        model_id: str | None = None,
        label: str | None = None,
        status: ModelStatus | None = None,
        training_job_id: UUID | None = None,
        mlflow_version: int | None = None,
        limit: int = 50,
    ) -> list[ModelVersion]:
        """Newest first."""
        wanted = {
            "model_id": model_id,
            "version": label,
            "status": status,
            "training_job_id": training_job_id,
            "mlflow_version": mlflow_version,
        }
        return [_version(row) for row in self._select(_VERSIONS, wanted, limit)]

    def find_versions(self, query: VersionQuery) -> Page[ListedVersion]:
        """
        Raises:
            InvalidCursor: the cursor is none, or another list's.
            InvalidSymbol: nothing can have that symbol.
        """
        keys = (_RANKS[query.order], _VERSIONS.c.model_id, _VERSIONS.c.version)
        listed = paging.seek(select(*_VERSIONS.c).where(*_wanted(query)), keys, query).subquery()
        newest = (
            select(*(column.label(f"measured_{column.name}") for column in _EVALUATIONS.c))
            .where(_EVALUATIONS.c.model_id == listed.c.model_id, _EVALUATIONS.c.version == listed.c.version)
            .order_by(_EVALUATIONS.c.created_at.desc(), _EVALUATIONS.c.id.desc())
            .limit(1)
            .lateral()
        )
        order = paging.ordered([listed.c[key.name] for key in keys], query)
        rows = select(listed, newest).join(newest, true(), isouter=True).order_by(*order)
        with self._engine.begin() as connection:
            found = connection.execute(rows).mappings().all()
        return paging.page(found, keys, query, _listed)

    def set_version_status(
        self,
        model_id: str,
        label: str,
        status: ModelStatus,
        now: datetime,
        lease: Lease | None = None,
        by: Actor = SYSTEM,
    ) -> ModelVersion:
        """Give a version another status; one that has FAILED keeps that for ever.

        What serves changes by promotion alone: nothing becomes PRODUCTION here, or stops being it.

        Raises:
            IllegalTransition: the version has failed, serves, or would.
            NotFound: the model has no such version.
        """
        with self._engine.begin() as connection:
            leases.require(connection, _job_of(model_id, label), lease)
            before = _locked_version(connection, model_id, label)
            _require_move(before, status)
            if before.status is status:
                return before
            moved = update(_VERSIONS).where(_is(model_id, label)).values(status=status)
            after = _version(connection.execute(moved.returning(*_VERSIONS.c)).mappings().one())
            audit_records.moved(connection, after, before.status, now, by)
        return after

    def add_evaluation(
        self,
        result: EvaluationResult,
        verdict: Verdict,
        policy: GatePolicy,
        bundle_digest: str,
        lease: Lease | None = None,
    ) -> EvaluationResult:
        """Record what was measured and decided, by which policy, about which very bundle.

        Raises:
            AlreadyExists: an evaluation of that id is recorded.
            NotFound: its version is not in the ledger, or no trial of its job, see `TrialStore.count`.
        """
        job = _job_of(result.model_id, result.version)
        row = result.model_dump() | {
            "verdict": verdict.model_dump(exclude={"legs"}),
            "policy": policy.model_dump(),
            "bundle_digest": bundle_digest,
            "trial_id": _trial_of(job),
        }
        what = f"Evaluation {result.id} of {result.model_id} {result.version}"
        with self._recording(what) as connection:
            leases.require(connection, job, lease)
            version = _locked_version(connection, result.model_id, result.version)
            connection.execute(insert(_EVALUATIONS).values(row))
            connection.execute(_RANK, {"model_id": result.model_id, "version": result.version})
            told = _evaluated(result, verdict, bundle_digest)
            events.record(connection, EventType.MODEL_EVALUATED, told, result.created_at)
            audit_records.judged(connection, version, result, verdict, policy, bundle_digest)
        return result

    def evaluation(self, model_id: str, label: str) -> tuple[EvaluationResult, Verdict]:
        """The newest of the version."""
        newest = self._newest_evaluation(model_id, label)
        result = {name: newest[name] for name in EvaluationResult.model_fields}
        return EvaluationResult.model_validate(result), Verdict.model_validate(newest["verdict"])

    def anchor(self, folder: Path, now: datetime) -> Anchor | None:
        """Write the audit's newest entry down outside the database; None: it is there already.

        Raises:
            AuditBroken: the entry of the newest anchor is not in the log as it was.
        """
        return audit_log.anchor(self._engine, folder, now)

    def policy_of(self, model_id: str, label: str) -> GatePolicy:
        """The levels that the newest verdict on a version was reached by."""
        return GatePolicy.model_validate(self._newest_evaluation(model_id, label)["policy"])

    def counts(self) -> Counts:
        with self._engine.begin() as connection:
            distinct = func.count(_VERSIONS.c.model_id.distinct())
            types = connection.execute(select(_VERSIONS.c.model_type, distinct).group_by("model_type")).all()
            versions = connection.execute(select(_VERSIONS.c.status, func.count()).group_by("status"))
            jobs = connection.execute(select(_JOBS.c.status, func.count()).group_by("status"))
            changes = connection.execute(_CHANGES).one()
            return Counts(
                models=sum(count for _, count in types),
                types={ModelType(kind): count for kind, count in types},
                versions={ModelStatus(status): count for status, count in versions},
                jobs={JobStatus(status): count for status, count in jobs},
                promotions=changes.promotions,
                rollbacks=changes.rollbacks,
                forced=changes.forced,
                confirmations=int(changes.confirmations),
                promotion_rate=connection.scalar(_PROMOTION_RATE),
            )

    @contextlib.contextmanager
    def _recording(self, what: str) -> Iterator[Connection]:
        from psycopg.errors import ForeignKeyViolation, NotNullViolation, UniqueViolation

        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                raise AlreadyExists(f"{what} is recorded already: read it, or record it anew.") from error
            if isinstance(error.orig, ForeignKeyViolation):
                raise NotFound(
                    f"{what} belongs to something unrecorded: {error.orig.diag.message_detail}"
                ) from error
            if isinstance(error.orig, NotNullViolation) and error.orig.diag.column_name == "trial_id":
                raise NotFound(
                    f"{what}: no trial of its version's job was counted. Count it first."
                ) from error
            raise

    def _newest_evaluation(self, model_id: str, label: str) -> dict[str, Any]:
        rows = self._select(_EVALUATIONS, {"model_id": model_id, "version": label}, limit=1)
        if not rows:
            raise NotFound(f"{model_id} {label} has not been evaluated. `clm models` lists what there is.")
        return rows[0]

    def _select(self, table: Table, wanted: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        query = select(*table.c).order_by(
            table.c.created_at.desc(), *(key.desc() for key in table.primary_key)
        )
        for column, value in wanted.items():
            if value is not None:
                query = query.where(table.c[column] == value)
        with self._engine.begin() as connection:
            return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def record_job(connection: Connection, job: TrainingJob, by: Actor) -> None:
    """Record a job that waits to be started, in the caller's transaction."""
    if job.status is not JobStatus.PENDING:
        raise IllegalTransition(f"Job {job.id} is {job.status}: a new job has to be pending.")
    connection.execute(insert(_JOBS).values(job.model_dump() | {"model_id": job.model_id}))
    events.record(connection, EventType.TRAINING_JOB_CREATED, _asked(job), job.created_at)
    audit_records.created(connection, job, by)


def _end(connection: Connection, lease: Lease, status: JobStatus, **values: Any) -> TrainingJob:
    leases.give_back(connection, lease)
    ended = update(_JOBS).where(_JOBS.c.id == lease.job_id).values(status=status, **values)
    return _job(connection.execute(ended.returning(*_JOBS.c)).mappings().one())


def _job(row: Mapping[Any, Any]) -> TrainingJob:
    return TrainingJob.model_validate({name: row[name] for name in TrainingJob.model_fields})


def _version(row: Mapping[Any, Any]) -> ModelVersion:
    return ModelVersion.model_validate({name: row[name] for name in ModelVersion.model_fields})


def _listed(row: Mapping[Any, Any]) -> ListedVersion:
    if row["measured_id"] is None:
        return ListedVersion(version=_version(row), evaluation=None)
    measured = {name: row[f"measured_{name}"] for name in EvaluationResult.model_fields}
    return ListedVersion(version=_version(row), evaluation=EvaluationResult.model_validate(measured))


def _wanted(query: VersionQuery) -> list[ColumnElement[bool]]:
    equal = paging.filters(query, "model_id", "model_type", "plugin", "symbol", "timeframe", "status")
    wanted = [_VERSIONS.c[name] == value for name, value in equal]
    if query.min_sharpe is not None:
        wanted.append(_VERSIONS.c.sharpe_rank >= query.min_sharpe)
    return wanted + paging.created(query, _VERSIONS.c.created_at)


def _asked(job: TrainingJob) -> TrainingJobCreated:
    told = TrainingJobCreated.model_fields.keys() - {"job_id", "model_id"}
    return TrainingJobCreated(job_id=job.id, model_id=job.model_id, **job.model_dump(include=told))


def _trained(version: ModelVersion) -> ModelTrained:
    told = ModelTrained.model_fields.keys() - {"job_id"}
    return ModelTrained(job_id=version.training_job_id, **version.model_dump(include=told))


def _evaluated(result: EvaluationResult, verdict: Verdict, bundle_digest: str) -> ModelEvaluated:
    measured = ModelEvaluated.model_fields.keys() & EvaluationResult.model_fields.keys()
    return ModelEvaluated(
        evaluation_id=result.id,
        bundle_digest=bundle_digest,
        decision=verdict.decision,
        reasons=verdict.reasons,
        **result.model_dump(include=measured),
    )


def _is(model_id: str, label: str) -> ColumnElement[bool]:
    return and_(_VERSIONS.c.model_id == model_id, _VERSIONS.c.version == label)


def _job_of(model_id: str, label: str) -> ScalarSelect[UUID]:
    return select(_VERSIONS.c.training_job_id).where(_is(model_id, label)).scalar_subquery()


def _trial_of(job: ScalarSelect[UUID]) -> ScalarSelect[UUID]:
    """The newest; NULL, which no evaluation may have, where none was counted."""
    newest = select(_TRIALS.c.id).where(_TRIALS.c.job_id == job).order_by(_TRIALS.c.at.desc())
    return newest.limit(1).scalar_subquery()


def _locked_version(connection: Connection, model_id: str, label: str) -> ModelVersion:
    """As it is, and stays until the transaction ends."""
    found = select(*_VERSIONS.c).where(_is(model_id, label)).with_for_update(key_share=True)
    row = connection.execute(found).mappings().one_or_none()
    if row is None:
        raise _no_version(model_id, label)
    return _version(row)


def _fail_versions(connection: Connection, job_id: UUID, now: datetime) -> None:
    left = (_VERSIONS.c.training_job_id == job_id, _VERSIONS.c.status != ModelStatus.FAILED)
    before = connection.execute(select(*_VERSIONS.c).where(*left).with_for_update()).mappings().all()
    changed = update(_VERSIONS).where(*left).values(status=ModelStatus.FAILED).returning(*_VERSIONS.c)
    after = {row["version"]: _version(row) for row in connection.execute(changed).mappings()}
    for row in before:
        audit_records.moved(connection, after[row["version"]], ModelStatus(row["status"]), now)


def _no_version(model_id: str, label: str) -> NotFound:
    return NotFound(f"{model_id} has no version {label}. `clm models` lists them.")


def _require_move(version: ModelVersion, status: ModelStatus) -> None:
    serves = ModelStatus.PRODUCTION in (version.status, status)
    if serves or (version.status is ModelStatus.FAILED and status is not ModelStatus.FAILED):
        raise IllegalTransition(
            f"{version.model_id} {version.version} is {version.status} and can't become {status}: "
            "retrain for another, or see `clm promote` and `clm rollback` for what serves."
        )
