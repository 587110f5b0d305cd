"""Volatility trend: follow a close beyond the mean by a multiple of the range of a bar.

With the mean m(t) of the last `look_back` closes and the average A(t) of the last `range_look_back` true
ranges, bar t included, the score after bar t is

    (close(t) - m(t)) / A(t)

and 0 where the ranges are all 0. The true range of a bar is the largest of high - low, |high - close before|
and |low - close before|. Long above the threshold, short below its negative, and out once the close is on the
other side of the mean: a move counts by the volatility of the moment. Source: the channel of Keltner 1960,
How to Make Money in Commodities, with the true range of Wilder 1978, New Concepts in Technical Trading
Systems, averaged without his smoothing.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.rules import Rule, RuleParams, compiled, kind_of, window_means


class VolatilityTrendParams(RuleParams):
    look_back: Annotated[int, Between(10, 240, log=True)] = Field(default=50, ge=1, le=2_000)
    """Bars of the mean; 1..2,000."""
    range_look_back: Annotated[int, Between(5, 120, log=True)] = Field(default=20, ge=1, le=2_000)
    """Bars of the average true range; 1..2,000."""
    threshold: Annotated[float, Between(0.5, 6.0)] = Field(default=2.0, ge=0, le=100)
    """Least distance from the mean that begins a trade, average true ranges."""


@compiled
def true_ranges(high: Floats, low: Floats, close: Floats) -> Floats:
    """True range of each bar but the first, shape (n_bars - 1,)."""
    ranges = np.empty(max(len(close) - 1, 0))
    for bar in range(1, len(close)):
        before = close[bar - 1]
        ranges[bar - 1] = max(high[bar] - low[bar], abs(high[bar] - before), abs(low[bar] - before))
    return ranges


@compiled
def in_ranges(close: Floats, means: Floats, ranges: Floats) -> Floats:
    """Distance from the mean in average true ranges, shape (n_bars,); NaN where one is unknown.

    Args:
        ranges: average true ranges of each bar but the first, shape (n_bars - 1,).
    """
    distance = np.full(len(close), np.nan)
    for bar in range(1, len(close)):
        if ranges[bar - 1] > 0.0:
            distance[bar] = (close[bar] - means[bar]) / ranges[bar - 1]
        elif ranges[bar - 1] == 0.0 and not np.isnan(means[bar]):
            distance[bar] = 0.0
    return distance


def _score(bars: Bars, look_back: int, range_look_back: int) -> Floats:
    ranges = window_means(true_ranges(bars.high, bars.low, bars.close), range_look_back)
    return in_ranges(bars.close, window_means(bars.close, look_back), ranges)


RULE = Rule(
    RuleFamily.VOLATILITY_TREND,
    VolatilityTrendParams,
    _score,
    entry_look_backs=("look_back", "range_look_back"),
    bars_before=lambda params: max(params.look_back - 1, params.range_look_back),
)
KIND = kind_of(RULE)
