"""Declaration of a kind of model: how models of the kind are trained, loaded, tuned and scheduled.

Each module that implements a kind ends with a constant `KIND = ModelKind(...)`. The module is named after the
value of the kind's `ModelType` and imports heavy libraries inside functions only, so reading a
declaration stays cheap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from clm_core.domain.costs import MarketCosts
from clm_core.domain.search_space import SearchSpace
from clm_core.domain.sizing import Sizing
from clm_core.domain.walk_forward import MAX_FOLDS
from clm_core.models.contract import Model, ModelCard, Recipe

DISTRIBUTION = "continuous-learning-manager"
"""Distribution of the built-in kinds."""
DEFAULT_SIZING = Sizing()
EXPENSIVE_FOLDS = 7
"""`ModelKind.max_folds` of kinds whose fits take long: half years for three years out of sample."""


@dataclass(frozen=True)
class OlderParams:
    """Meaning of training parameters stored before a parameter existed.

    Requests are stored with the marker, so stored parameters without the marker are older than the marker.
    """

    marker: str
    """Name of a parameter in every set stored since then."""
    meaning: Mapping[str, Any]
    """Values of the names missing in older sets, the marker's included."""


@dataclass(frozen=True)
class ModelKind:
    """A kind of model: functions that fit and load models of the kind, library, schedule and limits."""

    recipe: Callable[[Mapping[str, Any], MarketCosts], Recipe]
    """Function from training parameters to a recipe; validates the parameters."""
    load: Callable[[Path, ModelCard], Model]
    """Function from a verified bundle and the card to the model."""
    library: str
    """Name under which the library is imported and distributed."""
    extra: str | None = None
    """Optional extra with the library; None if the base installation includes the library."""
    seeds: int = 1
    """Number of walk-forwards, each with another seed, needed to separate skill from the seed's luck."""
    tolerance: float = 0.0
    """Largest accepted difference between answers of one bundle on two machines; 0.0 demands equality."""
    search_space: Callable[[], SearchSpace] = dict
    """Parameters varied by a tuning; empty for a kind without tunable parameters."""
    depends_on: tuple[str, ...] = ()
    """Further distributions with an influence on the answers."""
    max_folds: int = MAX_FOLDS
    """Most fits of a walk-forward on the grid of dates chosen by itself; fewer where a fit takes minutes."""
    retrain_every: timedelta | None = None
    """Interval of scheduled retraining; None for a kind that is retrained on demand only."""
    sizing: Sizing | None = DEFAULT_SIZING
    """Sizing of new versions of the kind by default; None for positions that are sized already."""
    pools: bool = False
    """True for a kind whose recipes can fit one model to several symbols (`contract.Pooling`)."""
    weighs_regimes: bool = False
    """True for a kind whose fits can weigh the bars of a regime more than others (parameter `regime`)."""
    older_params: tuple[OlderParams, ...] = ()
    """Meaning of stored training parameters of older releases, one entry a marker."""
