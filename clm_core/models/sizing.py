"""Sizing: one rule from the signal of any kind of model to the position that is traded.

A signal in [-1, 1] says direction and conviction. At each bar, within the unbroken stretch:

1.  Smoothing: c is the exponential average of the signal; signals before the stretch count as 0.
2.  Scale: u = c / q, at most 1.5 in size. q is the root mean square of c, weighted exponentially. A rule that
    is on for less than a quarter of the time counts as on for a quarter, so that a rule that is seldom on is
    not blown up, and q is at least `min_scale`.
3.  Volatility: v is the root of the exponential average of the squared returns of the bars, a year. A full
    position is target / v, at most `max_position`; the position wanted is u target / v. No position before a
    half-life of returns, or while the price has not moved.
4.  Threshold: no position where the expected return is known and at most `min_edge` round trips in size.
5.  Long only: no position where the position wanted is short.
6.  Cap: at most `max_position` in size.
7.  No-trade band: the position held stays while its distance from the position wanted is at most the band, a
    fraction of a full position; beyond, the position wanted is taken. A wanted position of 0 is always taken.
8.  Turnover: with a `max_turnover`, the size of the position traded grows in each period on the clock by at
    most an allowance, `Sizing.growth_limit`; it never exceeds that of the position held of step 7, on the
    same side. Growth of the position held takes the allowance first; what a period leaves lets a position
    that is behind catch up at the first bar of the next. Reductions are taken at once, and a change of side
    is a reduction to 0 and growth on the other side.

No step sees a later bar, and memory is finite to the last bit: averages are sums over windows of four
half-lives, taken in the same order whatever the history; the position held starts anew, at the position
wanted, at the start of a stretch and at moments on the clock every `anchor_bars` bar lengths; and growth is
allowed by the position held alone, by more than a full position over two periods. So `Sizing.bars_needed`
bars give the positions of the whole history.
"""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.domain.costs import Costs
from clm_core.domain.execution import FIXED_UNITS, ExecutionRules
from clm_core.domain.recipes import EXECUTION, SIZING
from clm_core.domain.sizing import NO_SIZING, Sizing, window_of
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import MONDAY
from clm_core.market.panel import Panel
from clm_core.market.timeframes import Calendar
from clm_core.models.contract import (
    ExpectsReturns,
    FollowsFolds,
    Model,
    OffersConvictions,
    Pooling,
    Progress,
    Recipe,
    TrainedOn,
    WarmStarting,
)
from clm_core.models.pooled import PooledModel

YEAR_NS = 365 * 86_400 * 1_000_000_000
MAX_CONVICTION = 1.5
"""Largest size of a signal in units of its own root mean square."""
MIN_SHARE_ON = 0.25
"""Least share of the time that a rule counts as on."""
_BLOCK = 2048
"""Rows of a window sum computed at a time: the rows stay in the cache of a processor."""

_compiled = njit(cache=True, nogil=True, error_model="numpy")

_Arguments = TypeVarTuple("_Arguments")
_Array = TypeVar("_Array", bound=NDArray[Any])


class _LastArrays(NamedTuple):
    """Arrays of the bars sized last in a thread."""

    bars: weakref.ref[Bars]
    arrays: dict[str, tuple[tuple[Any, ...], Any]]
    """Arguments and array of the last call of each function, by the function's name."""


_last = threading.local()


def _kept(compute: Callable[[Bars, *_Arguments], _Array]) -> Callable[[Bars, *_Arguments], _Array]:
    """The function with the array of its last call in a thread kept, read-only, for the same bars.

    Several signals are sized on the same bars: baselines, rules and the model. No array outlives its bars.
    """

    @wraps(compute)
    def kept(bars: Bars, /, *arguments: *_Arguments) -> _Array:
        arrays = _arrays_of(bars)
        last = arrays.get(compute.__name__)
        if last is not None and last[0] == arguments:
            array: _Array = last[1]
            return array
        array = compute(bars, *arguments)
        array.setflags(write=False)
        arrays[compute.__name__] = arguments, array
        return array

    return kept


