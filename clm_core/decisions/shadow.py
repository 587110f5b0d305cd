"""Performance of a version under shadow testing at 0 % allocation, beside the production version.

The position after each bar is recorded. A position recorded before the close of the next bar is evidence,
because the return of that bar was still unknown; positions recorded later are counted as late.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.measures import finite_or_none
from clm_core.domain.shadows import ShadowRecord
from clm_core.evidence import equal_volatility, paired
from clm_core.evidence.bootstrap import difference_interval
from clm_core.evidence.paired import Standing
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Timeframe

MIN_DAYS = 30
"""Days of common bars for a comparison with the champion, within the two limits below."""
FEWEST_BARS = equal_volatility.WARM_UP + paired.MIN_DIFFERENCES
"""Common bars before the sequential test can answer."""
MOST_BARS = 240
"""Common bars that are enough of any timeframe: ten days of hourly bars."""
TARGET_TRADES = 100
"""Number of closed trades for a meaningful shadow record."""
CONFIDENCE = 0.95
"""Coverage of the interval of the Sharpe difference."""
RESAMPLES = 2000
ALPHA = 0.05
"""Probability of ever reporting a lead of a version no better than the champion, and likewise of ever
reporting a version no worse as trailing."""
TUNED_FOR = 500
"""Number of common bars at which the sequential test is most sensitive."""
RACE_NS = 3_600_000_000_000
"""Longest time between reading bars and recording positions, or between the start of a fetch and the write,
nanoseconds: a correction dated up to an hour before a record may have come after the bars were read."""
YEAR_DAYS = 365.25
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
TOLERANCE = 1e-6
"""Largest difference between equal positions, a millionth of the capital: processors round differently."""


class ShadowPerformance(BaseModel):
    """Performance of recorded positions, traded from flat after costs; None where not measurable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bars: int = 0
    trades: int = 0
    """Trades closed by a signal, a stop or a target."""
    total_return: float | None = None
    """Fraction."""
    sharpe_ratio: float | None = None
    """Annualised."""
    max_drawdown: float | None = None
    """Negative fraction."""


class ChampionComparison(BaseModel):
    """A shadowed version and the production version on the same bars, both traded from flat."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    champion: str
    """Version label of the champion."""
    ours: ShadowPerformance
    theirs: ShadowPerformance
    difference: tuple[float, float] | None
    """95 % interval of the annualised Sharpe ratio minus the champion's; None with too few bars."""
    lead: Standing | None
    """Sequential test of the mean return per bar at equal volatility, valid at every look; None with too few
    bars."""
    min_bars: int = MOST_BARS
    """Minimum number of common bars for difference and lead."""


@dataclass(frozen=True)
class Correction:
    """A correction of stored bars, as recorded with a series."""

    written: int
    """Moment of the correction, nanoseconds since 1970-01-01 UTC."""
    first: int
    """Open time of the first bar corrected, added or removed, nanoseconds since 1970-01-01 UTC."""


def corrected_since(
    time: NDArray[np.int64], recorded: NDArray[np.int64], corrections: Sequence[Correction]
) -> Mask:
    """True for positions that rest on bars corrected after the recording, shape (n_positions,).

    Args:
        time: open times of the bars followed by the positions, shape (n_positions,).
        recorded: times of recording, shape (n_positions,).
    """
    explained = np.zeros(len(time), dtype=np.bool_)
    for correction in corrections:
        explained |= (correction.first <= time) & (recorded - RACE_NS < correction.written)
    return explained


def count_late(record: ShadowRecord, timeframe: Timeframe) -> int:
    """Number of positions recorded more than one bar after the close of their bar."""
    closes = record.time + timeframe.nanoseconds
    return int(np.count_nonzero(record.recorded - closes > timeframe.nanoseconds))


def differing_rows(record: ShadowRecord, positions: Floats) -> Rows:
    """Rows in which the recorded position differs from the position computed now.

    Args:
        positions: positions computed now on the same bars, shape (n_bars,).
    """
    # Written as `not (<=)` so that a NaN differs from everything.
    return np.flatnonzero(~(np.abs(positions - record.position) <= TOLERANCE))


def measure(bars: Bars, positions: Floats, market: MarketTerms) -> ShadowPerformance:
    """Backtest of recorded positions, starting flat.

    Args:
        bars: bars to trade on; may be empty.
        positions: position after each bar, shape (n_bars,).
    """
    if not len(bars):
        return ShadowPerformance()
    return performance_of(market.backtest(bars, positions), bars.periods_per_year)


def min_common_bars(periods_per_year: float) -> int:
    """Minimum number of common bars for a comparison with the champion: 240 of an hour, 100 of a day."""
    return min(max(round(MIN_DAYS * periods_per_year / YEAR_DAYS), FEWEST_BARS), MOST_BARS)


def compare(
    champion: str,
    bars: Bars,
    ours: Floats,
    theirs: Floats,
    markets: tuple[MarketTerms, MarketTerms],
    rng: np.random.Generator,
) -> ChampionComparison:
    """Comparison of a shadowed version with the production version.

    Args:
        champion: version label of the production version.
        bars: bars common to both versions, at least one.
        ours: positions of the shadowed version, shape (n_bars,).
        theirs: positions of the production version, shape (n_bars,).
        markets: terms of trading, alike but for the execution: of the shadowed and of the production version.
        rng: random generator of the bootstrap.
    """
    results = (markets[0].backtest(bars, ours), markets[1].backtest(bars, theirs))
    return compare_results(champion, *results, bars.periods_per_year, rng)


def compare_results(
    champion: str, ours: Backtest, theirs: Backtest, periods_per_year: float, rng: np.random.Generator
) -> ChampionComparison:
    """Comparison of two backtests on the same bars; see `compare`."""
    shadow_performance = performance_of(ours, periods_per_year)
    champion_performance = performance_of(theirs, periods_per_year)
    min_bars = min_common_bars(periods_per_year)
    if len(ours.returns) < min_bars:
        return ChampionComparison(
            champion=champion,
            ours=shadow_performance,
            theirs=champion_performance,
            difference=None,
            lead=None,
            min_bars=min_bars,
        )
    returns = (ours.returns, theirs.returns)
    interval = difference_interval(*returns, CONFIDENCE, RESAMPLES, rng)
    differences = equal_volatility.compare(*returns, periods_per_year)
    scale = math.sqrt(periods_per_year)
    finite = math.isfinite(interval.low) and math.isfinite(interval.high)
    return ChampionComparison(
        champion=champion,
        ours=shadow_performance,
        theirs=champion_performance,
        difference=(interval.low * scale, interval.high * scale) if finite else None,
        lead=paired.stand(differences, ALPHA, TUNED_FOR),
        min_bars=min_bars,
    )


def performance_of(result: Backtest, periods_per_year: float) -> ShadowPerformance:
    """Performance of a backtest that started flat."""
    metrics = summarise(result, periods_per_year)
    return ShadowPerformance(
        bars=len(result.returns),
        trades=result.trades.ended,
        total_return=finite_or_none(metrics.total_return),
        sharpe_ratio=finite_or_none(metrics.sharpe_ratio),
        max_drawdown=finite_or_none(metrics.max_drawdown),
    )
