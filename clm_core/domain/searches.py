"""Searches over training parameters, as the ledger records them."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict

from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.kinds import OfModel
from clm_core.domain.search_space import Tuned
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan


class Search(OfModel):
    """What is searched, on which bars, by which rules. It never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model_type: ModelType
    plugin: str | None = None
    """Name of the plug-in; None unless the type is OTHER."""
    symbol: str
    timeframe: str
    dataset_span_days: int
    data_snapshot: str
    """Content hash of the series as it stood when the search began; its bars can be read back by it."""
    holdout: float
    """Share of the bars, the newest, that the search does not see; 0..0.5."""
    fixed: dict[str, Any]
    """Training parameters that are not searched."""
    space: dict[str, Tuned]
    """Those that are."""
    seed: int
    """Of the search, and the first of each trial's."""
    seeds: int = 1
    """How often a set of parameters is tried, with `seed` and the next ones."""
    plan: WalkForwardPlan
    costs: Costs
    execution: Execution
    requested_by: str
    created_at: datetime


class Tuning(Search):
    """A study as it began."""

    trials: int
    """How many were asked for when it began."""

    def changes(self, other: "Tuning") -> dict[str, tuple[Any, Any]]:
        """What makes another study of it: by name, its own value and the other's."""
        told = {"name", "trials", "requested_by", "created_at"}
        mine, theirs = (each.model_dump(mode="json", exclude=told) for each in (self, other))
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}
