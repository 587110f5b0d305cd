"""Pools: several symbols with a shared model and the same bar length."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clm_core.domain.errors import InvalidSymbol
from clm_core.domain.kinds import PluginName
from clm_core.domain.spellings import SymbolName, TimeframeName, normalise_symbol, span_by_timeframe
from clm_core.domain.vocabulary import ModelType

MIN_SYMBOLS = 2
FeatureName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,34}$")]
"""Name of a feature that fits into the name of a series."""


class PoolSettings(BaseModel):
    """A pool by name: `[pools.CRYPTO3]`. A request may name the pool as the symbol."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    symbols: tuple[SymbolName, ...] = Field(min_length=MIN_SYMBOLS)
    """Symbols of the members, as in `clm data list`."""
    timeframe: TimeframeName = "1h"
    """Length of a bar of the scheduled retrains."""
    model_types: tuple[ModelType, ...] = ()
    """Kinds of model retrained on a schedule; empty for retrains on demand only."""
    plugins: tuple[PluginName, ...] = ()
    """Names of plug-ins to retrain as well."""
    dataset_span_days: int = Field(default_factory=span_by_timeframe, gt=0)
    """Days of bars, counted back from the newest, for a scheduled training."""
    ranks: tuple[FeatureName, ...] = ()
    """Features whose ranks among the members are kept as own series of each member: `log_return_24` becomes
    `series.rank_log_return_24`."""

    @field_validator("model_types")
    @classmethod
    def _named_otherwise(cls, types: tuple[ModelType, ...]) -> tuple[ModelType, ...]:
        if ModelType.OTHER in types:
            raise ValueError("type `other` stands for a plug-in: list the name in plugins")
        if ModelType.ENSEMBLE in types:
            raise ValueError("an ensemble cannot be scheduled: each request names the ensemble's members")
        return types

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        require_pool("the pool", self.symbols)
        return self


def require_pool(name: str, symbols: Sequence[str]) -> None:
    """Refuse symbols that make no pool; no symbols at all are fine.

    Raises:
        ValueError: fewer than two symbols, a symbol is named twice, or the pool is named like a member.
    """
    if not symbols:
        return
    canonical = [normalise_symbol(symbol) for symbol in symbols]
    if twice := sorted({symbol for symbol in canonical if canonical.count(symbol) > 1}):
        raise ValueError(f"{', '.join(twice)} is named twice: name each symbol of a pool once")
    if len(canonical) < MIN_SYMBOLS:
        raise ValueError(f"a pool has at least {MIN_SYMBOLS} symbols: leave symbols out for one market")
    if name.strip().upper() in canonical:
        raise ValueError(f"{name} is a member of the pool: give the pool a name of its own, as CRYPTO3")


def by_pool_name(pools: Mapping[str, Any]) -> dict[str, Any]:
    """Pools by canonical name.

    Raises:
        ValueError: a name cannot be a symbol, or two names are the same pool.
    """
    named = dict[str, Any]()
    for name, values in pools.items():
        try:
            canonical = normalise_symbol(name)
        except InvalidSymbol as error:
            raise ValueError(str(error)) from error
        if canonical in named:
            raise ValueError(f"{name} is listed twice, as {canonical} at last: keep one table")
        named[canonical] = values
    return named
