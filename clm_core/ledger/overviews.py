"""Records of all models at once, for pages about every model: a query for each kind of record."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, func, select, true

from clm_core.domain.allocations import RecordedWeights
from clm_core.domain.audit import Action
from clm_core.domain.evaluations import Verdict
from clm_core.domain.overviews import AWAITING, JudgedVersion, TimelineEntry, TimelineKind
from clm_core.domain.promotions import Promotion, PromotionState
from clm_core.domain.shadow_decisions import RecordedDecision
from clm_core.domain.vocabulary import JobStatus
from clm_core.ledger.tables import (
    AllocationEndRow,
    AllocationRow,
    AllocationWeightsRow,
    AuditRow,
    Base,
    EvaluationRow,
    JobRow,
    PromotionRow,
    ShadowDecisionRow,
    VersionRow,
)

_RUNS, _WEIGHTS, _ENDS = (
    Base.metadata.tables[row.__tablename__] for row in (AllocationRow, AllocationWeightsRow, AllocationEndRow)
)
_PROMOTIONS, _EVALUATIONS, _DECISIONS, _VERSIONS, _JOBS, _AUDIT = (
    Base.metadata.tables[row.__tablename__]
    for row in (PromotionRow, EvaluationRow, ShadowDecisionRow, VersionRow, JobRow, AuditRow)
)


class OverviewStore:
    """Newest records of every model. Every method is a transaction without writes.

    The argument `model_id` of the methods restricts a list to one model.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def unfinished_jobs(self) -> int:
        """Number of jobs pending or in progress."""
        unfinished = _JOBS.c.status.in_((JobStatus.PENDING, JobStatus.IN_PROGRESS))
        [row] = self._rows(select(func.count().label("jobs")).where(unfinished))
        return int(row["jobs"])

    def changes(self, model_id: str | None = None) -> dict[str, Promotion]:
        """Newest committed change of each model."""
        newest = (
            select(*(_PROMOTIONS.c[name] for name in Promotion.model_fields))
            .where(_PROMOTIONS.c.state == PromotionState.COMMITTED, *_of(_PROMOTIONS, model_id))
            .distinct(_PROMOTIONS.c.model_id)
            .order_by(_PROMOTIONS.c.model_id, _PROMOTIONS.c.id.desc())
        )
        return {row["model_id"]: Promotion.model_validate(dict(row)) for row in self._rows(newest)}

    def verdicts(self, of_each: int, model_ids: Sequence[str]) -> list[JudgedVersion]:
        """Newest verdicts of each of some models, newest first.

        Args:
            of_each: maximum number of verdicts of a model.
        """
        newest = (_EVALUATIONS.c.created_at.desc(), _EVALUATIONS.c.id.desc())
        number = func.row_number().over(partition_by=_EVALUATIONS.c.model_id, order_by=newest)
        # verdicts are long: only those of the newest are read
        ranked = (
            select(_EVALUATIONS.c.id, number.label("number"))
            .where(_EVALUATIONS.c.model_id.in_(model_ids))
            .subquery()
        )
        columns = [_EVALUATIONS.c[name] for name in ("model_id", "version", "created_at", "verdict")]
        query = (
            select(*columns)
            .join(ranked, ranked.c.id == _EVALUATIONS.c.id)
            .where(ranked.c.number <= of_each)
            .order_by(*newest)
        )
        return [
            JudgedVersion(
                model_id=row["model_id"],
                version=row["version"],
                at=row["created_at"],
                verdict=Verdict.model_validate(row["verdict"]),
            )
            for row in self._rows(query)
        ]

    def decisions(self, model_id: str | None = None) -> dict[tuple[str, str], RecordedDecision]:
        """Newest decision on each challenger, by model and label."""
        awaiting = and_(
            *(_VERSIONS.c[name] == _DECISIONS.c[name] for name in ("model_id", "version")),
            _VERSIONS.c.status.in_(AWAITING),
        )
        newest = (
            select(*(_DECISIONS.c[name] for name in RecordedDecision.model_fields))
            .join(_VERSIONS, awaiting)
            .where(*_of(_DECISIONS, model_id))
            .distinct(_DECISIONS.c.model_id, _DECISIONS.c.version)
            .order_by(_DECISIONS.c.model_id, _DECISIONS.c.version, _DECISIONS.c.id.desc())
        )
        decisions = (RecordedDecision.model_validate(dict(row)) for row in self._rows(newest))
        return {(each.model_id, each.version): each for each in decisions}

    def weights(self, model_id: str | None = None) -> dict[str, RecordedWeights]:
        """Newest weights of each running allocation, by model."""
        ended = select(_ENDS.c.allocation_id)
        newest = (
            select(_RUNS.c.model_id, *(_WEIGHTS.c[name] for name in RecordedWeights.model_fields))
            .join(_RUNS, _RUNS.c.id == _WEIGHTS.c.allocation_id)
            .where(_RUNS.c.id.not_in(ended), *_of(_RUNS, model_id))
            .distinct(_RUNS.c.model_id)
            .order_by(_RUNS.c.model_id, _WEIGHTS.c.id.desc())
        )
        return {
            row["model_id"]: RecordedWeights.model_validate(
                {name: row[name] for name in RecordedWeights.model_fields}
            )
            for row in self._rows(newest)
        }

    def decisions_of(self, model_id: str, limit: int) -> list[RecordedDecision]:
        """Newest decisions on all versions of a model, newest first."""
        query = (
            select(*(_DECISIONS.c[name] for name in RecordedDecision.model_fields))
            .where(_DECISIONS.c.model_id == model_id)
            .order_by(_DECISIONS.c.id.desc())
            .limit(limit)
        )
        return [RecordedDecision.model_validate(dict(row)) for row in self._rows(query)]

    def trainings(self, model_id: str, limit: int) -> list[TimelineEntry]:
        """Newest registrations of versions, with the reason of the training, newest first."""
        query = (
            select(
                *(_VERSIONS.c[name] for name in ("version", "created_at")),
                *(_JOBS.c[name] for name in ("trigger_reason", "requested_by", "recipe_from")),
            )
            .join(_JOBS, _JOBS.c.id == _VERSIONS.c.training_job_id)
            .where(_VERSIONS.c.model_id == model_id)
            .order_by(_VERSIONS.c.created_at.desc())
            .limit(limit)
        )
        return [
            TimelineEntry(
                at=row["created_at"],
                kind=TimelineKind.TRAINED,
                version=row["version"],
                by=row["requested_by"],
                text=_training(row["trigger_reason"], row["recipe_from"]),
            )
            for row in self._rows(query)
        ]

    def retirements(self, model_id: str, limit: int) -> list[TimelineEntry]:
        """Newest retirements of challengers, newest first."""
        query = (
            select(_AUDIT.c.at, _AUDIT.c.actor, _AUDIT.c.details)
            .where(_AUDIT.c.subject == model_id, _AUDIT.c.action == Action.VERSION_RETIRED)
            .order_by(_AUDIT.c.seq.desc())
            .limit(limit)
        )
        return [
            TimelineEntry(
                at=row["at"],
                kind=TimelineKind.RETIRED,
                version=row["details"]["version"],
                by=row["actor"],
                text=row["details"]["reason"],
            )
            for row in self._rows(query)
        ]

    def _rows(self, query: Any) -> Sequence[Any]:
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().all()


def _training(reason: str, recipe_from: str | None) -> str:
    words = reason.replace("_", " ")
    return words if recipe_from is None else f"{words}; recipe from {recipe_from}"


def _of(table: Any, model_id: str | None) -> tuple[ColumnElement[bool], ...]:
    return (true(),) if model_id is None else (table.c.model_id == model_id,)
