"""Regimes of a market: a label for each bar, made of the days completed at its close and never changed later.

Bars are gathered into trading days, whose features are averages of the returns below zero. A jump model
(`jump_model`) is fitted at each quarter's start on the days before, and labels the days of the quarter one by
one. States keep their numbers from fit to fit: those of a fit are the states of the former fit with the
nearest centroids.

The labels depend on the first bar, as averages and windows do: use the whole stored series.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from clm_core.domain.vocabulary import MarketRegime
from clm_core.market import jump_model
from clm_core.market.bars import Bars, Floats
from clm_core.market.calendars import trading_dates

STATES = tuple(each.value for each in MarketRegime)
UNKNOWN = -1
"""Label of bars before the first fit."""
WARM_UP = 60
"""Days before the first that a fit uses: earlier averages are those of a few returns."""
MAX_STATES = 5
FIRST_FIT_DAYS = 365
"""Days from the first bar to the first fit at least."""
WINDOW_DAYS = 4_018
"""Days of the window of a fit, eleven years."""
MIN_ROWS = 50
"""Days (or longer bars) that a fit uses at least; with fewer the former fit goes on."""
CLIP = 3.0
"""Standard deviations from the mean beyond which features are cut off."""
STARTS = 10
"""Starts of k-means++ a fit."""
SEED = 20_240_205
LONGEST_BREAK_DAYS = 7
"""Days without a bar from which on the price before and after make no return of a day."""
FLOOR = 1e-5
"""Least downside deviation of a day, as a fraction: that of a market that never falls."""

DAY = 86_400_000_000_000
Times = NDArray[np.int64]


@dataclass(frozen=True)
class RegimeRules:
    """Features and states of regimes; half-lives in days, or in bars where bars are longer than a day."""

    deviation_half_lives: tuple[float, ...] = (5.0, 10.0)
    """Half-lives of downside deviations, a feature each: log of the root of the mean square of the returns
    below zero. The first orders the states."""
    sortino_half_lives: tuple[float, ...] = ()
    """Half-lives of Sortino ratios, a feature each: mean return over downside deviation."""
    jump_penalty: float = 50.0
    """Cost of a change of state, in units of half a squared distance of standardised features. A larger one
    makes fewer and later changes."""
    n_states: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.n_states <= MAX_STATES:
            raise ValueError(f"regimes have 2 to {MAX_STATES} states, not {self.n_states}")
        if not self.jump_penalty >= 0.0:
            raise ValueError(f"a jump penalty is at least 0, not {self.jump_penalty}")
        if (
            not self.deviation_half_lives
            or not min(self.deviation_half_lives + self.sortino_half_lives) > 0.0
        ):
            raise ValueError("regimes need a half-life of the downside deviation, and half-lives above 0")

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features in column order."""
        deviations = (f"log_downside_deviation_{each:g}" for each in self.deviation_half_lives)
        return (*deviations, *(f"sortino_{each:g}" for each in self.sortino_half_lives))

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return (
            STATES
            if self.n_states == len(STATES)
            else tuple(f"state {each}" for each in range(self.n_states))
        )


DEFAULT = RegimeRules()
SHU_2024 = RegimeRules(deviation_half_lives=(10.0,), sortino_half_lives=(20.0, 60.0))
"""Features of Shu, Yu and Mulvey (2024)."""


