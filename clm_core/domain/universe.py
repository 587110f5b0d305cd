"""The markets that are retrained on a schedule."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from clm_core.domain.kinds import PluginName
from clm_core.domain.vocabulary import ModelType


class Market(BaseModel):
    """One series of bars, and the kinds of model kept fresh on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")
    """As `clm data list` names it: BTCUSD."""
    timeframe: str = "1h"
    model_types: tuple[ModelType, ...] | None = None
    """None: every scheduled kind this installation can train."""
    plugins: tuple[PluginName, ...] = ()
    """Names of the plug-ins kept fresh as well; each is trained as often as the trees are."""
    exchange: str | None = Field(default=None, pattern=r"^[a-z0-9]+$")
    """As ccxt names it: each bar is fetched from there once it has closed. None: they are brought by hand."""
    exchange_url: str | None = None
    """Another address of the exchange's API, such as a proxy."""
    dataset_span_days: int = Field(default=365, gt=0)
    """Days of bars, counted back from the newest, that a training may see; and that are fetched at first."""

    @field_validator("model_types")
    @classmethod
    def _on_schedule(cls, types: tuple[ModelType, ...] | None) -> tuple[ModelType, ...] | None:
        if types is not None and ModelType.OTHER in types:
            raise ValueError("an other is a plug-in's: name it in plugins")
        if types is not None and ModelType.ENSEMBLE in types:
            raise ValueError("an ensemble has no schedule: its members are named when it is asked for")
        return types
