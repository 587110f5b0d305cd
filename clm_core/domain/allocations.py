"""Allocations (A/B): a production version and candidates that share the capital of a model."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

Observed = Literal["paper", "fills"]
"""`paper`: every arm's return is known on every bar, and Hedge sets the weights; `fills`: only the return of
the arm traded on a bar is known, realised where a fill was reported, and Thompson sampling sets the
weights."""


class AllocationEnd(StrEnum):
    """Outcome of an allocation."""

    STOPPED = "stopped"
    """A person ended the allocation: the production version has the whole capital."""
    PROMOTED = "promoted"
    """A candidate is in production."""
    RETIRED = "retired"
    """No candidate is left, and the last was retired."""
    EXPIRED = "expired"
    """No candidate is left, and the shadow of the last could not decide in time."""
    CHAMPION_CHANGED = "champion_changed"
    """A recipe without an arm is in production, or none, or an earlier version again."""
    HALTED = "halted"
    """The model was halted: no version serves."""


class AllocationState(StrEnum):
    """State of a model's capital."""

    PRODUCTION = "production"
    """No allocation is running: the production version has weight 1."""
    RUNNING = "running"
    HALTED = "halted"
    """The model is halted, and every weight is 0."""


class ArmWeight(BaseModel):
    """Weight of a version in an allocation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: str
    weight: float
    """Share of the capital, 0..1."""
    out: str = ""
    """Reason why the version is out of the allocation; empty: takes part."""


class AllocationRun(BaseModel):
    """An allocation of a model, from the start to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    model_id: str
    arms: tuple[str, ...]
    """Labels of the versions at the start, the production version first; see `RecordedWeights` for versions
    that took over an arm since."""
    observed: Observed
    started_at: datetime
    started_by: str
    reason: str
    forced: bool
    """An admin let a version take part that has not passed the gate."""
    end: AllocationEnd | None = None
    """None while running."""
    ended_at: datetime | None = None
    ended_by: str | None = None
    end_reason: str | None = None

    @property
    def champion(self) -> str:
        """Production version at the start."""
        return self.arms[0]


class RecordedWeights(BaseModel):
    """Weights of the arms from a moment on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    """Grows with time."""
    allocation_id: int
    at: datetime
    arms: tuple[ArmWeight, ...]
    """In the order of the allocation's arms. An arm belongs to a recipe: a newer version takes over."""
    reasons: tuple[str, ...]

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(arm.weight for arm in self.arms)


class AllocationInForce(BaseModel):
    """Weights to use now for the versions of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    state: AllocationState
    arms: tuple[ArmWeight, ...]
    """The production version first; empty for a halted model without an allocation."""
    since: datetime | None
    """Start of these weights; None for a production version of a release that recorded no promotion."""
    reasons: tuple[str, ...] = ()
    run: AllocationRun | None = None
    """Running allocation, if any."""
    recorded: tuple[RecordedWeights, ...] = ()
    """Weights since the start of the allocation, oldest first."""

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(arm.weight for arm in self.arms)


def recorded_for_bar(recorded: Sequence[RecordedWeights], bar_close: datetime) -> RecordedWeights:
    """Weights recorded by the close of a bar, or the first.

    Args:
        recorded: weights since the start of an allocation, oldest first, at least one.
    """
    return recorded[max(bisect_right(recorded, bar_close, key=lambda each: each.at) - 1, 0)]


def weights_of_bar(
    recorded: Sequence[RecordedWeights], arms: Sequence[ArmWeight], bar_close: datetime
) -> tuple[float, ...]:
    """Weights to use now for the position after a bar: those recorded by the close of the bar.

    A later change of the weights leaves the bar alone, except that an arm that is out by now is out for every
    bar; the production version takes over, if it takes part.

    Args:
        recorded: weights since the start of an allocation, oldest first, at least one.
        arms: arms of the allocation as of now, the production version first.
    """
    pairs = list(zip(recorded_for_bar(recorded, bar_close).weights, arms, strict=True))
    kept = [0.0 if arm.out else weight for weight, arm in pairs]
    if not arms[0].out:
        kept[0] += sum(weight for weight, arm in pairs if arm.out)
    return tuple(kept)
