"""Versions of models: registration, lists, and every change of status but promotions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    ScalarSelect,
    and_,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONPATH

from clm_core.domain.actors import SYSTEM, Actor
from clm_core.domain.errors import IllegalTransition, NotFound
from clm_core.domain.evaluations import EvaluationResult, IntervalEstimate, Verdict
from clm_core.domain.events import EventType, ModelTrained
from clm_core.domain.jobs import Lease
from clm_core.domain.listings import ListedVersion, MetricCondition, Page, VersionQuery
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, VersionOrder
from clm_core.ledger import audit_records, events, leases, paging, rows
from clm_core.ledger.tables import Base, EvaluationRow, JobRow, VersionRow

_VERSIONS = Base.metadata.tables[VersionRow.__tablename__]
_EVALUATIONS = Base.metadata.tables[EvaluationRow.__tablename__]
_JOBS = Base.metadata.tables[JobRow.__tablename__]
_RANKS = {
    VersionOrder.CREATED_AT: _VERSIONS.c.created_at,
    VersionOrder.SHARPE_RATIO: _VERSIONS.c.sharpe_rank,
    VersionOrder.PROMOTION_SCORE: _VERSIONS.c.score_rank,
}


class VersionStore:
    """Versions of models. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_version(self, version: ModelVersion, lease: Lease | None = None) -> ModelVersion:
        """Record a version of a recorded job.

        Raises:
            AlreadyExists: the model has a version with the same label, made in the same second.
            NotFound: the version's job or parent is not in the ledger.
        """
        with rows.recording(self._engine, f"Version {version.version} of {version.model_id}") as connection:
            leases.require(connection, version.training_job_id, lease)
            connection.execute(insert(_VERSIONS), version.model_dump())
            events.record(connection, EventType.MODEL_TRAINED, _trained_event(version), version.created_at)
            audit_records.version_registered(connection, version)
        return version

    def version(self, model_id: str, label: str) -> ModelVersion:
        """
        Raises:
            NotFound: the model has no such version.
        """
        equal = {"model_id": model_id, "version": label}
        versions = rows.newest_rows(self._engine, _VERSIONS, equal, limit=1)
        if not versions:
            raise _no_version(model_id, label)
        return version_of(versions[0])

    def versions(
        self,
        model_id: str | None = None,
        label: str | None = None,
        status: ModelStatus | None = None,
        training_job_id: UUID | None = None,
        mlflow_version: int | None = None,
        bundle_digest: str | None = None,
        recipe_digest: str | None = None,
        limit: int = 50,
    ) -> list[ModelVersion]:
        """Versions, newest first."""
        equal = {
            "model_id": model_id,
            "version": label,
            "status": status,
            "training_job_id": training_job_id,
            "mlflow_version": mlflow_version,
            "bundle_digest": bundle_digest,
            "recipe_digest": recipe_digest,
        }
        return [version_of(row) for row in rows.newest_rows(self._engine, _VERSIONS, equal, limit)]

    def versions_of_bars(
        self, model_id: str, data_snapshot: str, data_hash: str, seed: int, code_version: str
    ) -> list[ModelVersion]:
        """Judged versions of a model by completed jobs with a snapshot of the data and the same bars of it,
        newest first."""
        query = (
            select(*_VERSIONS.c)
            .join(_JOBS, _JOBS.c.id == _VERSIONS.c.training_job_id)
            .where(
                _VERSIONS.c.model_id == model_id,
                _VERSIONS.c.seed == seed,
                _VERSIONS.c.code_version == code_version,
                _VERSIONS.c.status != ModelStatus.TRAINING,
                _VERSIONS.c.data_hash == data_hash,
                _JOBS.c.data_snapshot == data_snapshot,
                _JOBS.c.status == JobStatus.COMPLETED,
            )
            .order_by(_VERSIONS.c.created_at.desc(), _VERSIONS.c.version.desc())
        )
        with self._engine.begin() as connection:
            return [version_of(row) for row in connection.execute(query).mappings()]

    def newest_of_recipes(self, symbol: str, timeframe: str) -> list[ModelVersion]:
        """Newest judged version of each recipe of a market, newest first; without ensembles, made of other
        versions, and without versions registered without parameters."""
        # a version without a recorded recipe stands for itself
        recipe = func.coalesce(_VERSIONS.c.recipe_digest, _VERSIONS.c.version)
        query = (
            select(*_VERSIONS.c)
            .distinct(_VERSIONS.c.model_id, recipe)
            .where(
                _VERSIONS.c.symbol == symbol,
                _VERSIONS.c.timeframe == timeframe,
                _VERSIONS.c.status != ModelStatus.TRAINING,
                _VERSIONS.c.model_type != ModelType.ENSEMBLE,
            )
            .order_by(_VERSIONS.c.model_id, recipe, _VERSIONS.c.created_at.desc(), _VERSIONS.c.version.desc())
        )
        with self._engine.begin() as connection:
            versions = [version_of(dict(row)) for row in connection.execute(query).mappings()]
        newest = sorted(versions, key=lambda each: (each.created_at, each.version), reverse=True)
        return [each for each in newest if each.params]

    def labels_of_recipe(self, version: ModelVersion) -> set[str]:
        """Labels of the versions of the model with the recipe of a version; the version alone if its recipe
        is not recorded."""
        query = select(_VERSIONS.c.version).where(
            _VERSIONS.c.model_id == version.model_id, _VERSIONS.c.recipe_digest == version.recipe_digest
        )
        with self._engine.begin() as connection:
            return {version.version, *connection.scalars(query)}

    def recipes(self, symbol: str, timeframe: str) -> int:
        """Number of recipes of a market or pool with a registered version."""
        query = select(func.count(_VERSIONS.c.recipe_digest.distinct())).where(
            _VERSIONS.c.symbol == symbol, _VERSIONS.c.timeframe == timeframe
        )
        with self._engine.begin() as connection:
            return int(connection.scalar(query) or 0)

    def find_versions(self, query: VersionQuery) -> Page[ListedVersion]:
        """
        Raises:
            InvalidCursor: the cursor is malformed, or belongs to another list.
            InvalidSymbol: the symbol of the query is malformed.
        """
        keys = (_RANKS[query.order], _VERSIONS.c.model_id, _VERSIONS.c.version)
        listed = paging.seek(select(*_VERSIONS.c).where(*_conditions(query)), keys, query).subquery()
        newest = (
            select(*(column.label(f"measured_{column.name}") for column in _EVALUATIONS.c))
            .where(_EVALUATIONS.c.model_id == listed.c.model_id, _EVALUATIONS.c.version == listed.c.version)
            .order_by(_EVALUATIONS.c.created_at.desc(), _EVALUATIONS.c.id.desc())
            .limit(1)
            .lateral()
        )
        order = paging.ordered([listed.c[key.name] for key in keys], query)
        matching = select(listed, newest).join(newest, true(), isouter=True).order_by(*order)
        with self._engine.begin() as connection:
            page_rows = connection.execute(matching).mappings().all()
        return paging.page(page_rows, keys, query, _listed)

    def set_version_status(
        self,
        model_id: str,
        label: str,
        status: ModelStatus,
        now: datetime,
        lease: Lease | None = None,
        by: Actor = SYSTEM,
    ) -> ModelVersion:
        """Give a version another status; FAILED is final.

        The production version changes by promotion alone: no version enters or leaves PRODUCTION here.

        Raises:
            IllegalTransition: the version has failed, or is or would become the production version.
            NotFound: the model has no such version.
        """
        with self._engine.begin() as connection:
            leases.require(connection, job_of(model_id, label), lease)
            before = lock_version(connection, model_id, label)
            _require_move(before, status)
            if before.status is status:
                return before
            moved = update(_VERSIONS).where(is_version(model_id, label)).values(status=status)
            after = version_of(connection.execute(moved.returning(*_VERSIONS.c)).mappings().one())
            audit_records.status_changed(connection, after, before.status, now, by)
        return after


