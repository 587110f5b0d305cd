"""What is asked of an evolution, and what comes of it."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.tuning import SearchRequest, Unseen
from clm_core.domain.vocabulary import ModelType


class Selection(StrEnum):
    """Who has children."""

    TOURNAMENT = "tournament"
    """The best of three."""
    ROULETTE = "roulette"
    """By chance, the better the likelier."""


class Crossover(StrEnum):
    UNIFORM = "uniform"
    """Each parameter of either parent."""
    SINGLE_POINT = "single-point"
    """The first parameters of one and the last of the other."""


class Mutation(StrEnum):
    GAUSSIAN = "gaussian"
    """Small changes are likelier."""
    UNIFORM = "uniform"


class EvolveRequest(SearchRequest):
    """For which model parameters are evolved, on what, and how."""

    population: int = Field(default=20, ge=4, le=500, description="Sets of parameters in a generation.")
    generations: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Generations bred after generation 0, which is drawn at random.",
    )
    selection: Selection = Field(
        default=Selection.TOURNAMENT,
        description="Who has children: the best of three, or by chance, the better the likelier.",
    )
    crossover: Crossover = Field(
        default=Crossover.UNIFORM,
        description="How two are crossed: each parameter of either, or the first of one and the last of the "
        "other.",
    )
    mutation: Mutation = Field(
        default=Mutation.GAUSSIAN,
        description="How a number changes, by up to a fifth: small changes likelier, or all as likely.",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[\w.-]{1,100}$",
        description="Name of the evolution; one that was stopped goes on under its name. Empty: a new one.",
    )


class Generation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int = Field(ge=0)
    """0: the defaults, and others at random."""
    new: int
    """Sets of parameters that were not tried in a generation before."""
    best: float | None
    """Fitness, the annualised Sharpe ratio out of sample; None: not one of it could be measured."""
    mean: float | None
    """Of those that could be measured."""


class EvolveResult(OfModel):
    """What an evolution has found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model_type: ModelType
    plugin: PluginName | None
    symbol: str
    timeframe: str
    dataset_span_days: int
    interrupted: bool
    """Whether Ctrl-C ended it before its last generation."""
    generations: tuple[Generation, ...]
    """All that were measured as a whole."""
    candidates: int
    """Sets of parameters tried."""
    unmeasured: int
    """Of these, those that could not be measured."""
    found: int
    """Of these, those that were measured before it was stopped, and not again."""
    best: StrategyCandidate | None
    """None: no generation was measured."""
    defaults: StrategyCandidate | None
    best_params: dict[str, Any]
    """All that were fixed or evolved."""
    default_params: dict[str, Any]
    unseen: Unseen | None
    """None: nothing is held out, or it was interrupted."""
