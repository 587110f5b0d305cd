"""Identity of a recipe: everything that says how a version is made, but the bars and the seed of the fit."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from clm_core.domain.kinds import OfModel, PluginName
from clm_core.domain.vocabulary import MarketRegime, ModelType

REGIME = "regime"
"""Name of the training parameter for the regime that a training is weighted towards."""


SIZING = "sizing"
"""Name of the section of training parameters for sizes of positions."""
EXECUTION = "execution"
"""Name of the section of training parameters for the execution of trades."""


def regime_of(params: Mapping[str, Any], plugin: str | None = None) -> str | None:
    """Regime that training parameters weigh more than others; None for equal weights.

    Args:
        plugin: name of the plug-in, whose parameters may have any meaning.
    """
    regime = params.get(REGIME)
    return regime if plugin is None and regime in list(MarketRegime) else None


class RecipeIdentity(OfModel):
    """Everything that a version and its refresh, the same recipe on newer bars, have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType
    plugin: PluginName | None = None
    symbol: str
    """Symbol of the market, or name of the pool."""
    symbols: tuple[str, ...] = ()
    """Symbols of the pool's members, sorted; empty for one market."""
    timeframe: str
    params: dict[str, Any]
    """Every training parameter with its effective value at no cost, label, sizing and execution included; of
    an ensemble's members kind and parameters, not the versions."""
    training_span: str
    """Bars that a fit sees: `WalkForwardPlan.training_span`."""
    code: dict[str, str] = Field(default_factory=dict)
    """Digest of the source of each own feature and each plug-in in use, by name."""

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, hexadecimal."""
        facts = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()