@dataclass(frozen=True, eq=False)
class RegimeFit:
    """A fit of the states, used from its date on until the next fit."""

    at: pd.Timestamp
    """Start of the quarter (UTC): days ended by then are fitted, days ending later are labelled."""
    centroids: Floats
    """Mean features of the days of each state, in units of the features and cut off at the bounds, shape
    (n_states, n_features). A state absent from the window keeps the former mean, or NaN."""
    lower: Floats
    """Lower bound of the features, shape (n_features,)."""
    upper: Floats
    """Upper bound of the features, shape (n_features,)."""
    mean: Floats
    """Mean of the features within the bounds over the window, shape (n_features,)."""
    deviation: Floats
    """Population standard deviation of the same, 1 for a constant feature, shape (n_features,)."""

    def standardised(self, features: Floats) -> Floats:
        """Features cut off at the bounds, in deviations from the mean, shape (n_days, n_features)."""
        return np.asarray((np.clip(features, self.lower, self.upper) - self.mean) / self.deviation)

    def standard_centroids(self) -> Floats:
        return np.asarray((self.centroids - self.mean) / self.deviation)

    def row(self) -> Floats:
        """The fit as a row of numbers for `Bars.regime_fits`: day number of the date, standardised centroids,
        lower and upper bound, mean, deviation."""
        parts = (self.standard_centroids().ravel(), self.lower, self.upper, self.mean, self.deviation)
        return np.concatenate([[self.at.value / DAY], *parts])


@dataclass(frozen=True, eq=False)
class LabelledDays:
    """Trading days completed at the close of the newest bar; bars where bars are longer than a day."""

    ends: Times
    """End of each day, nanoseconds since 1970-01-01 UTC, shape (n_days,)."""
    closes: Floats
    """Last close of each day, shape (n_days,)."""
    features: Floats
    """Shape (n_days, n_features), in the order of `RegimeRules.features`."""
    labels: NDArray[np.int8]
    """Shape (n_days,)."""

    def known_at(self, moments: Times) -> NDArray[np.int8]:
        """Label of the last day completed by each moment, `UNKNOWN` before the first, shape (n,).

        Args:
            moments: nanoseconds since 1970-01-01 UTC, shape (n,).
        """
        with_unknown = np.append(self.labels, np.int8(UNKNOWN))
        return np.asarray(with_unknown[np.searchsorted(self.ends, moments, side="right") - 1])


@dataclass(frozen=True)
class CurrentRegime:
    """Regime at the close of the newest bar."""

    label: int
    name: str
    since: pd.Timestamp
    """End of the first day (UTC) with the label, without another label since."""
    day: pd.Timestamp
    """End of the newest day."""
    distances: tuple[float, ...]
    """Distance of the newest day to the centroid of each state, in standard deviations; NaN for a state never
    seen. The nearest state need not be the current one: a change takes several days near the other."""


@dataclass(frozen=True, eq=False)
class Regimes:
    """Regime of each bar."""

    labels: NDArray[np.int8]
    """Number of the state of the last day completed at each bar's close, `UNKNOWN` before the first fit,
    shape (n_bars,)."""
    states: tuple[str, ...]
    """Names of the states, in the order of the labels."""
    fits: tuple[RegimeFit, ...]
    """In the order of time."""
    days: LabelledDays
    """Days behind the labels."""

    @property
    def switches(self) -> int:
        """Number of changes between known labels."""
        known = self.labels[self.labels != UNKNOWN]
        return int(np.count_nonzero(np.diff(known)))

    @property
    def current(self) -> CurrentRegime | None:
        """Regime at the close of the newest bar, None before the first fit."""
        days = self.days
        if not self.fits or days.labels[-1] == UNKNOWN:
            return None
        label = int(days.labels[-1])
        changes = np.flatnonzero(np.diff(days.labels)) + 1
        since = int(days.ends[changes[-1] if len(changes) else 0])
        newest = self.fits[-1]
        gaps = newest.standardised(days.features[-1:]) - newest.standard_centroids()
        distances = tuple(np.sqrt(np.square(gaps).sum(axis=1)).tolist())
        return CurrentRegime(
            label, self.states[label], _moment(since), _moment(int(days.ends[-1])), distances
        )

    def known_at(self, moment: datetime) -> str | None:
        """Name of the regime by the last day completed at a moment; None where unknown."""
        [label] = self.days.known_at(np.array([pd.Timestamp(moment).value])).tolist()
        return None if label == UNKNOWN else self.states[label]


