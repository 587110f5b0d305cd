"""Regimes of the newest bars, by one fit and a finite memory.

The labels of `regimes` depend on the first bar of a series, which a trader who passes a window of bars does
not have, and their fits change each quarter. A reader keeps the newest fit known at the end of a training and
forgets: features are averages over `FEATURE_DAYS` days, and the label of a day ends the best sequence of the
`SEQUENCE_DAYS` days up to it. So a label needs `RegimeReader.bars_needed` bars, and is the same to the bit
for every longer history.
"""

import math
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.errors import SeriesMissing
from clm_core.market import jump_model
from clm_core.market.bars import Bars, Floats
from clm_core.market.regimes import (
    DAY,
    DEFAULT,
    FLOOR,
    STATES,
    UNKNOWN,
    LabelledDays,
    Times,
    completed_days,
    day_returns,
)

FEATURE_DAYS = 60
"""Days of an average: six half-lives of the longer one."""
SEQUENCE_DAYS = 90
"""Days of a sequence: a change of state takes three to eight weeks."""
_WIDTH = len(DEFAULT.features)


class RegimeReader(BaseModel):
    """A fit of the two states (`RegimeFit`), in standardised features."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    centroids: list[list[float] | None] = Field(min_length=len(STATES), max_length=len(STATES))
    """Standardised mean features of the days of each state; None for a state never seen."""
    lower: list[float]
    """Lower bound of each feature."""
    upper: list[float]
    """Upper bound of each feature."""
    mean: list[float]
    """Mean of each feature within the bounds."""
    deviation: list[float]
    """Standard deviation of each feature within the bounds."""
    bars_a_day: int = Field(ge=1)
    """Most bars of a trading day of the training."""

    @classmethod
    def of(cls, bars: Bars) -> Self:
        """Reader with the newest fit of training bars; before the first fit every day counts as calm.

        Raises:
            SeriesMissing: the bars come without regimes.
        """
        if bars.regime_fits is None:
            raise SeriesMissing(
                "combine=regime: the bars come without regimes. Give bars of "
                "`market.regimes.with_regimes(bars, whole)`, whole being the whole stored series"
            )
        ends, _ = completed_days(bars)
        day = np.searchsorted(ends, bars.time, side="right")
        bars_a_day = int(np.bincount(day).max()) if len(day) else 1
        if not len(bars.regime_fits):
            zeros = [0.0] * _WIDTH
            ones = [1.0] * _WIDTH
            none = {"lower": zeros, "upper": zeros, "mean": zeros, "deviation": ones}
            return cls(centroids=[zeros, None], **none, bars_a_day=bars_a_day)
        numbers = bars.regime_fits[-1][1:].reshape(-1, _WIDTH)
        states = len(STATES)
        centroids = [None if np.isnan(each).any() else each.tolist() for each in numbers[:states]]
        lower, upper, mean, deviation = numbers[states:].tolist()
        return cls(
            centroids=centroids,
            lower=lower,
            upper=upper,
            mean=mean,
            deviation=deviation,
            bars_a_day=bars_a_day,
        )

    @property
    def bars_needed(self) -> int:
        """Closed bars from which on more history changes no label of the last bar."""
        # the first day has no return, and the last may be under way
        return (FEATURE_DAYS + SEQUENCE_DAYS + 2) * self.bars_a_day

    def labels(self, bars: Bars) -> NDArray[np.int8]:
        """State by the last day completed at each bar's close, `UNKNOWN` without the days of a full label,
        shape (n_bars,)."""
        ends, closes = completed_days(bars)
        labels = np.full(len(ends), UNKNOWN, dtype=np.int8)
        first = FEATURE_DAYS + SEQUENCE_DAYS - 1
        if len(ends) > first:
            values = self._standardised(windowed_features(bars, ends, closes)[FEATURE_DAYS:])
            losses = jump_model.losses_of(values, self._centroids())
            labels[first:] = _last_states(losses, DEFAULT.jump_penalty, SEQUENCE_DAYS)
        days = LabelledDays(ends, closes, np.empty((len(ends), 0)), labels)
        return days.known_at(bars.time + bars.timeframe.nanoseconds)

    def _standardised(self, features: Floats) -> Floats:
        within = np.clip(features, self.lower, self.upper)
        return np.ascontiguousarray((within - np.array(self.mean)) / np.array(self.deviation))

    def _centroids(self) -> Floats:
        return np.array([[math.nan] * _WIDTH if each is None else each for each in self.centroids])


def windowed_features(bars: Bars, ends: Times, closes: Floats) -> Floats:
    """Features of `DEFAULT` over the newest `FEATURE_DAYS` days, shape (n_days, n_features); NaN in the first
    `FEATURE_DAYS` rows.

    Args:
        ends: ends of the trading days, nanoseconds, shape (n_days,).
        closes: close of each day, shape (n_days,).
    """
    returns = day_returns(closes, ends, max(bars.timeframe.nanoseconds, DAY))
    columns = [_deviations(returns, each, FEATURE_DAYS) for each in DEFAULT.deviation_half_lives]
    return np.column_stack(columns)


@njit(cache=True, nogil=True, error_model="numpy")
def _deviations(returns: Floats, half_life: float, days: int) -> Floats:
    """Logarithm of the exponentially weighted downside deviation over the newest `days` returns, summed from
    the newest on: the same bits whatever the history. A return that is NaN is left out."""
    decay = 0.5 ** (1.0 / half_life)
    deviations = np.full(len(returns), np.nan)
    for row in range(days, len(returns)):
        weight = squares = 0.0
        own = 1.0
        for back in range(days):
            value = returns[row - back]
            if not np.isnan(value):
                weight += own
                squares += own * min(value, 0.0) ** 2
            own *= decay
        deviation = max(math.sqrt(squares / weight), FLOOR) if weight else FLOOR
        deviations[row] = math.log(deviation)
    return deviations


@njit(cache=True, nogil=True, error_model="numpy")
def _last_states(losses: Floats, penalty: float, days: int) -> NDArray[np.int8]:
    """Last state of the best sequence of the newest `days` rows up to each, shape (n_rows - days + 1,)."""
    states = np.empty(len(losses) - days + 1, dtype=np.int8)
    for number in range(len(states)):
        totals = jump_model.forward_losses(losses[number : number + days], penalty)
        states[number] = totals[-1].argmin()
    return states
