"""Cross-sectional ranks: the place of a market's feature value among those of several markets.

The rank of a bar runs from -1 for the smallest value to 1 for the largest, among the members with a value at
the bar; equal values share the mean of their ranks. A rank is known at the close of the bar, like the bars of
all members. Each member keeps its ranks as an own series, so that a model answers from the bars of one market
with the series beside them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.series import KnownSeries

PREFIX = "rank_"
"""Beginning of the name of the series: `rank_log_return_24`."""
MIN_RANKED = 2
"""Members with a value from which on there are ranks."""
MAX_AGE_BARS = 3
"""Bars after which a rank is too old to be used."""


def ranks_among(members: Sequence[Bars], feature: str) -> tuple[KnownSeries, ...]:
    """Ranks of a feature among markets with equal bar length, a series for each member in order.

    The newest bars have no rank until every member still trading has brought them: an earlier rank would be
    another.

    Raises:
        UnknownFeature: no feature has the name.
    """
    step = members[0].timeframe.nanoseconds
    time = np.unique(np.concatenate([bars.time for bars in members]))
    time = time[time <= _complete_until(members, step)]
    values = np.full((len(time), len(members)), np.nan)
    for column, bars in enumerate(members):
        rows = np.searchsorted(bars.time, time)
        rows = np.minimum(rows, len(bars) - 1)
        there = bars.time[rows] == time
        values[there, column] = compute_features(bars, [feature]).values[rows[there], 0]
    ranked = _ranked(values)
    name = PREFIX + feature
    return tuple(_series(name, time, ranked[:, column], step) for column in range(len(members)))


def newer_than(series: KnownSeries, time: int) -> KnownSeries:
    """The part of a series about times after a moment, nanoseconds since 1970-01-01 UTC."""
    later = series.time > time
    return KnownSeries.of(
        series.name, series.time[later], series.known[later], series.value[later], series.max_age
    )


def _complete_until(members: Sequence[Bars], step: int) -> int:
    """Open time of the last bar that every member still trading has."""
    newest = max(int(bars.time[-1]) for bars in members)
    trading = [int(bars.time[-1]) for bars in members if newest - bars.time[-1] < MAX_AGE_BARS * step]
    return min(trading)


def _ranked(values: Floats) -> Floats:
    """Ranks along the rows in [-1, 1]; NaN where a value is missing or alone, shape of `values`."""
    from scipy.stats import rankdata

    counts = np.isfinite(values).sum(axis=1, keepdims=True)
    ranks = rankdata(values, axis=1, nan_policy="omit")
    scaled = 2.0 * (ranks - 1.0) / np.maximum(counts - 1, 1) - 1.0
    return np.asarray(np.where((counts >= MIN_RANKED) & np.isfinite(values), scaled, np.nan))


def _series(name: str, time: NDArray[np.int64], ranks: Floats, step: int) -> KnownSeries:
    there = np.isfinite(ranks)
    return KnownSeries.of(name, time[there], time[there] + step, ranks[there], MAX_AGE_BARS * step)