def regimes(bars: Bars, rules: RegimeRules = DEFAULT) -> Regimes:
    """Regimes of the bars. A label stays the same to the bit whatever bars come later.

    A bar's label is that of the last trading day completed at the bar's close: of the day before for all bars
    but the last one of a day that ends at midnight UTC. Bars longer than a day count as a day each.
    """
    step = bars.timeframe.nanoseconds
    ends, closes = completed_days(bars)
    features = features_of(closes, ends, max(step, DAY), rules)
    labels = np.full(len(ends), UNKNOWN, dtype=np.int8)
    fits: list[RegimeFit] = []
    dates = _quarters_within(ends)
    for number, date in enumerate(dates):
        window = window_of(ends, date)
        if window.stop - window.start >= MIN_ROWS:
            fits.append(_fit(features[window], date, rules, fits[-1] if fits else None))
        following = dates[number + 1] if number + 1 < len(dates) else ends[-1]
        last = int(np.searchsorted(ends, following, side="right"))
        if fits and window.start < last:
            labelled = fits[-1].standardised(features[window.start : last])
            losses = jump_model.losses_of(labelled, fits[-1].standard_centroids())
            totals = jump_model.forward_losses(losses, rules.jump_penalty)
            labels[window.stop : last] = totals.argmin(axis=1)[window.stop - window.start :]
    days = LabelledDays(ends, closes, features, labels)
    by_bar = days.known_at(bars.time + step)
    by_bar.setflags(write=False)
    return Regimes(by_bar, rules.states, tuple(fits), days)


def with_regimes(bars: Bars, whole: Bars) -> Bars:
    """The bars with the regime known at the close of each bar, and the fits known at the last, for trainings
    that weigh regimes or choose by regime.

    Args:
        whole: the whole stored series, with the bars: labels depend on its first bar.
    """
    closes = bars.time + bars.timeframe.nanoseconds
    market_regimes = regimes(whole)
    rows = [each.row() for each in market_regimes.fits if len(bars) and each.at.value <= closes[-1]]
    fits = np.array(rows) if rows else np.empty((0, 0))
    return replace(bars, regime=market_regimes.days.known_at(closes), regime_fits=fits)


def current(bars: Bars, rules: RegimeRules = DEFAULT) -> CurrentRegime | None:
    """Regime at the close of the newest bar, None before the first fit."""
    return regimes(bars, rules).current


def features_of(closes: Floats, ends: Times, step: int, rules: RegimeRules) -> Floats:
    """Features of each day, from the returns up to it.

    Args:
        closes: close of each day, shape (n_days,).
        ends: ends of the days, nanoseconds, shape (n_days,).
        step: length of a day, nanoseconds. A break of more than `LONGEST_BREAK_DAYS` makes no return.

    Returns:
        Shape (n_days, n_features), in the order of `rules.features`.
    """
    returns = day_returns(closes, ends, step)
    columns = [np.log(_averages(returns, each)[1]) for each in rules.deviation_half_lives]
    for half_life in rules.sortino_half_lives:
        mean, deviation = _averages(returns, half_life)
        columns.append(mean / deviation)
    return np.column_stack(columns)


def day_returns(closes: Floats, ends: Times, step: int) -> Floats:
    """Return of each day, shape (n_days,); NaN for the first, and after a break. Arguments as of
    `features_of`."""
    returns = np.full(len(closes), np.nan)
    returns[1:] = closes[1:] / closes[:-1] - 1.0
    returns[1:][np.diff(ends) > LONGEST_BREAK_DAYS * DAY + step] = np.nan
    return returns