def is_version(model_id: str, label: str) -> ColumnElement[bool]:
    """Condition that selects the row of a version."""
    return and_(_VERSIONS.c.model_id == model_id, _VERSIONS.c.version == label)


def job_of(model_id: str, label: str) -> ScalarSelect[UUID]:
    """Subquery for the id of a version's training job."""
    return select(_VERSIONS.c.training_job_id).where(is_version(model_id, label)).scalar_subquery()


def lock_version(connection: Connection, model_id: str, label: str) -> ModelVersion:
    """Lock a version's row until the transaction ends.

    Raises:
        NotFound: the model has no such version.
    """
    locked = select(*_VERSIONS.c).where(is_version(model_id, label)).with_for_update(key_share=True)
    row = connection.execute(locked).mappings().one_or_none()
    if row is None:
        raise _no_version(model_id, label)
    return version_of(row)


def set_validation(connection: Connection, model_id: str, label: str, metrics: Mapping[str, float]) -> None:
    """Record the validation metrics of a version."""
    measured = update(_VERSIONS).where(is_version(model_id, label))
    connection.execute(measured.values(validation_metrics=dict(metrics)))


def fail_versions(connection: Connection, job_id: UUID, now: datetime) -> None:
    """Give every version of a job the status FAILED."""
    remaining = (_VERSIONS.c.training_job_id == job_id, _VERSIONS.c.status != ModelStatus.FAILED)
    before = connection.execute(select(*_VERSIONS.c).where(*remaining).with_for_update()).mappings().all()
    changed = update(_VERSIONS).where(*remaining).values(status=ModelStatus.FAILED).returning(*_VERSIONS.c)
    after = {row["version"]: version_of(row) for row in connection.execute(changed).mappings()}
    for row in before:
        audit_records.status_changed(connection, after[row["version"]], ModelStatus(row["status"]), now)