def _arrays_of(bars: Bars) -> dict[str, tuple[tuple[Any, ...], Any]]:
    last: _LastArrays | None = getattr(_last, "arrays", None)
    if last is None or last.bars() is not bars:
        arrays: dict[str, tuple[tuple[Any, ...], Any]] = {}
        last = _LastArrays(weakref.ref(bars, lambda _: arrays.clear()), arrays)
        _last.arrays = last
    return last.arrays


def size_positions(
    bars: Bars,
    signal: Floats,
    sizing: Sizing,
    round_trip_bps: float = 0.0,
    expected_return: Floats | None = None,
    periods_per_year: float | None = None,
) -> Floats:
    """Positions of a signal, by the steps of the module's docstring.

    Args:
        bars: bars of the signal, n_bars long.
        signal: direction and conviction after each bar, shape (n_bars,), in [-1, 1], finite.
        sizing: steps and constants.
        round_trip_bps: cost of a round trip for the threshold, unless the sizing names one; basis points.
        expected_return: simple return expected over the horizon of the kind, shape (n_bars,); NaN where
            unknown. None for a kind without.
        periods_per_year: bars in a year; by default of the bars. A model has a constant of its own, since the
            bars of a market that closes are counted.

    Returns:
        Shape (n_bars,), at most `sizing.max_position` in size, never NaN.
    """
    if not len(bars):
        return np.zeros(0)
    convictions = convictions_of(bars, signal, sizing)
    full = np.full(len(bars), sizing.max_position)
    if sizing.target_volatility is not None:
        annual = bars.periods_per_year if periods_per_year is None else periods_per_year
        full = sizing.target_volatility / _volatility(bars, sizing.volatility_half_life, annual)
    targets = convictions * full
    if expected_return is not None and sizing.min_edge > 0:
        cost = sizing.round_trip_bps if sizing.round_trip_bps is not None else round_trip_bps
        targets[np.abs(expected_return) <= sizing.min_edge * cost / 10_000] = 0.0
    lowest = 0.0 if sizing.long_only else -sizing.max_position
    targets = np.clip(targets, lowest, sizing.max_position)
    band = sizing.no_trade_band * np.minimum(full, sizing.max_position)
    held = _held(targets, band, _restarts(bars, sizing.anchor_bars))
    if (limit := sizing.growth_limit(bars.timeframe.seconds)) is not None:
        held = _grown(held, limit.allowance, _periods(bars, limit.period), _starts(bars))
    # adding 0.0 turns -0.0 into 0.0
    return held + 0.0


class SideSizes(NamedTuple):
    """Sizing of sides taken in full, computed once for a series; arrays of shape (n_bars,)."""

    size: Floats
    """Size of a full position after each bar, 0..1."""
    band: Floats
    """Largest distance from the position wanted at which the position held is kept."""
    restarts: NDArray[np.bool_]
    """True in rows at which the position held starts anew."""
    long_only: bool


def side_sizes(bars: Bars, sizing: Sizing, periods_per_year: float | None = None) -> SideSizes:
    """Sizes for `size_sides`.

    Args:
        bars: bars of the signal.
        sizing: sizing that leaves sides of -1, 0 and 1 as they are: without smoothing, scaling and limit on
            the turnover.
        periods_per_year: bars in a year; by default of the bars.

    Raises:
        ValueError: the sizing smooths or scales the signal, or limits the turnover.
    """
    if sizing.smoothing_half_life > 0 or sizing.scale_window > 1 or sizing.max_turnover is not None:
        raise ValueError("give a sizing without smoothing, scaling and max_turnover")
    full = np.full(len(bars), sizing.max_position)
    if sizing.target_volatility is not None:
        annual = bars.periods_per_year if periods_per_year is None else periods_per_year
        full = sizing.target_volatility / _volatility(bars, sizing.volatility_half_life, annual)
    size = np.minimum(full, sizing.max_position)
    restarts = _restarts(bars, sizing.anchor_bars)
    return SideSizes(size, sizing.no_trade_band * size, restarts, sizing.long_only)