@njit(cache=True, nogil=True, error_model="numpy")
def _averages(returns: Floats, half_life: float) -> tuple[Floats, Floats]:
    """Exponentially weighted mean and downside deviation of the returns up to each row, weights of sum 1.

    A return that is NaN is left out. Without any before, the mean is 0.0 and the deviation `FLOOR`.
    """
    decay = 0.5 ** (1.0 / half_life)
    mean = np.empty(len(returns))
    deviation = np.empty(len(returns))
    weight = total = squares = 0.0
    for row in range(len(returns)):
        value = returns[row]
        if not np.isnan(value):
            weight = decay * weight + 1.0
            total = decay * total + value
            squares = decay * squares + min(value, 0.0) ** 2
        mean[row] = total / weight if weight else 0.0
        deviation[row] = max(np.sqrt(squares / weight), FLOOR) if weight else FLOOR
    return mean, deviation


def completed_days(bars: Bars) -> tuple[Times, Floats]:
    """Ends and closes of the trading days completed at the newest bar's close, each of shape (n_days,).

    A day ends at midnight UTC, with or without bars up to midnight; a longer bar ends at its close.
    """
    if not len(bars):
        return np.empty(0, dtype=np.int64), np.empty(0)
    step = bars.timeframe.nanoseconds
    if step > DAY:
        return bars.time + step, bars.close
    ends = (trading_dates(bars.time // DAY, bars.calendar) + 1) * DAY
    last = np.flatnonzero(np.diff(ends, append=np.int64(2**62)))
    complete = last[ends[last] <= bars.time[-1] + step]
    return ends[complete], bars.close[complete]


def _quarters_within(ends: Times) -> list[int]:
    """Starts of quarters (UTC) before the last end, from a year after the first end on, nanoseconds."""
    if not len(ends):
        return []
    first = pd.Timestamp(int(ends[0]) + FIRST_FIT_DAYS * DAY).ceil("D")
    dates = pd.date_range(first, pd.Timestamp(int(ends[-1]) - 1), freq="QS")
    return [int(each) for each in dates.as_unit("ns").asi8]


def window_of(ends: Times, date: int) -> slice:
    """Rows of the window up to a date, past the warm-up."""
    first = int(np.searchsorted(ends, date - WINDOW_DAYS * DAY, side="right"))
    stop = int(np.searchsorted(ends, date, side="right"))
    return slice(min(max(first, WARM_UP), stop), stop)


def _fit(features: Floats, date: int, rules: RegimeRules, former: RegimeFit | None) -> RegimeFit:
    centre, spread = _moments(features)
    lower = centre - CLIP * spread
    upper = centre + CLIP * spread
    mean, deviation = _moments(np.clip(features, lower, upper))
    deviation[deviation == 0.0] = 1.0
    values = (np.clip(features, lower, upper) - mean) / deviation
    start = None if former is None else (former.centroids - mean) / deviation
    if start is not None and np.isnan(start).any():
        start = None
    draws = np.random.default_rng([SEED, date // DAY]).random((STARTS, rules.n_states))
    fitted = jump_model.fit(values, draws, rules.jump_penalty, start)
    centroids = fitted.centroids * deviation + mean
    if former is None or np.isnan(former.centroids).any():
        # until a fit has seen every state
        centroids = centroids[np.argsort(centroids[:, 0], kind="stable")]
    else:
        centroids = jump_model.matched(centroids, former.centroids)
    return RegimeFit(_moment(date), centroids, lower, upper, mean, deviation)


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(values: Floats) -> tuple[Floats, Floats]:
    """Mean and population standard deviation of each column, summed row by row: equal values give equal bits
    at any place in memory."""
    mean = np.zeros(values.shape[1])
    variance = np.zeros(values.shape[1])
    for feature in range(values.shape[1]):
        for row in range(len(values)):
            mean[feature] += values[row, feature]
        mean[feature] /= len(values)
        for row in range(len(values)):
            variance[feature] += (values[row, feature] - mean[feature]) ** 2
    return mean, np.sqrt(variance / len(values))


def _moment(nanoseconds: int) -> pd.Timestamp:
    return pd.Timestamp(nanoseconds, unit="ns", tz="UTC")
