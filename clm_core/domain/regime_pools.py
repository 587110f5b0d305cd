"""Regime pools: the best recipes of a market in each regime, by the recorded out-of-sample positions."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from clm_core.domain.vocabulary import MarketRegime, ModelStatus

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RankedVersion(BaseModel):
    """Newest version of a recipe with its out-of-sample results in the bars of a regime, after costs."""

    model_config = _FROZEN

    model_id: str
    version: str
    status: ModelStatus
    sharpe_ratio: float
    """Annualised."""
    sharpe_error: float
    """Standard error of the Sharpe ratio of independent returns without skill: 1 / sqrt(years)."""
    max_drawdown: float
    """As a fraction, at most 0, as if the bars of the regime followed each other."""
    win_rate: float | None
    """Share of the trades entered in the regime that won, 0..1; None without trades."""
    total_return: float
    """As a fraction, as if the bars of the regime followed each other."""
    trades: int
    """Trades entered in the regime."""
    days: float
    """Length of the bars of the regime in days of the market's year."""
    first: datetime
    """Open time of the first out-of-sample bar."""


class RegimePool(BaseModel):
    """Recipes kept for a regime, the best first."""

    model_config = _FROZEN

    regime: MarketRegime
    kept: tuple[RankedVersion, ...]
    ranked: int
    """Number of recipes compared."""


class RegimePools(BaseModel):
    """Pools of a market."""

    model_config = _FROZEN

    symbol: str
    timeframe: str
    current: MarketRegime | None
    """Regime at the close of the newest bar; None before the first fit of the regimes."""
    since: datetime | None
    """End of the first day of the current regime."""
    pools: tuple[RegimePool, ...]
    left_out: tuple[str, ...]
    """Sentences on recipes that cannot be compared."""
