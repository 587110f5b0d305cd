"""The universe: the markets retrained on a schedule."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clm_core.domain.kinds import PluginName
from clm_core.domain.spellings import SymbolName, TimeframeName, span_by_timeframe
from clm_core.domain.vocabulary import ModelType


class Market(BaseModel):
    """A series of bars, and the kinds of model retrained on the series."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    symbol: SymbolName
    """Symbol as in `clm data list`, or in the spelling of the exchange: BTCUSD, BTC/USD."""
    timeframe: TimeframeName = "1h"
    """Length of a bar."""
    model_types: tuple[ModelType, ...] | None = None
    """None: every scheduled kind that this installation can train."""
    plugins: tuple[PluginName, ...] = ()
    """Names of plug-ins and rule strategies to retrain as well, as often as the trees."""
    exchange: str | None = Field(default=None, pattern=r"^[a-z0-9]+$")
    """Name in ccxt of the exchange from which closed bars are fetched. None: bars are added by hand."""
    database: str | None = None
    """Name of the database from which closed bars are read, a section `[databases.NAME]`. None: of none."""
    exchange_url: str | None = None
    """Another address of the exchange's API, such as a proxy."""
    rechecked_bars: int = Field(default=3, ge=1, le=1000)
    """Number of the newest stored bars that a fetch reads again, to take corrections of the source."""
    dataset_span_days: int = Field(default_factory=span_by_timeframe, gt=0)
    """Days of bars, counted back from the newest, for a training; also the span of the first fetch. By
    default five years, as `default_span_days`."""

    @property
    def is_fetched(self) -> bool:
        """True if closed bars are fetched on a schedule."""
        return self.exchange is not None or self.database is not None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.exchange is not None and self.database is not None:
            raise ValueError("name an exchange or a database, not both")
        return self

    @field_validator("model_types")
    @classmethod
    def _on_schedule(cls, types: tuple[ModelType, ...] | None) -> tuple[ModelType, ...] | None:
        if types is not None and ModelType.OTHER in types:
            raise ValueError("type `other` stands for a plug-in or rule strategy: list the name in plugins")
        if types is not None and ModelType.ENSEMBLE in types:
            raise ValueError("an ensemble cannot be scheduled: each request names the ensemble's members")
        return types
