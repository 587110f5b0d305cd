"""Combinatorial test sets: metrics of every choice of some of the groups that bars are cut into.

Bars are cut into groups of equal length in time order; a set is a choice of groups, whose bars and trades are
joined in time order. A rule that is not fitted needs a single backtest: the metrics of all sets are put
together from figures of the groups. The splits are those of combinatorial purged cross-validation (Lopez de
Prado 2018, "Advances in Financial Machine Learning", section 12.4); without a fit there is nothing to purge.

A trade belongs to the group of the bar of its exit. Its bars before stay in their groups.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
from numba import njit

from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.strategy_search import Objective
from clm_core.evolution.pareto import Ints
from clm_core.market.bars import Floats

GROUPS = 10
TESTED = 2
"""Number of groups in a set: 45 sets of two groups of ten."""
QUANTILE = 0.25
"""Lower quartile over the sets."""
MAX_PROFIT_FACTOR = 10.0
"""Largest profit factor of a score: a set without losses has an infinite profit factor."""

_compiled = njit(cache=True, nogil=True, error_model="numpy")
COLUMNS = tuple(Objective)
"""Metrics of a set, in the order of the columns."""


@dataclass(frozen=True, eq=False)
class TestSets:
    """Groups of bars and their choices."""

    bounds: Ints
    """First bar of each group, and the number of bars, shape (n_groups + 1,)."""
    groups: Ints
    """Groups of each set in time order, shape (n_sets, n_tested)."""

    # no class of tests for pytest
    __test__ = False

    @classmethod
    def of(cls, n_bars: int, groups: int = GROUPS, tested: int = TESTED) -> Self:
        """All choices of `tested` of `groups` groups; lengths of groups differ by a bar at most.

        Raises:
            NotEnoughBars: a group would have fewer than two bars.
        """
        if not 1 <= tested <= groups:
            raise ValueError(f"give 1 to {groups} groups to test, not {tested}")
        if n_bars < 2 * groups:
            raise NotEnoughBars(
                f"{n_bars} bars are too few for {groups} groups: give at least {2 * groups} bars"
            )
        bounds = np.arange(groups + 1) * n_bars // groups
        return cls(bounds, np.array(list(combinations(range(groups), tested)), np.int64))

    def __len__(self) -> int:
        return len(self.groups)

    def metrics(
        self, returns: Floats, exit_bars: Ints, trade_returns: Floats, periods_per_year: float
    ) -> Floats:
        """Metrics of each set as defined in `backtest.metrics`, shape (n_sets, 5), columns as in `COLUMNS`.

        NaN for the win rate of a set without trades, and for a profit factor without gains and losses. The
        score is never NaN: a part that is not finite counts 0, as in the gate.

        Args:
            returns: simple returns per bar, shape (n_bars,).
            exit_bars: bar of the exit of each trade, ascending, shape (n_trades,).
            trade_returns: net return of each trade, shape (n_trades,).
            periods_per_year: bars in a year.
        """
        figures = _by_group(returns, exit_bars, trade_returns, self.bounds)
        return _joined(figures, self.groups, periods_per_year)


def lower_quartile(metrics: Floats) -> Floats:
    """Lower quartile over the sets of each metric, shape (..., n_metrics), profit factors of at most 10.

    NaN counts as lower than every number; a quartile among the NaN is NaN.

    Args:
        metrics: shape (..., n_sets, n_metrics), columns as in `COLUMNS`.
    """
    limit = np.array([MAX_PROFIT_FACTOR if each is Objective.PROFIT_FACTOR else np.inf for each in COLUMNS])
    values = np.sort(np.where(np.isnan(metrics), -np.inf, np.minimum(metrics, limit)), axis=-2)
    place = QUANTILE * (values.shape[-2] - 1)
    below = int(place)
    share = place - int(place)
    low = values[..., below, :]
    if share == 0.0:
        return np.where(np.isneginf(low), np.nan, low)
    high = values[..., below + 1, :]
    measured = ~np.isneginf(low)
    return np.where(measured, low + share * (high - np.where(measured, low, 0.0)), np.nan)


# columns of the figures of a group
_BARS, _MEAN, _SQUARES, _GROWTH, _PEAK, _LOW, _DRAWDOWN, _TRADES, _WINS, _GAINS, _LOSSES = range(11)


@_compiled
def _sum(values: Floats) -> float:
    """Sum in four lanes: quicker than one, and the same bits on every processor."""
    first = second = third = fourth = 0.0
    whole = len(values) - len(values) % 4
    for i in range(0, whole, 4):
        first += values[i]
        second += values[i + 1]
        third += values[i + 2]
        fourth += values[i + 3]
    for i in range(whole, len(values)):
        first += values[i]
    return (first + second) + (third + fourth)


@_compiled
def _squares_about(values: Floats, centre: float) -> float:
    """Sum of the squared distances, in the lanes of `_sum`."""
    first = second = third = fourth = 0.0
    whole = len(values) - len(values) % 4
    for i in range(0, whole, 4):
        first += (values[i] - centre) ** 2
        second += (values[i + 1] - centre) ** 2
        third += (values[i + 2] - centre) ** 2
        fourth += (values[i + 3] - centre) ** 2
    for i in range(whole, len(values)):
        first += (values[i] - centre) ** 2
    return (first + second) + (third + fourth)


@_compiled
def _by_group(returns: Floats, exit_bars: Ints, trade_returns: Floats, bounds: Ints) -> Floats:
    """Figures of each group, shape (n_groups, 11).

    Number of bars; mean and sum of squared distances of the returns; compounded equity at the end, its
    highest, its lowest and the drawdown, as multiples of the equity at the start; trades, wins, gains and
    losses.
    """
    n_groups = len(bounds) - 1
    figures = np.zeros((n_groups, 11))
    trade = 0
    for group in range(n_groups):
        values = returns[bounds[group] : bounds[group + 1]]
        mean = _sum(values) / len(values)
        figures[group, _BARS] = len(values)
        figures[group, _MEAN] = mean
        figures[group, _SQUARES] = _squares_about(values, mean)
        equity = peak = low = ratio = 1.0
        for i in range(len(values)):
            # most bars of a rule are flat
            if values[i] != 0.0:
                equity *= 1.0 + values[i]
                peak = max(peak, equity)
                low = min(low, equity)
                if not equity >= ratio * peak:
                    ratio = equity / peak
        figures[group, _GROWTH] = equity
        figures[group, _PEAK] = peak
        figures[group, _LOW] = low
        figures[group, _DRAWDOWN] = ratio - 1.0
        while trade < len(exit_bars) and exit_bars[trade] < bounds[group + 1]:
            gain = trade_returns[trade]
            figures[group, _TRADES] += 1.0
            if gain > 0.0:
                figures[group, _WINS] += 1.0
                figures[group, _GAINS] += gain
            else:
                figures[group, _LOSSES] -= gain
            trade += 1
    return figures


@_compiled
def _joined(figures: Floats, groups: Ints, periods_per_year: float) -> Floats:
    """Metrics of each set, shape (n_sets, 5)."""
    metrics = np.empty((len(groups), 5))
    for place in range(len(groups)):
        bars = total = squares = trades = wins = gains = losses = drawdown = 0.0
        equity = peak = 1.0
        for group in groups[place]:
            each = figures[group]
            bars += each[_BARS]
            total += each[_BARS] * each[_MEAN]
            trades += each[_TRADES]
            wins += each[_WINS]
            gains += each[_GAINS]
            losses += each[_LOSSES]
            # the deepest fall ends in the group: from a peak within it, or from one before
            drawdown = min(drawdown, each[_DRAWDOWN], equity * each[_LOW] / peak - 1.0)
            peak = max(peak, equity * each[_PEAK])
            equity *= each[_GROWTH]
        mean = total / bars
        for group in groups[place]:
            each = figures[group]
            squares += each[_SQUARES] + each[_BARS] * (each[_MEAN] - mean) ** 2
        deviation = np.sqrt(squares / (bars - 1.0))
        # rounding error of constant values
        varies = not deviation <= 1e-13 * abs(mean)
        metrics[place, 0] = mean / deviation * np.sqrt(periods_per_year) if varies else 0.0
        metrics[place, 1] = drawdown
        metrics[place, 2] = wins / trades
        metrics[place, 3] = gains / losses
        metrics[place, 4] = _score(metrics[place, 0], metrics[place, 2], metrics[place, 3])
    return metrics


@_compiled
def _score(sharpe_ratio: float, win_rate: float, profit_factor: float) -> float:
    """The gate's promotion score, 0..100."""
    return (
        0.5 * _part(sharpe_ratio, 0.0, 2.0)
        + 0.3 * _part(win_rate, 0.5, 1.0)
        + 0.2 * _part(profit_factor, 1.0, 3.0)
    )


@_compiled
def _part(value: float, zero: float, full: float) -> float:
    if not np.isfinite(value):
        return 0.0
    return min(max((value - zero) / (full - zero), 0.0), 1.0) * 100.0
