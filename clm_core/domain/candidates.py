"""Candidate strategies: training parameters proposed by evolution, or by a person."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.kinds import OfKind, OfModel, PluginName
from clm_core.domain.spellings import NOT_EMPTY, TimeframeName
from clm_core.domain.vocabulary import CandidateOrigin, ModelType

MAX_WAITING = 100
"""Candidates that may wait for their evaluation; further ones are refused until some are evaluated."""
StrategyName = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$")
]


class CandidateRequest(OfModel):
    """Training parameters proposed by a person for a market."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType = Field(description="Type of model, or the name of a rule strategy: momentum.")
    plugin: PluginName | None = Field(
        default=None, description="Name of the plug-in or rule strategy for the type other."
    )
    symbol: str = Field(
        description="Symbol of the market, as in clm data list: BTCUSD.", json_schema_extra=NOT_EMPTY
    )
    timeframe: TimeframeName = Field(default="1h", description="Length of a bar.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description='Training parameters that differ from the defaults: {"look_back": 30}. Unknown names and '
        "values out of range are refused; the error lists the valid parameters.",
    )
    base_strategy: StrategyName | None = Field(
        default=None,
        description="Name of the strategy, or model id, of which the candidate is a variant. Empty: the "
        "model id made of type, symbol and timeframe.",
    )


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
    awaits_evaluation: bool = False
    """True for a candidate not evaluated yet."""
    failure_cause: str | None = None
    """Reason why the evaluation gave no fitness, if known."""
    created_at: datetime

    @property
    def fitness_interval(self) -> IntervalEstimate | None:
        """Fitness with the interval of 95 %, if known."""
        if self.fitness_score is None or self.fitness_low is None or self.fitness_high is None:
            return None
        return IntervalEstimate(value=self.fitness_score, low=self.fitness_low, high=self.fitness_high)
