"""Description of a kind of model: all the catalog needs to train, load, tune and schedule models of the kind.

Each module that implements a kind ends with a constant `KIND = ModelKind(...)`. The module is named after the
value of the kind's `ModelType` and imports heavy libraries inside functions only, so that reading a
description stays cheap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from clm_core.domain.costs import Costs
from clm_core.domain.search_space import SearchSpace
from clm_core.models.contract import Model, ModelCard, Recipe


@dataclass(frozen=True)
class ModelKind:
    """A kind of model: how models of the kind are fitted and loaded, and with which library."""

    recipe: Callable[[Mapping[str, Any], Costs], Recipe]
    """Function that validates training parameters and returns the recipe."""
    load: Callable[[Path, ModelCard], Model]
    """Function that reads the model's own files from a verified bundle."""
    library: str
    """Name under which the library is imported and distributed."""
    extra: str | None = None
    """Optional extra that installs the library; None if the base installation includes the library."""
    seeds: int = 1
    """Number of walk-forwards, each with another seed, needed to separate skill from the seed's luck."""
    tolerance: float = 0.0
    """Largest accepted difference between answers of one bundle on two machines; 0.0 demands equality."""
    search_space: Callable[[], SearchSpace] = dict
    """Function that returns the parameters a tuning varies; empty for a kind without tunable parameters."""
    depends_on: tuple[str, ...] = ()
    """Further distributions that the answers depend on."""
    retrain_every: timedelta | None = None
    """Interval of scheduled retraining; None for a kind that is retrained on demand only."""