@njit(cache=True, nogil=True, error_model="numpy")
def size_sides(sides: Floats, sizes: SideSizes) -> Floats:
    """Positions of sides, shape (n_bars,), equal to those of `size_positions`.

    Args:
        sides: -1, 0 or 1 after each bar, shape (n_bars,).
        sizes: sizes on the same bars.
    """
    size = sizes.size
    band = sizes.band
    restarts = sizes.restarts
    lowest = 0.0 if sizes.long_only else -1.0
    held = np.empty(len(sides))
    current = 0.0
    for row in range(len(sides)):
        # adding 0.0 turns -0.0 into 0.0
        target = max(sides[row], lowest) * size[row] + 0.0
        if restarts[row] or target == 0.0 or not abs(target - current) <= band[row]:
            current = target
        held[row] = current
    return held


def convictions_of(bars: Bars, signal: Floats, sizing: Sizing) -> Floats:
    """Signal after smoothing and scaling, shape (n_bars,): comparable between kinds of model."""
    starts = _starts(bars)
    smooth = np.ascontiguousarray(signal, dtype=np.float64)
    if sizing.smoothing_half_life > 0:
        weights = _weights(sizing.smoothing_half_life)
        smooth = _window_sums(smooth, weights / weights.sum(), starts)
    if sizing.target_volatility is None:
        return smooth
    weights = _weights(sizing.scale_half_life)
    squares = _window_sums(smooth * smooth, weights, starts)
    sizes = _window_sums(np.abs(smooth), weights, starts)
    return _scaled(smooth, squares, sizes, _covered(bars, sizing.scale_half_life), sizing.min_scale)


def _weights(half_life: float) -> Floats:
    """Weights of an exponential average, newest bar first, shape (window,); not normalised."""
    return np.asarray(0.5 ** (np.arange(window_of(half_life)) / half_life))


@_kept
def _covered(bars: Bars, half_life: float) -> Floats:
    """Sum of the weights of the bars of the stretch within the window, shape (n_bars,)."""
    weights = _weights(half_life)
    rows = np.minimum(np.arange(len(bars)) - _starts(bars), len(weights) - 1)
    return np.asarray(np.cumsum(weights)[rows])


@_kept
def _volatility(bars: Bars, half_life: float, periods_per_year: float) -> Floats:
    """Yearly volatility of the bars, shape (n_bars,); inf where unknown or 0."""
    starts = _starts(bars)
    weights = _weights(half_life)
    returns = np.zeros(len(bars))
    returns[1:] = bars.close[1:] / bars.close[:-1] - 1.0
    # number of returns within the stretch
    known = np.arange(len(bars)) - starts
    returns[known == 0] = 0.0
    squares = _window_sums(returns * returns, weights, starts)
    covered = np.cumsum(weights)[np.clip(known - 1, 0, len(weights) - 1)]
    volatility = np.sqrt(squares / covered * periods_per_year)
    unknown = (known < half_life) | (volatility == 0.0)
    return np.where(unknown, np.inf, volatility)


@_kept
def _starts(bars: Bars) -> NDArray[np.int64]:
    """First row of the stretch of each bar, shape (n_bars,)."""
    starts = np.zeros(len(bars), dtype=np.int64)
    for rows in bars.stretches():
        starts[rows] = rows.start
    return starts


@_kept
def _restarts(bars: Bars, anchor_bars: int) -> NDArray[np.bool_]:
    """True in rows at which the position held starts anew, shape (n_bars,)."""
    period = _periods(bars, anchor_bars)
    is_anchor = np.diff(period, prepend=period[0] - 1) != 0
    return np.asarray(is_anchor | (_starts(bars) == np.arange(len(bars))))


