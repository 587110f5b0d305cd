"""Evolution: the request and the result."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.searches import HeldOutSharpe, SearchRequest
from clm_core.domain.vocabulary import ModelType

MAX_RANKED = 200
"""Maximum number of candidates in a result."""


class Selection(StrEnum):
    """Selection of parents."""

    TOURNAMENT = "tournament"
    """The best of three drawn at random."""
    ROULETTE = "roulette"
    """Random, with a probability that grows with the fitness."""


class Crossover(StrEnum):
    UNIFORM = "uniform"
    """Each parameter from either parent."""
    SINGLE_POINT = "single-point"
    """The first parameters from one parent, the remaining parameters from the other."""
    AVERAGE = "average"
    """The mean of the parents' numbers."""


class Mutation(StrEnum):
    GAUSSIAN = "gaussian"
    """Small changes are more likely than large changes."""
    UNIFORM = "uniform"
    """Changes of every size are equally likely."""


CrossoverOf = Annotated[
    Crossover,
    Field(
        description="Crossover of two parents: each parameter from either parent (uniform), the first "
        "parameters from one and the remaining from the other (single-point), or means (average)."
    ),
]
MutationOf = Annotated[
    Mutation,
    Field(
        description="Change of a number, by up to a fifth: small changes more likely (gaussian), or every "
        "change equally likely (uniform)."
    ),
]


class EvolveRequest(SearchRequest):
    """Request to evolve training parameters."""

    population: int = Field(default=20, ge=4, le=500, description="Sets of parameters in a generation.")
    generations: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Number of generations bred after generation 0, which is drawn at random.",
    )
    selection: Selection = Field(
        default=Selection.TOURNAMENT,
        description="Selection of parents: the best of three drawn at random (tournament), or random with a "
        "probability that grows with the fitness (roulette).",
    )
    crossover: CrossoverOf = Crossover.UNIFORM
    mutation: MutationOf = Mutation.GAUSSIAN
    name: str | None = Field(
        default=None,
        pattern=r"^[\w.-]{1,100}$",
        description="Name of the evolution; a stopped evolution continues under its name. Empty: a new "
        "evolution.",
    )


class Generation(BaseModel):
    """Summary of a generation. The fitness is the annualised out-of-sample Sharpe ratio."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int = Field(ge=0)
    """Number of the generation; 0 for the defaults and random candidates."""
    new: int
    """Sets of parameters evaluated first in this generation."""
    best: float | None
    """Highest fitness; None if no member could be measured."""
    best_interval: IntervalEstimate | None = None
    """Highest fitness with the interval of 95 %; None where not measured, or recorded by an earlier
    release."""
    mean: float | None
    """Mean fitness of the members that could be measured."""


class EvolveResult(OfModel):
    """Result of an evolution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model_type: ModelType
    plugin: PluginName | None
    symbol: str
    timeframe: str
    dataset_span_days: int
    interrupted: bool
    """True if Ctrl-C ended the evolution before its last generation."""
    generations: tuple[Generation, ...]
    """Generations measured completely."""
    candidates: int
    """Number of sets of parameters evaluated."""
    unmeasured: int
    """Number of candidates that could not be measured."""
    degenerate: int = 0
    """Number of candidates measured and not ranked: flat or on one side nearly always, or too few trades."""
    found: int
    """Number of candidates measured before the evolution was stopped, and not measured again."""
    best: StrategyCandidate | None
    """The best candidate; None if no generation was measured completely."""
    defaults: StrategyCandidate | None
    best_params: dict[str, Any]
    """All fixed and evolved parameters of the best candidate."""
    default_params: dict[str, Any]
    ranked: tuple[StrategyCandidate, ...] = ()
    """Measured candidates, best first, `MAX_RANKED` at most."""
    report: Path | None = None
    """Page of the evolution, once it is written."""
    unseen: HeldOutSharpe | None
    """Results on the held-out bars; None without held-out bars, or after an interrupt."""