def version_of(row: Mapping[Any, Any]) -> ModelVersion:
    return ModelVersion.model_validate({name: row[name] for name in ModelVersion.model_fields})


def _listed(row: Mapping[Any, Any]) -> ListedVersion:
    if row["measured_id"] is None:
        return ListedVersion(version=version_of(row), evaluation=None)
    measured = {name: row[f"measured_{name}"] for name in EvaluationResult.model_fields}
    return ListedVersion(
        version=version_of(row),
        evaluation=EvaluationResult.model_validate(measured),
        sharpe_interval=_sharpe_interval(Verdict.model_validate(row["measured_verdict"])),
    )


def _sharpe_interval(verdict: Verdict) -> IntervalEstimate | None:
    for check in verdict.checks:
        if check.name == "sharpe_ratio" and check.low is not None and check.high is not None:
            return IntervalEstimate(value=check.value, low=check.low, high=check.high)
    return None


def _conditions(query: VersionQuery) -> list[ColumnElement[bool]]:
    equal = paging.filters(query, "model_id", "model_type", "plugin", "symbol", "timeframe", "status")
    conditions = [_VERSIONS.c[name] == value for name, value in equal]
    if query.min_sharpe is not None:
        conditions.append(_VERSIONS.c.sharpe_rank >= query.min_sharpe)
    # a version without the metric satisfies no condition
    paths = [literal(MetricCondition.of(each).json_path, JSONPATH) for each in query.metric]
    conditions += [_VERSIONS.c.validation_metrics.op("@@", return_type=Boolean)(path) for path in paths]
    return conditions + paging.created(query, _VERSIONS.c.created_at)


def _trained_event(version: ModelVersion) -> ModelTrained:
    shared = ModelTrained.model_fields.keys() - {"job_id"}
    return ModelTrained(job_id=version.training_job_id, **version.model_dump(include=shared))


def _no_version(model_id: str, label: str) -> NotFound:
    return NotFound(f"{model_id} has no version {label}. `clm models` lists the versions.")


def _require_move(version: ModelVersion, status: ModelStatus) -> None:
    changes_production = ModelStatus.PRODUCTION in (version.status, status)
    revives = version.status is ModelStatus.FAILED and status is not ModelStatus.FAILED
    if changes_production or revives:
        raise IllegalTransition(
            f"{version.model_id} {version.version} is {version.status} and can't become {status}: "
            "retrain for a new version; `clm promote` and `clm rollback` change the production version."
        )
