"""Choice of a horizon by cost: a move over the horizon has to be large beside the cost of the trade."""

from typing import NamedTuple

import numpy as np

from clm_core.market.bars import Bars
from clm_core.market.labels import forward_return

LADDER = (6, 12, 24, 48, 96, 168)
"""Horizons to choose from, in bars."""
LARGEST_COST_SHARE = 0.05
"""Largest cost of a round trip, as a share of the mean absolute move over the horizon. The expected move of a
forecast with correlation c is at most about c * sqrt(pi / 2) of the mean absolute move: at 1/20 a forecast
with a correlation of 0.04 pays its costs."""
SHORTEST_HOURS = 48
"""Shortest horizon chosen where the bars allow for it, or the longest of the ladder for short bars: with
shorter ones the default sizing turns over more than 60 times a year in markets of low volatility
(docs/reference/recipes.md)."""
LEAST_SPANS = 40
"""Least number of horizons, end to end, in the training bars: fewer outcomes teach nothing. The folds of a
year of bars of a currency or of gold, about 2,350 bars each, have room for 48 hours."""


class ChosenHorizon(NamedTuple):
    bars: int
    cost_share: float
    """Cost of a round trip over the mean absolute move over the horizon; NaN for bars that never move."""


def choose_horizon(bars: Bars, round_trip_bps: float, n_bars: int | None = None) -> ChosenHorizon:
    """Shortest horizon of the ladder, from 48 hours on, with a move worth the costs.

    The rule: a round trip costs at most 5 % of the mean absolute return over the horizon, measured on the
    training bars; the longest horizon where all cost more. Horizons of which fewer than 40 fit into the
    training bars end to end are left out; where that leaves none from 48 hours on, the longest that fits is
    taken.

    Args:
        bars: training bars.
        round_trip_bps: cost of entry and exit, in basis points.
        n_bars: number of training bars; by default the length of `bars`.
    """
    length = len(bars) if n_bars is None else n_bars
    fitting = [each for each in LADDER if each * LEAST_SPANS <= length] or [LADDER[0]]
    shortest = min(SHORTEST_HOURS * 3600 / bars.timeframe.seconds, LADDER[-1])
    eligible = [each for each in fitting if each >= shortest] or fitting[-1:]
    chosen = [ChosenHorizon(each, cost_share(bars, each, round_trip_bps)) for each in eligible]
    return next((each for each in chosen if each.cost_share <= LARGEST_COST_SHARE), chosen[-1])


def cost_share(bars: Bars, horizon: int, round_trip_bps: float) -> float:
    """Cost of a round trip over the mean absolute return over the horizon; NaN if no bar has a return."""
    moves = np.abs(forward_return(bars, horizon).values)
    known = moves[~np.isnan(moves)]
    mean = float(known.mean()) if len(known) else 0.0
    return round_trip_bps / 1e4 / mean if mean > 0 else float("nan")
