"""Models as pages show them: state, challengers, verdicts and the time line."""

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from clm_core.domain.alerts import RaisedAlert
from clm_core.domain.allocations import RecordedWeights
from clm_core.domain.bar_age import DataAge
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.listings import ListedVersion
from clm_core.domain.paper import LearningValue
from clm_core.domain.promotions import Promotion, PromotionKind
from clm_core.domain.shadow_decisions import RecordedDecision, ShadowAction
from clm_core.domain.standings import ProductionStanding
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus

FROZEN = ConfigDict(frozen=True, extra="forbid")
AWAITING = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
"""Statuses of versions that await a decision."""


class ServingState(StrEnum):
    SERVING = "serving"
    HALTED = "halted"
    """No version serves, by decision of a person or of the protection."""
    LOST = "lost"
    """The production version was deleted in MLflow."""
    NOTHING = "nothing serves"
    """No version was ever promoted."""


class TimelineKind(StrEnum):
    """Kind of event, in the order of events at the same moment."""

    TRAINED = "trained"
    JUDGED = "judged"
    SHADOW = "shadow"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    HALTED = "halted"
    LOST = "lost"
    RETIRED = "retired"
    ALLOCATION_STARTED = "allocation started"
    ALLOCATION_ENDED = "allocation ended"


TIMELINE_KIND_OF = {
    PromotionKind.PROMOTION: TimelineKind.PROMOTED,
    PromotionKind.ADOPTION: TimelineKind.PROMOTED,
    PromotionKind.RESTORATION: TimelineKind.PROMOTED,
    PromotionKind.ROLLBACK: TimelineKind.ROLLED_BACK,
    PromotionKind.HALT: TimelineKind.HALTED,
    PromotionKind.LOSS: TimelineKind.LOST,
}
"""Kind of entry of each committed change of production."""


class TimelineEntry(BaseModel):
    """An event in the life of a model."""

    model_config = FROZEN

    at: datetime
    kind: TimelineKind
    version: str | None
    """Version of the event, if any."""
    by: str
    """Actor; empty for an event without an actor."""
    text: str
    """Reason or result, for people."""


class JudgedVersion(BaseModel):
    """Newest verdict on a version."""

    model_config = FROZEN

    model_id: str
    version: str
    at: datetime
    verdict: Verdict


class Challenger(BaseModel):
    """A version without a decision so far."""

    model_config = FROZEN

    version: ModelVersion
    decision: RecordedDecision | None
    """Newest decision in shadow; None before the first."""

    @property
    def waits_for(self) -> str:
        """Obstacle to a promotion by decision of the shadow; empty without."""
        if self.decision is None or self.decision.decision.action is not ShadowAction.PROMOTE:
            return ""
        return self.decision.decision.waits_for


class ModelOverview(BaseModel):
    """State of a model, from the records alone."""

    model_config = FROZEN

    model_id: str
    change: Promotion | None
    """Newest change of production, if any."""
    champion: ModelVersion | None
    """Production version, if any."""
    challengers: tuple[Challenger, ...]
    """Challengers, oldest first."""
    verdicts: tuple[JudgedVersion, ...]
    """Newest verdicts, newest first."""
    weights: RecordedWeights | None
    """Newest weights of the running allocation, if any."""
    standing: ProductionStanding | None
    """Newest measurement of the production version since the promotion; None before the first."""
    learning: LearningValue | None
    """Newest value of continuous learning; None before the first, and for a model never in production."""

    @property
    def state(self) -> ServingState:
        if self.champion is not None:
            return ServingState.SERVING
        match None if self.change is None else self.change.kind:
            case PromotionKind.HALT:
                return ServingState.HALTED
            case PromotionKind.LOSS:
                return ServingState.LOST
        return ServingState.NOTHING


class Overview(BaseModel):
    """All models, and the lasting conditions."""

    model_config = FROZEN

    at: datetime
    models: tuple[ModelOverview, ...]
    """All models, without verdicts."""
    shown: tuple[ModelOverview, ...]
    """Models of the page asked for, with their newest verdicts."""
    matching: int
    """Number of models on all pages."""
    page: int
    """Number of the page, from 1."""
    pages: int
    alerts: tuple[RaisedAlert, ...]
    """Alerts whose condition lasts, newest first."""
    training: int
    """Jobs pending or in progress."""
    data: DataAge
    """Age of the bars of the markets in use."""
    pending: tuple[TrainingJob, ...] = ()
    """Oldest pending jobs, oldest first."""

    def count(self, state: str) -> int:
        """Number of models in a `ServingState`."""
        return sum(each.state == state for each in self.models)

    @property
    def stopped(self) -> int:
        """Number of models halted or lost."""
        return self.count(ServingState.HALTED) + self.count(ServingState.LOST)

    @property
    def waiting(self) -> int:
        """Versions whose promotion waits for a person or another obstacle."""
        return sum(bool(each.waits_for) for model in self.models for each in model.challengers)


class ModelHistory(BaseModel):
    """A model with versions, the newest verdict and the time line."""

    model_config = FROZEN

    at: datetime
    overview: ModelOverview
    alerts: tuple[RaisedAlert, ...]
    """Alerts about the model whose condition lasts, newest first."""
    versions: tuple[ListedVersion, ...]
    """Newest versions, newest first."""
    judged: tuple[EvaluationResult, Verdict] | None
    """Evaluation of the newest judged version, if any."""
    timeline: tuple[TimelineEntry, ...]
    """Events, newest first."""
    data: DataAge
    """Age of the bars of the model's markets, as far as a version of the model serves or the universe has
    them."""


def is_about(alert: RaisedAlert, model_id: str, markets: Collection[str] = ()) -> bool:
    """True for an alert about a model, a version of the model, or one of the markets (`BTCUSD 1h`)."""
    return alert.subject in (model_id, *markets) or alert.subject.startswith(f"{model_id}@")


def changed_decisions(decisions: Sequence[RecordedDecision]) -> list[RecordedDecision]:
    """Decisions other than the decision before on the same version, newest first.

    Args:
        decisions: newest first.
    """
    seen = dict[str, tuple[ShadowAction, str]]()
    changed = []
    for each in reversed(decisions):
        outcome = (each.decision.action, each.decision.waits_for)
        if seen.get(each.version) != outcome:
            changed.append(each)
        seen[each.version] = outcome
    return changed[::-1]
