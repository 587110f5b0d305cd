"""Candidate strategies: training parameters proposed by evolution, or by a person."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.kinds import OfKind, PluginName
from clm_core.domain.vocabulary import CandidateOrigin, ModelType


class StrategyCandidate(OfKind):
    """A proposal: a type of model with training parameters for a market."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: UUID
    base_strategy: str = Field(min_length=1)
    """Name of the strategy, or model id, of which the candidate is a variant."""
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    """Market, as in `clm data list`."""
    timeframe: str
    params: dict[str, Any] = Field(default_factory=dict)
    """Training parameters that differ from the defaults of the model type."""
    origin: CandidateOrigin
    parents: tuple[UUID, ...] = ()
    """Parent candidates: none, one (mutation) or two (crossover)."""
    fitness_score: float | None = None
    """Fitness measured by the search, greater is better; None if not measured yet."""
    fitness_low: float | None = None
    """Lower end of the interval of 95 % of the fitness; None without an interval."""
    fitness_high: float | None = None
    """Upper end of the interval."""
    created_at: datetime

    @property
    def fitness_interval(self) -> IntervalEstimate | None:
        """Fitness with the interval of 95 %, if known."""
        if self.fitness_score is None or self.fitness_low is None or self.fitness_high is None:
            return None
        return IntervalEstimate(value=self.fitness_score, low=self.fitness_low, high=self.fitness_high)
