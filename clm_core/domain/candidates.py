"""Strategies that evolution, or somebody, proposes to train."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from clm_core.domain.kinds import OfKind, PluginName
from clm_core.domain.vocabulary import CandidateOrigin, ModelType


class StrategyCandidate(OfKind):
    """One proposal: a kind of model with parameters for a market."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: UUID
    base_strategy: str = Field(min_length=1)
    """What it is a variant of: the name of a strategy, or a model id."""
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    """The market, as `clm data list` names it."""
    timeframe: str
    params: dict[str, Any] = Field(default_factory=dict)
    """Training parameters that differ from the kind's defaults."""
    origin: CandidateOrigin
    parents: tuple[UUID, ...] = ()
    """Candidates it was made from: none, one that mutated, or two that were crossed."""
    fitness_score: float | None = None
    """What the search measured, greater is better; None: nobody has measured it yet."""
    created_at: datetime
