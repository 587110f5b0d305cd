"""Writing into the ledger and reading from it, in the words of the domain."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Table, func, insert, literal, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from clm_core.domain.errors import AlreadyExists, IllegalTransition, NotFound
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger.promotions import PromotionBook
from clm_core.ledger.tables import Base, EvaluationRow, JobRow, VersionRow
from clm_core.promotion.criteria import PromotionCriteria

_JOBS, _VERSIONS, _EVALUATIONS = (
    Base.metadata.tables[row.__tablename__] for row in (JobRow, VersionRow, EvaluationRow)
)
_CHANGES = text("""
SELECT count(*) FILTER (WHERE kind IN ('promotion', 'adoption')) AS promotions,
       count(*) FILTER (WHERE kind = 'rollback') AS rollbacks,
       count(*) FILTER (WHERE forced) AS forced
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
    versions: Mapping[ModelStatus, int]
    jobs: Mapping[JobStatus, int]
    promotions: int
    """Committed ones, forced ones and adoptions included."""
    rollbacks: int
    forced: int
    """Promotions, adoptions and rollbacks for which an admin overruled the gate."""
    promotion_rate: float | None
    """Share of the judged versions that ever served, 0..1; None while nothing is judged."""


class Ledger:
    """What was asked for, what came of it and what was thought of that. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.promotions = PromotionBook(engine)

    def create_job(self, job: TrainingJob) -> TrainingJob:
        """Record a job that waits to be started.

        Raises:
            AlreadyExists: a job of that id is recorded.
        """
        if job.status is not JobStatus.PENDING:
            raise IllegalTransition(f"Job {job.id} is {job.status}: a new job has to be pending.")
        self._insert(_JOBS, job.model_dump() | {"model_id": job.model_id}, f"Job {job.id}")
        return job

    def start_job(self, job_id: UUID, now: datetime) -> TrainingJob:
        return self._move(job_id, JobStatus.PENDING, JobStatus.IN_PROGRESS, started_at=now)

    def complete_job(self, job_id: UUID, now: datetime) -> TrainingJob:
        return self._move(job_id, JobStatus.IN_PROGRESS, JobStatus.COMPLETED, finished_at=now)

    def fail_job(self, job_id: UUID, cause: str, now: datetime) -> TrainingJob:
        return self._move(
            job_id, JobStatus.IN_PROGRESS, JobStatus.FAILED, finished_at=now, failure_cause=_storable(cause)
        )

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

    def add_version(self, version: ModelVersion) -> ModelVersion:
        """Record a version of a recorded job.

        Raises:
            AlreadyExists: the model has a version of that label, made in the same second.
            NotFound: its job or its parent is not in the ledger.
        """
        self._insert(_VERSIONS, version.model_dump(), f"Version {version.version} of {version.model_id}")
        return version

    def version(self, model_id: str, label: str) -> ModelVersion:
        rows = self._select(_VERSIONS, {"model_id": model_id, "version": label}, limit=1)
        if not rows:
            raise NotFound(f"{model_id} has no version {label}. `clm models` lists them.")
        return ModelVersion.model_validate(rows[0])

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
        return [ModelVersion.model_validate(row) for row in self._select(_VERSIONS, wanted, limit)]

    def set_version_status(self, model_id: str, label: str, status: ModelStatus) -> ModelVersion:
        """Give a version another status; one that has FAILED keeps that for ever.

        What serves changes by promotion alone: nothing becomes PRODUCTION here, or stops being it.

        Raises:
            IllegalTransition: the version has failed, serves, or would.
            NotFound: the model has no such version.
        """
        moved = (
            update(_VERSIONS)
            .where(_VERSIONS.c.model_id == model_id, _VERSIONS.c.version == label)
            .where(or_(_VERSIONS.c.status != ModelStatus.FAILED, literal(status is ModelStatus.FAILED)))
            .where(
                _VERSIONS.c.status != ModelStatus.PRODUCTION, literal(status is not ModelStatus.PRODUCTION)
            )
            .values(status=status)
            .returning(*_VERSIONS.c)
        )
        with self._engine.begin() as connection:
            row = connection.execute(moved).mappings().one_or_none()
        if row is None:
            found = self.version(model_id, label)
            raise IllegalTransition(
                f"{model_id} {label} is {found.status} and can't become {status}: "
                "retrain for another, or see `clm promote` and `clm rollback` for what serves."
            )
        return ModelVersion.model_validate(row)

    def add_evaluation(
        self, result: EvaluationResult, verdict: Verdict, criteria: PromotionCriteria, bundle_digest: str
    ) -> EvaluationResult:
        """Record what was measured and decided, by which criteria, about which very bundle.

        Raises:
            AlreadyExists: an evaluation of that id is recorded.
            NotFound: its version is not in the ledger.
        """
        row = result.model_dump() | {
            "verdict": verdict.model_dump(),
            "criteria": criteria.model_dump(),
            "bundle_digest": bundle_digest,
        }
        self._insert(_EVALUATIONS, row, f"Evaluation {result.id} of {result.model_id} {result.version}")
        return result

    def evaluation(self, model_id: str, label: str) -> tuple[EvaluationResult, Verdict]:
        """The newest of the version."""
        rows = self._select(_EVALUATIONS, {"model_id": model_id, "version": label}, limit=1)
        if not rows:
            raise NotFound(f"{model_id} {label} has not been evaluated. `clm models` lists what there is.")
        result = {name: rows[0][name] for name in EvaluationResult.model_fields}
        return EvaluationResult.model_validate(result), Verdict.model_validate(rows[0]["verdict"])

    def counts(self) -> Counts:
        with self._engine.begin() as connection:
            models = connection.scalar(select(func.count(_VERSIONS.c.model_id.distinct())))
            versions = connection.execute(select(_VERSIONS.c.status, func.count()).group_by("status"))
            jobs = connection.execute(select(_JOBS.c.status, func.count()).group_by("status"))
            changes = connection.execute(_CHANGES).one()
            return Counts(
                models=models or 0,
                versions={ModelStatus(status): count for status, count in versions},
                jobs={JobStatus(status): count for status, count in jobs},
                promotions=changes.promotions,
                rollbacks=changes.rollbacks,
                forced=changes.forced,
                promotion_rate=connection.scalar(_PROMOTION_RATE),
            )

    def _move(self, job_id: UUID, before: JobStatus, after: JobStatus, **values: Any) -> TrainingJob:
        """The condition and the change are one statement: of two callers at once only one succeeds."""
        moved = (
            update(_JOBS)
            .where(_JOBS.c.id == job_id, _JOBS.c.status == before)
            .values(status=after, **values)
            .returning(*_JOBS.c)
        )
        with self._engine.begin() as connection:
            row = connection.execute(moved).mappings().one_or_none()
        if row is None:
            found = self.job(job_id)
            raise IllegalTransition(
                f"Job {job_id} is {found.status}: only a job that is {before} can become {after}. "
                "Ask for a new job instead."
            )
        return _job(row)

    def _insert(self, table: Table, row: Mapping[str, Any], what: str) -> None:
        from psycopg.errors import ForeignKeyViolation, UniqueViolation

        try:
            with self._engine.begin() as connection:
                connection.execute(insert(table).values(row))
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                raise AlreadyExists(f"{what} is recorded already: read it, or record it anew.") from error
            if isinstance(error.orig, ForeignKeyViolation):
                raise NotFound(
                    f"{what} belongs to something unrecorded: {error.orig.diag.message_detail}"
                ) from error
            raise

    def _select(self, table: Table, wanted: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        query = select(*table.c).order_by(
            table.c.created_at.desc(), *(key.desc() for key in table.primary_key)
        )
        for column, value in wanted.items():
            if value is not None:
                query = query.where(table.c[column] == value)
        with self._engine.begin() as connection:
            return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def _job(row: Mapping[Any, Any]) -> TrainingJob:
    return TrainingJob.model_validate({name: row[name] for name in TrainingJob.model_fields})


def _storable(text: str) -> str:
    """PostgreSQL takes neither NUL nor lone surrogates; the cause of a failure must not be lost for that."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
