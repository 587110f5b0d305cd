"""Trend rule: long after a rise of the price, short after a fall, over three look-backs declared in advance.

The signal at the close of bar t is the mean, over the look-backs d of `LOOK_BACK_DAYS`, of

    sign(close(t) - close(t - d days))

where close(t - d days) is the close of the last bar that opened at least d days before bar t. The rule is
time-series momentum (Moskowitz, Ooi & Pedersen 2012, Journal of Financial Economics 104) with look-backs of
one, two and four months in place of twelve. The look-backs were fixed before any result was looked at and are
not tuned: the rule is a yardstick for models, not a product of a search.
"""

import numpy as np

from clm_core.market.bars import Bars, Floats

LOOK_BACK_DAYS = (30, 60, 120)
"""Look-backs in calendar days."""
DAY = 86_400_000_000_000
"""Nanoseconds in a day."""


def trend(bars: Bars) -> Floats:
    """Signal after each bar, shape (n_bars,), in [-1, 1].

    A look-back that begins before the first bar counts 0, and so does an unchanged price. Prices are compared
    across outages and closures. The signal of a bar depends on the 120 days before the bar alone.
    """
    sides = [_side(bars, days) for days in LOOK_BACK_DAYS]
    return np.asarray(np.mean(sides, axis=0))


def _side(bars: Bars, days: int) -> Floats:
    """Sign of the price change over a look-back, shape (n_bars,); 0 without a bar that old."""
    older = np.searchsorted(bars.time, bars.time - days * DAY, side="right") - 1
    change = bars.close - bars.close[older]
    return np.where(older >= 0, np.sign(change), 0.0)
