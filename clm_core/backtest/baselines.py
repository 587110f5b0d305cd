"""Baselines of a verdict: results that need no model, on the same bars and under the same terms.

- buy and hold: fully long;
- hold at the same volatility: long, sized like the version, so that the risk is comparable;
- trend rule: `models.strategies.trend`, sized like the version.

The three were chosen before any result was looked at, and there are no others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, Metrics
from clm_core.backtest.terms import MarketTerms
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.trend import trend

Sizer = Callable[[Bars, Floats], Floats]
"""Function from bars and signals in [-1, 1] to positions in [-1, 1], shape (n_bars,) each."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """Backtest and metrics of a baseline."""

    name: str
    """"buy_and_hold", "hold_at_volatility" or "trend"."""
    result: Backtest
    metrics: Metrics


def run_baselines(market: MarketTerms, bars: Bars, rows: slice, size: Sizer) -> tuple[Baseline, ...]:
    """Backtest the baselines on some rows, starting flat.

    Args:
        market: terms of the version's own backtest.
        bars: all bars known, n_bars long; those before `rows` are look-back.
        rows: rows to trade, the out-of-sample rows of the version.
        size: sizing of the version.
    """
    held = np.ones(len(bars))
    positions = {
        "buy_and_hold": held,
        "hold_at_volatility": size(bars, held),
        "trend": size(bars, trend(bars)),
    }
    unseen = bars[rows]
    return tuple(_run(name, market, unseen, values[rows]) for name, values in positions.items())


def _run(name: str, market: MarketTerms, bars: Bars, positions: Floats) -> Baseline:
    result = market.backtest(bars, positions)
    return Baseline(name, result, summarise(result, bars.periods_per_year))
