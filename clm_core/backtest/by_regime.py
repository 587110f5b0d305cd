"""Results of a backtest by regime of the market."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.metrics import measure
from clm_core.backtest.results import Backtest, Metrics

REGIME_COLUMNS = (
    "regime",
    "share of the bars",
    "Sharpe ratio",
    "max drawdown",
    "win rate",
    "net return",
    "exposure",
    "trades",
)
"""Titles of the cells of the table by regime."""
REGIME_NOTE = (
    "The regime of a bar is the one known at its open. Sharpe ratio with its standard error; drawdown and "
    "return as if the bars of a regime followed each other; a trade belongs to the regime of its entry."
)


@dataclass(frozen=True)
class RegimeResult:
    """Result in the bars of a regime, joined without the bars between."""

    state: int
    share: float
    """Share of all bars, 0..1."""
    metrics: Metrics
    """Metrics of the bars of the regime, with the trades entered in the regime."""


def results_by_regime(
    backtest: Backtest, regime: NDArray[np.int8], periods_per_year: float
) -> tuple[RegimeResult, ...]:
    """Result in each regime with a bar, in the order of the states; bars of an unknown regime (-1) first.

    Args:
        regime: state of the market known at the open of each bar, shape (n_bars,).
    """
    trades = backtest.trades
    return tuple(
        RegimeResult(
            int(state),
            float(np.mean(within)),
            measure(
                backtest.returns[within],
                backtest.exposure[within],
                backtest.turnover[within],
                trades.net_return[within[trades.entry_bar]],
                periods_per_year,
            ),
        )
        for state in np.unique(regime)
        for within in (regime == state,)
    )


def spans_of(regime: NDArray[np.int8], state: int) -> Iterator[slice]:
    """Rows of each stretch of a state, in time order."""
    inside = np.concatenate([[False], regime == state, [False]])
    edges = np.flatnonzero(np.diff(inside)).reshape(-1, 2)
    for first, last in edges.tolist():
        yield slice(first, last)
