"""Degenerate trials: positions without decisions, whose Sharpe ratio measures the market alone."""

from collections.abc import Sequence

import numpy as np

from clm_core.backtest.results import Backtest
from clm_core.evidence.soundness import MAX_SHARE_OF_ONE_SIDE, MIN_POSITION_DEVIATION, activity
from clm_core.market.bars import Floats

MIN_TRADES = 20
"""Minimum number of trades, mean of the seeds, for a trial to be ranked."""
BARS_A_TRADE = 200
"""On fewer bars than `MIN_TRADES` times as many, a trade for each of so many bars is enough."""


def degeneracy(positions: Floats, backtests: Sequence[Backtest]) -> str | None:
    """Reason against ranking a trial, or None.

    Args:
        positions: positions of all folds and seeds in sequence, at least one bar.
        backtests: backtest over the folds with each seed.
    """
    statistics = activity(positions)
    if not statistics.share <= MAX_SHARE_OF_ONE_SIDE:
        return f"degenerate: {statistics.commonest_side} on {statistics.share:.1%} of the bars"
    if not statistics.deviation >= MIN_POSITION_DEVIATION:
        return f"degenerate: positions vary by {statistics.deviation:.2g}, hardly at all"
    trades = float(np.mean([len(each.trades) for each in backtests]))
    needed = min_trades(len(backtests[0].returns))
    if not trades >= needed:
        return f"degenerate: {trades:g} trades, {needed} are asked for"
    return None


def min_trades(bars: int) -> int:
    """Minimum number of trades on a number of bars: 20, on fewer than 4,000 bars one in 200."""
    return min(MIN_TRADES, bars // BARS_A_TRADE)
