"""Causal features of bars, the inputs of models."""

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import FeatureFailed, UnknownFeature
from clm_core.market import own_features
from clm_core.market.bars import Bars, Floats
from clm_core.market.own_features import OwnFeature
from clm_core.market.rolling import change_over, gap_and_deviation, ratio
from clm_core.market.series import NAME, PREFIX, require_series

DAY = 1440
WEEK = 7 * DAY
MONDAY = 3 * DAY
"""Minutes from the Monday before to 1970-01-01, a Thursday."""
HOUR_ANGLE = 2 * np.pi * (np.arange(WEEK) % DAY) / DAY
WEEKDAY_ANGLE = 2 * np.pi * (np.arange(WEEK) // DAY) / 7
HOUR_SIN = np.sin(HOUR_ANGLE)
HOUR_COS = np.cos(HOUR_ANGLE)
WEEKDAY_SIN = np.sin(WEEKDAY_ANGLE)
WEEKDAY_COS = np.cos(WEEKDAY_ANGLE)

SETTLED = 150
"""Warm-up of features with infinite memory (Wilder's and exponential averages).

After 150 bars, values from different starts differ by less than 1e-3 of the standard deviation, and after
`Feature.memory` bars not at all.
"""

FORGOTTEN = 1e-24
"""Weight of an older value in an average from which on the value leaves no trace: 1e-16, the precision of a
number, with room for calm markets after wild ones and for the last bit, which is slow to agree."""


def settling(decay: float, stages: int = 1) -> int:
    """Bars after which an average no longer depends on its start.

    Args:
        decay: weight of the former value in each step, 0..1; the largest of the stages.
        stages: averages in sequence, each of the one before.
    """
    bars = math.log(FORGOTTEN) / math.log(decay)
    # the weight after n bars of k stages in sequence is about n**(k - 1) * decay**n
    for _ in range(10):
        bars = (math.log(FORGOTTEN) - (stages - 1) * math.log(bars)) / math.log(decay)
    return math.ceil(bars)


def wilder_settling(period: int, stages: int = 1) -> int:
    """Bars after which Wilder's average no longer depends on its start."""
    return settling(1 - 1 / period, stages)


def exponential_settling(period: int, stages: int = 1) -> int:
    """Bars after which an exponential average no longer depends on its start."""
    return settling(1 - 2 / (period + 1), stages)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Feature values, one row for each bar; the row of bar t uses bars up to and including t."""

    names: tuple[str, ...]
    values: Floats
    """Shape (n_bars, n_features), C order, read-only; NaN in the warm-up of each stretch."""
    bridged: NDArray[np.bool_]
    """True for the first bar after an outage that is carried through, shape (n_bars,)."""

    @property
    def complete(self) -> NDArray[np.bool_]:
        """True for rows without a NaN, shape (n_bars,)."""
        return np.asarray(~np.isnan(self.values).any(axis=1))

    def changed(self, change: Callable[[Floats], Floats] | None) -> "FeatureTable":
        """Table with other values in the complete rows; the table itself without a change."""
        if change is None:
            return self
        values = self.values.copy()
        rows = self.complete
        values[rows] = change(values[rows])
        return replace(self, values=values)


@dataclass(frozen=True, eq=False)
class Stretch:
    """One unbroken stretch of bars, with the intermediate series of several features computed once.

    Every array has shape (n_bars,). Rows within a look-back hold any finite value or NaN; the warm-up of a
    feature excludes those rows.
    """

    bars: Bars
    _moments: dict[tuple[str, int], tuple[Floats, Floats]] = field(default_factory=dict)

    @cached_property
    def _scale(self) -> float:
        # TA-Lib treats values below 1e-14 as zero: a power of two scales prices to about 1 without rounding
        return math.ldexp(1.0, -math.frexp(self.bars.close[0])[1])

    @cached_property
    def open(self) -> Floats:
        return self.bars.open * self._scale

    @cached_property
    def high(self) -> Floats:
        return self.bars.high * self._scale

    @cached_property
    def low(self) -> Floats:
        return self.bars.low * self._scale

    @cached_property
    def close(self) -> Floats:
        return self.bars.close * self._scale

    @property
    def volume(self) -> Floats:
        return self.bars.volume

    @cached_property
    def numbers(self) -> NDArray[np.int64] | None:
        """Numbers of the bars on the clock, to cut windows; None to count from the start of the stretch."""
        if self._counts_from_start:
            return None
        return self.bars.time // self.bars.timeframe.nanoseconds

    @cached_property
    def log_close(self) -> Floats:
        return np.log(self.close) if self._counts_from_start else np.log(self._binary_close[0])

    @cached_property
    def octaves(self) -> Floats | None:
        """Whole numbers times log 2 to add to `log_close`.

        Logarithm and power of two apart, differences depend neither on the start of the stretch nor on the
        unit of the price.
        """
        return None if self._counts_from_start else self._binary_close[1].astype(np.float64)

    @cached_property
    def _binary_close(self) -> tuple[Floats, NDArray[np.int32]]:
        """Close as a fraction from 0.5 to 1 and a power of two."""
        return np.frexp(self.bars.close)

    @property
    def _counts_from_start(self) -> bool:
        # bundles of release 0.1.0 give the answers of their golden rows to the last bit
        return self.bars.gap_rules == 1

    @cached_property
    def log_return(self) -> Floats:
        return self.log_change(1)

    def log_change(self, span: int) -> Floats:
        """Log return over `span` bars; 0.0 in the first `span` rows."""
        return change_over(self.log_close, span, self.octaves)

    @cached_property
    def value(self) -> Floats:
        """Traded value of each bar at the close."""
        return self.close * self.volume

    @cached_property
    def signed_volume(self) -> Floats:
        return self.volume * np.sign(self.log_return)

    @cached_property
    def log_range(self) -> Floats:
        return np.log(self.high / self.low)

    @cached_property
    def squared_range(self) -> Floats:
        return np.square(self.log_range)

    @cached_property
    def stochastic(self) -> Floats:
        return self.place_in_range(14)

    @cached_property
    def macd(self) -> tuple[Floats, Floats]:
        """MACD line and histogram, in scaled price."""
        from talib import MACD

        line, _, histogram = MACD(self.close, 12, 26, 9)
        return line, histogram

    @cached_property
    def minute_of_week(self) -> NDArray[np.int64]:
        minutes = self.bars.time // 60_000_000_000 + MONDAY
        return minutes - minutes // WEEK * WEEK

    def gap(self, series: str, window: int) -> Floats:
        """Value minus the mean of the trailing window."""
        return self._gap_and_deviation(series, window)[0]

    def mean(self, series: str, window: int) -> Floats:
        values: Floats = getattr(self, series)
        return values - self.gap(series, window)

    def deviation(self, series: str, window: int) -> Floats:
        """Population standard deviation of the trailing window."""
        return self._gap_and_deviation(series, window)[1]

    def z_score(self, series: str, window: int) -> Floats:
        return ratio(self.gap(series, window), self.deviation(series, window), undefined=0.0)

    def place_in_range(self, window: int) -> Floats:
        """Position of the close between the lowest low (0.0) and the highest high (1.0) of the window; 0.5
        for a flat window."""
        from talib import MAX, MIN

        lowest = MIN(self.low, window)
        return ratio(self.close - lowest, MAX(self.high, window) - lowest, undefined=0.5)

    def _gap_and_deviation(self, series: str, window: int) -> tuple[Floats, Floats]:
        key = (series, window)
        if key not in self._moments:
            octaves = self.octaves if series == "log_close" else None
            self._moments[key] = gap_and_deviation(getattr(self, series), window, self.numbers, octaves)
        return self._moments[key]


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature: a column of the inputs of models."""

    name: str
    warm_up: int
    """Number of bars of a stretch before the first value."""
    description: str
    compute: Callable[[Stretch], Floats]
    """Values of one stretch, shape (n_bars,); values within the warm-up are ignored."""
    settled_after: int | None = None
    """Value of `memory` for a feature with infinite memory; None for a feature of a finite window."""

    series: tuple[str, ...] = ()
    """Own series the feature takes."""

    @property
    def memory(self) -> int:
        """Bars before a bar from which on earlier bars no longer matter.

        The value of a bar with `memory` bars of the stretch before it is the same for every earlier start.
        """
        return self.warm_up if self.settled_after is None else self.settled_after


def log_return(span: int) -> Feature:
    return Feature(
        f"log_return_{span}",
        span,
        f"log(close / close {span} bars ago)",
        lambda s: s.log_change(span),
    )


def mean_gap(window: int) -> Feature:
    return Feature(
        f"mean_gap_{window}",
        window - 1,
        f"log(close) minus its mean over {window} bars",
        lambda s: s.gap("log_close", window),
    )


def volatility(window: int) -> Feature:
    return Feature(
        f"volatility_{window}",
        window,
        f"standard deviation of one-bar log returns over {window} bars",
        lambda s: s.deviation("log_return", window),
    )


def volatility_ratio(short: int, long: int) -> Feature:
    return Feature(
        f"volatility_ratio_{short}_{long}",
        long,
        f"volatility_{short} / volatility_{long}; 1 when nothing moved",
        lambda s: ratio(s.deviation("log_return", short), s.deviation("log_return", long), undefined=1.0),
    )


def z_score(name: str, series: str, window: int, warm_up: int, what: str) -> Feature:
    return Feature(
        f"{name}_z_{window}",
        warm_up,
        f"{what} minus its mean, over its standard deviation, over {window} bars; 0 when constant",
        lambda s: s.z_score(series, window),
    )


def parkinson(window: int) -> Feature:
    return Feature(
        f"parkinson_{window}",
        window - 1,
        f"volatility from ranges: sqrt(mean(log(high / low)^2) / (4 log 2)) over {window} bars",
        lambda s: np.sqrt(s.mean("squared_range", window) / (4 * math.log(2))),
    )


def rsi(period: int) -> Feature:
    def compute(s: Stretch) -> Floats:
        from talib import CMO

        # TA-Lib's RSI is 0, the most oversold value, for constant prices; CMO is the same ratio around 0
        momentum: Floats = CMO(s.close, period)
        return 0.5 + momentum / 200

    return Feature(
        f"rsi_{period}",
        SETTLED,
        f"Wilder's relative strength over {period} bars, 0..1; 0.5 when nothing moved",
        compute,
        wilder_settling(period),
    )


def directional(name: str, period: int, stages: int, description: str) -> Feature:
    def compute(s: Stretch) -> Floats:
        import talib

        strength: Floats = getattr(talib, name.upper())(s.high, s.low, s.close, period)
        return strength / 100

    return Feature(f"{name}_{period}", SETTLED, description, compute, wilder_settling(period, stages))


def average_true_range(period: int) -> Feature:
    def compute(s: Stretch) -> Floats:
        from talib import ATR

        return np.asarray(ATR(s.high, s.low, s.close, period) / s.close)

    return Feature(
        f"atr_{period}",
        SETTLED,
        f"Wilder's average true range over {period} bars / close",
        compute,
        wilder_settling(period),
    )


def stochastic_d(s: Stretch) -> Floats:
    smooth = s.stochastic.copy()
    smooth[2:] = (s.stochastic[2:] + s.stochastic[1:-1] + s.stochastic[:-2]) / 3
    return smooth


def bollinger_position(s: Stretch) -> Floats:
    return 0.5 + s.z_score("close", 20) / 4


def opening_gap(s: Stretch) -> Floats:
    jump = np.empty(len(s.bars))
    np.log(s.open[1:] / s.close[:-1], out=jump[1:])
    return jump


def obv_change(window: int) -> Feature:
    return Feature(
        f"obv_change_{window}",
        window,
        f"volume of rising minus falling bars over all volume of {window} bars, -1..1; 0 without trades",
        lambda s: ratio(s.mean("signed_volume", window), s.mean("volume", window), undefined=0.0),
    )


def vwap_gap(s: Stretch) -> Floats:
    return ratio(s.close * s.mean("volume", 24), s.mean("value", 24), undefined=1.0) - 1


ALL = (
    log_return(1),
    log_return(2),
    log_return(4),
    log_return(8),
    log_return(24),
    log_return(72),
    Feature("opening_gap", 1, "log(open / close of the bar before)", opening_gap),
    Feature("body", 0, "log(close / open)", lambda s: np.log(s.close / s.open)),
    Feature("range", 0, "log(high / low)", lambda s: s.log_range),
    Feature(
        "close_location",
        0,
        "(close - low) / (high - low); 0.5 when high = low",
        lambda s: ratio(s.close - s.low, s.high - s.low, undefined=0.5),
    ),
    mean_gap(12),
    mean_gap(24),
    mean_gap(96),
    z_score("close", "log_close", 48, 47, "log(close)"),
    z_score("return", "log_return", 24, 24, "one-bar log return"),
    z_score("return", "log_return", 96, 96, "one-bar log return"),
    volatility(12),
    volatility(24),
    volatility(96),
    volatility_ratio(12, 96),
    parkinson(24),
    average_true_range(14),
    Feature(
        "bollinger_position_20",
        19,
        "place of close between mean -+ 2 standard deviations of 20 bars, 0..1 inside; 0.5 when constant",
        bollinger_position,
    ),
    Feature(
        "bollinger_width_20",
        19,
        "4 standard deviations of close over its mean, over 20 bars",
        lambda s: 4 * s.deviation("close", 20) / s.mean("close", 20),
    ),
    rsi(7),
    rsi(14),
    Feature(
        "stochastic_k_14",
        13,
        "place of close between the lowest low and the highest high of 14 bars, 0..1; 0.5 when flat",
        lambda s: s.stochastic,
    ),
    Feature("stochastic_d_14", 15, "mean of the last 3 stochastic_k_14", stochastic_d),
    Feature(
        "channel_position_72",
        71,
        "place of close between the lowest low and the highest high of 72 bars, 0..1; 0.5 when flat",
        lambda s: s.place_in_range(72),
    ),
    Feature(
        "macd",
        SETTLED,
        "(EMA 12 - EMA 26 of close) / close",
        lambda s: s.macd[0] / s.close,
        exponential_settling(26),
    ),
    Feature(
        "macd_histogram",
        SETTLED,
        "(MACD line - its EMA 9) / close",
        lambda s: s.macd[1] / s.close,
        exponential_settling(26, stages=2),
    ),
    directional("adx", 10, 2, "Wilder's average directional index over 10 bars, 0..1"),
    directional("plus_di", 10, 1, "Wilder's upward directional movement over true range, 10 bars, 0..1"),
    directional("minus_di", 10, 1, "Wilder's downward directional movement over true range, 10 bars, 0..1"),
    z_score("volume", "volume", 24, 23, "volume"),
    z_score("volume", "volume", 96, 95, "volume"),
    obv_change(24),
    obv_change(72),
    Feature(
        "vwap_gap_24", 23, "close / volume-weighted mean close of 24 bars - 1; 0 without trades", vwap_gap
    ),
    Feature("hour_sin", 0, "sin(2 pi minute of the UTC day / 1440)", lambda s: HOUR_SIN[s.minute_of_week]),
    Feature("hour_cos", 0, "cos(2 pi minute of the UTC day / 1440)", lambda s: HOUR_COS[s.minute_of_week]),
    Feature("weekday_sin", 0, "sin(2 pi weekday / 7), Monday 0", lambda s: WEEKDAY_SIN[s.minute_of_week]),
    Feature("weekday_cos", 0, "cos(2 pi weekday / 7), Monday 0", lambda s: WEEKDAY_COS[s.minute_of_week]),
)

FEATURES = {feature.name: feature for feature in ALL}
"""Built-in features by name, in the order of the columns."""

LOOK_BACK = max(feature.warm_up for feature in ALL)
"""Number of bars of a stretch before the first row with a value of every feature."""


def memory_of(names: Sequence[str] | None) -> int:
    """Largest memory of the named features, or of all built-in features; 0 for no feature."""
    return max((feature.memory for feature in select_features(names)), default=0)


COLUMNS_AT_ONCE = 16
"""Number of columns transposed at once: a block of columns fits the processor's cache, a whole table does
not."""


class _LastValues(NamedTuple):
    """Values computed last in a thread."""

    bars: weakref.ref[Bars]
    features: tuple[Feature | OwnFeature, ...]
    values: weakref.ref[Floats]


_last = threading.local()


def compute_features(bars: Bars, names: Sequence[str] | None = None) -> FeatureTable:
    """Values of the named features, or of all built-in features, in the order of `select_features`.

    The values computed last in a thread serve again, for the same bars and built-in features, as long as
    somebody holds them.

    Raises:
        UnknownFeature: no feature has a name.
        FeatureFailed: an own feature raises, or gives no number for a bar.
    """
    selected = select_features(names)
    values = _last_values(bars, selected)
    if values is None:
        values = np.empty((len(bars), len(selected)))
        for rows in bars.stretches():
            _fill(values[rows], selected, Stretch(bars[rows]))
        values.setflags(write=False)
        _last.values = _LastValues(weakref.ref(bars), selected, weakref.ref(values))
    return FeatureTable(tuple(feature.name for feature in selected), values, bars.bridged)


def _last_values(bars: Bars, selected: tuple[Feature | OwnFeature, ...]) -> Floats | None:
    last: _LastValues | None = getattr(_last, "values", None)
    if last is None or last.bars() is not bars or last.features != selected:
        return None
    # the code of others may answer otherwise the next time
    return last.values() if all(isinstance(each, Feature) for each in selected) else None


def _fill(values: Floats, features: Sequence[Feature | OwnFeature], stretch: Stretch) -> None:
    series = np.empty((min(len(features), COLUMNS_AT_ONCE), len(values)))
    for first in range(0, len(features), COLUMNS_AT_ONCE):
        block = features[first : first + COLUMNS_AT_ONCE]
        for place, feature in enumerate(block):
            series[place] = feature.compute(stretch)
        values[:, first : first + len(block)] = series[: len(block)].T
    for column, feature in enumerate(features):
        values[: feature.warm_up, column] = np.nan


def select_features(names: Sequence[str] | None) -> tuple[Feature | OwnFeature, ...]:
    """The named features, or all built-in features: built-in in the order of `FEATURES`, then own by name,
    then values of series (`series.NAME`) by name.

    Raises:
        UnknownFeature: no feature has a name.
        FeatureFailed: a file or distribution with own features cannot be imported.
    """
    if names is None:
        return ALL
    built_in = tuple(feature for feature in ALL if feature.name in names)
    others = sorted(set(names) - FEATURES.keys())
    series = [
        name for name in others if NAME.fullmatch(name.removeprefix(PREFIX)) and name.startswith(PREFIX)
    ]
    own = [name for name in others if name not in series]
    return (*built_in, *(_own(own) if own else ()), *map(_of_series, series))


def series_of(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the own series that the named features take, sorted.

    Raises:
        UnknownFeature: no feature has a name.
    """
    others = [name for name in names if name not in FEATURES]
    return tuple(sorted({name for feature in select_features(others) for name in feature.series}))


def _of_series(name: str) -> Feature:
    series = name.removeprefix(PREFIX)
    description = f"value of the series {series} known at the close"
    return Feature(name, 0, description, lambda s: require_series(s.bars, series), series=(series,))


def _own(names: Sequence[str]) -> Iterator[OwnFeature]:
    own = own_features.table()
    if hidden := sorted(own.keys() & FEATURES.keys()):
        raise FeatureFailed(f"{own[hidden[0]].origin} has the name of a built-in feature: rename it")
    if unknown := [name for name in names if name not in own]:
        raise UnknownFeature(
            f"no feature is called {', '.join(unknown)}. Choose from: {', '.join([*FEATURES, *own])}"
            f"{_where_own_features_come_from()}"
        )
    yield from (own[name] for name in names)


def _where_own_features_come_from() -> str:
    named = ", ".join(map(str, own_features.files()))
    return f". Files with own features: {named or 'none ([features] files in the settings names them)'}"