def _periods(bars: Bars, length: int) -> NDArray[np.int64]:
    """Number of the period of each bar, periods of `length` bar lengths on the clock, shape (n_bars,)."""
    # in whole bars, counted from the Monday before 1970
    bar = (bars.time + MONDAY * 60_000_000_000) // bars.timeframe.nanoseconds
    return np.asarray(bar // length)


@_compiled
def _window_sums(values: Floats, weights: Floats, starts: NDArray[np.int64]) -> Floats:
    """Sums of weights times values over trailing windows within stretches, shape (n,).

    The sum of a row adds the current bar first and the oldest bar of the window last: the same order, and so
    the same bits, whatever the history before the window.

    Args:
        values: shape (n,).
        weights: newest bar first, shape (window,).
        starts: first row of the stretch of each row, shape (n,).
    """
    n = len(values)
    sums = np.zeros(n)
    first = 0
    while first < n:
        begin = starts[first]
        end = min(first + _BLOCK, n)
        while starts[end - 1] != begin:
            end -= 1
        window = min(len(weights), end - begin)
        k = 0
        # four bars of the window at a time: a sum is loaded and stored once for the four
        while k + 4 <= window:
            low = min(max(first, begin + k + 3), end)
            # the first rows of the stretch, with fewer bars
            for row in range(max(first, begin + k), low):
                for j in range(k, row - begin + 1):
                    sums[row] += weights[j] * values[row - j]
            # parts of the arrays, so that the loop is compiled for several rows at a time
            part = sums[low:end]
            newest = values[low - k : end - k]
            second = values[low - k - 1 : end - k - 1]
            third = values[low - k - 2 : end - k - 2]
            fourth = values[low - k - 3 : end - k - 3]
            for row in range(len(part)):
                total = part[row] + weights[k] * newest[row]
                total = total + weights[k + 1] * second[row]
                total = total + weights[k + 2] * third[row]
                part[row] = total + weights[k + 3] * fourth[row]
            k += 4
        while k < window:
            low = max(first, begin + k)
            part = sums[low:end]
            newest = values[low - k : end - k]
            for row in range(len(part)):
                part[row] += weights[k] * newest[row]
            k += 1
        first = end
    return sums


@_compiled
def _scaled(smooth: Floats, squares: Floats, sizes: Floats, covered: Floats, min_scale: float) -> Floats:
    convictions = np.zeros(len(smooth))
    for row in range(len(smooth)):
        if squares[row] > 0.0:
            # squared sizes over squares: the weight of the bars on which the rule was on
            on = sizes[row] * sizes[row] / squares[row]
            scale = np.sqrt(squares[row] / min(covered[row], on / MIN_SHARE_ON))
            conviction = smooth[row] / max(scale, min_scale)
            convictions[row] = min(max(conviction, -MAX_CONVICTION), MAX_CONVICTION)
    return convictions


@_compiled
def _held(targets: Floats, band: Floats, restarts: NDArray[np.bool_]) -> Floats:
    """Positions held with a no-trade band, shape (n,)."""
    held = np.empty(len(targets))
    current = 0.0
    for row in range(len(targets)):
        far = not abs(targets[row] - current) <= band[row]
        if restarts[row] or far or targets[row] == 0.0:
            current = targets[row]
        held[row] = current
    return held


@_compiled
def _grown(held: Floats, allowance: float, periods: NDArray[np.int64], starts: NDArray[np.int64]) -> Floats:
    """Positions whose growth in each period is at most the allowance, shape (n,).

    Args:
        held: positions without the limit, shape (n,).
        allowance: growth of a period, more than the largest size of a position held.
        periods: number of each row's period, shape (n,).
        starts: first row of the stretch of each row, shape (n,).
    """
    grown = np.empty(len(held))
    left = allowance
    before = 0.0
    size = 0.0
    for row in range(len(held)):
        allowed = 0.0
        if starts[row] == row:
            left = allowance
            before = 0.0
            size = 0.0
        elif periods[row] != periods[row - 1]:
            # a period without bars, while the market is closed, leaves all of its allowance
            allowed = left + allowance * (periods[row] - periods[row - 1] - 1)
            left = allowance
        if not held[row] * before > 0.0:
            before = 0.0
            size = 0.0
        spent = min(max(abs(held[row]) - abs(before), 0.0), left)
        left -= spent
        size = min(size + spent + allowed, abs(held[row]))
        grown[row] = np.sign(held[row]) * size
        before = held[row]
    return grown


@dataclass(frozen=True, eq=False)
class SizedModel:
    """A model of any kind with the sizing and the execution of the version."""

    inner: Model = field(repr=False)
    sizing: Sizing | None
    """None: the positions are those of the inner model."""
    execution: ExecutionRules
    """Rules by which the version is evaluated and to be traded."""

    @property
    def model_type(self) -> ModelType:
        return self.inner.model_type

    @property
    def trained_on(self) -> TrainedOn:
        return self.inner.trained_on

    @property
    def train_metrics(self) -> dict[str, float]:
        return self.inner.train_metrics

    @property
    def learning_curve(self) -> tuple[float, ...]:
        return self.inner.learning_curve

    @property
    def parts(self) -> tuple[Model, ...]:
        """Models combined by the inner model; empty for all kinds but ensembles."""
        parts: tuple[Model, ...] = getattr(self.inner, "parts", ())
        return parts

    @property
    def bars_needed(self) -> int | None:
        if self.sizing is None:
            return self.inner.bars_needed
        by_signal = self._bars_by_signal
        if by_signal is None:
            return None
        return self.sizing.bars_needed(by_signal, self.trained_on.timeframe.seconds)

    @property
    def bars_by_convictions(self) -> int | None:
        """Closed bars from which on more history changes no conviction and no forecast of the last bar."""
        if self.sizing is None:
            return self.inner.bars_needed
        by_signal = self._bars_by_signal
        return None if by_signal is None else self.sizing.bars_by_averages(by_signal)

    @property
    def _bars_by_signal(self) -> int | None:
        if isinstance(self.inner, OffersConvictions):
            return self.inner.bars_by_convictions
        return self.inner.bars_needed

    def positions(self, bars: Bars) -> Floats:
        if self.sizing is None:
            return self.inner.positions(bars)
        bars = self.trained_on.accept(bars)
        expected = None
        # without a threshold the forecast would be computed for nothing
        if self.sizing.min_edge > 0 and isinstance(self.inner, ExpectsReturns):
            expected = self.inner.expected_return(bars)
        return size_positions(
            bars,
            self.signal(bars),
            self.sizing,
            expected_return=expected,
            periods_per_year=bars_per_year(self.trained_on),
        )

    def convictions(self, bars: Bars) -> Floats:
        """Signal of the inner model as an ensemble combines it: smoothed, scaled, within [-1, 1]."""
        if self.sizing is None:
            return self.inner.positions(bars)
        bars = self.trained_on.accept(bars)
        convictions = convictions_of(bars, self.signal(bars), self.sizing)
        return np.clip(convictions, 0.0 if self.sizing.long_only else -1.0, 1.0)

    def forecast(self, bars: Bars) -> Floats:
        return self.inner.forecast(bars)

    def importances(self) -> dict[str, float]:
        return self.inner.importances()

    def save(self, folder: Path) -> None:
        self.inner.save(folder)

    def signal(self, bars: Bars) -> Floats:
        """Direction and conviction before the sizing, shape (n_bars,), in [-1, 1]."""
        # members that are sized themselves would be sized twice
        if isinstance(self.inner, OffersConvictions):
            return self.inner.convictions(bars)
        return self.inner.positions(bars)


@dataclass(frozen=True)
class SizedRecipe:
    """A recipe of any kind with the sizing and the execution of the versions to be made."""

    inner: Recipe
    sizing: Sizing | None
    execution: ExecutionRules

    @property
    def model_type(self) -> ModelType:
        return self.inner.model_type

    @property
    def parts(self) -> tuple[Recipe, ...]:
        """Recipes combined by the inner recipe; empty for all kinds but ensembles."""
        parts: tuple[Recipe, ...] = getattr(self.inner, "parts", ())
        return parts

    @property
    def warm_start(self) -> bool:
        return isinstance(self.inner, WarmStarting) and self.inner.warm_start

    def describe(self) -> dict[str, Any]:
        return self.inner.describe() | sections(self.sizing, self.execution)

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> SizedModel:
        return self._sized(self.inner.fit(bars, seed, progress))

    def fit_after(self, older: Model, bars: Bars, seed: int, progress: Progress | None = None) -> SizedModel:
        assert isinstance(self.inner, WarmStarting)
        return self._sized(self.inner.fit_after(unsized_model(older), bars, seed, progress))

    def fit_panel(self, panel: Panel, seed: int, progress: Progress | None = None) -> tuple[SizedModel, ...]:
        assert isinstance(self.inner, Pooling)
        return tuple(self._sized(model) for model in self.inner.fit_panel(panel, seed, progress))

    def with_inner(self, inner: Recipe) -> "SizedRecipe":
        return replace(self, inner=inner)

    def _sized(self, model: Model) -> SizedModel:
        return SizedModel(model, self.sizing, self.execution)


def following_folds(recipe: Recipe, metrics: Sequence[Mapping[str, float]]) -> Recipe:
    """Recipe of the final fit; kinds that do not follow the folds are returned unchanged.

    Args:
        metrics: training metrics of the fold's models, at least one.
    """
    inner = unsized_recipe(recipe)
    return _with_inner(recipe, inner.following_folds(metrics)) if isinstance(inner, FollowsFolds) else recipe


def as_fitted(recipe: Recipe, metrics: Mapping[str, float]) -> Recipe:
    """Recipe that repeats the final fit of a stored version.

    Args:
        metrics: training metrics of the version.
    """
    inner = unsized_recipe(recipe)
    return _with_inner(recipe, inner.as_fitted(metrics)) if isinstance(inner, FollowsFolds) else recipe


def _with_inner(recipe: Recipe, inner: Recipe) -> Recipe:
    return recipe.with_inner(inner) if isinstance(recipe, SizedRecipe) else inner


def sections(sizing: Sizing | None, execution: ExecutionRules) -> dict[str, Any]:
    """Sections of training parameters for a sizing and an execution, JSON-ready."""
    return {
        SIZING: NO_SIZING if sizing is None else sizing.model_dump(mode="json"),
        EXECUTION: execution.model_dump(mode="json"),
    }


def unsized_model(model: Model) -> Model:
    """The model without the sizing; other models are returned unchanged."""
    return model.inner if isinstance(model, SizedModel) else model


def unsized_recipe(recipe: Recipe) -> Recipe:
    """The recipe without the sizing; other recipes are returned unchanged."""
    return recipe.inner if isinstance(recipe, SizedRecipe) else recipe


def execution_of(model: Model) -> ExecutionRules:
    """Execution of a model's version; a fixed number of units for a model without execution."""
    if isinstance(model, PooledModel):
        return execution_of(model.members[0])
    return model.execution if isinstance(model, SizedModel) else FIXED_UNITS


def signal_of(model: Model, bars: Bars) -> Floats:
    """Signal of a model before the sizing, shape (n_bars,); the positions of a model without a sizing."""
    return model.signal(bars) if isinstance(model, SizedModel) else model.positions(bars)


def with_costs(sizing: Sizing | None, costs: Costs) -> Sizing | None:
    """The sizing with the cost of a round trip in a market, unless named already."""
    if sizing is None or sizing.round_trip_bps is not None:
        return sizing
    return sizing.model_copy(update={"round_trip_bps": 2 * (costs.fee_bps + costs.slippage_bps)})


def bars_per_year(trained_on: TrainedOn) -> float:
    """Bars in a year by the bars of a training: the same constant for every answer of the model."""
    if trained_on.calendar == Calendar.ALWAYS:
        return YEAR_NS / trained_on.timeframe.nanoseconds
    # the end is the open time of the last bar
    span_ns = int((trained_on.end - trained_on.start) / timedelta(microseconds=1)) * 1_000
    return trained_on.bars * YEAR_NS / (span_ns + trained_on.timeframe.nanoseconds)
