"""Out-of-sample forecasts of a version with outcomes.

Outcomes of neighbouring bars overlap: the returns over the next 24 bars of two consecutive bars share 23
bars. So forecasts count by the average uniqueness of outcomes (Lopez de Prado 2018, chapter 4): the sum over
a set of forecasts is an equivalent number of outcomes without overlap. Members of a pool share an outcome
at the same time by the same rule, as if all markets moved alike: a lower bound.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.backtest.return_forecasts import ReturnForecasts
from clm_core.backtest.walk_forward import FoldResult, OutOfSample
from clm_core.domain.errors import ExplanationUnavailable, NotEnoughBars
from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import Labels, direction, forward_return, return_unit
from clm_core.market.sample_weights import average_uniqueness

MIN_INDEPENDENT = 20.0
"""Outcomes without overlap below which forecasts are not measured."""
UNKNOWN_HORIZON = 0

Rows = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class MarketForecasts:
    """Out-of-sample forecasts in a market; arrays of shape (n_bars,)."""

    bars: Bars
    """Out-of-sample bars."""
    horizon: Rows
    """Bars of each forecast; `UNKNOWN_HORIZON` where unknown."""
    probability: Floats
    """Probability of a rise over the horizon after each bar; NaN where unknown."""
    positions: Floats
    """Target position after each bar, as the model asked."""
    unit: Floats
    """Standard deviation of one-bar log returns over the trailing 96 bars."""
    returns: ReturnForecasts | None
    """Forecasts of the return over the horizon; None for a kind without."""


@dataclass(frozen=True, eq=False)
class ForecastRecord:
    """Out-of-sample forecasts of a version by market."""

    kind: str
    """Kind of the model, for messages."""
    threshold: float
    """Least distance of the probability from even odds for a trade."""
    markets: tuple[MarketForecasts, ...]


def once_per_record(measure: Callable[[ForecastRecord], T]) -> Callable[[ForecastRecord], T]:
    """The measure, computed once for each record: figures in MLflow and a section have the same."""
    by_record = WeakKeyDictionary[ForecastRecord, T]()

    @wraps(measure)
    def measured(record: ForecastRecord) -> T:
        if record not in by_record:
            by_record[record] = measure(record)
        return by_record[record]

    return measured


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Forecasts with a known outcome, of all markets; arrays of shape (n_forecasts,), ascending by row."""

    probability: Floats
    """Forecast probability of a rise, 0..1."""
    rise: Floats
    """1.0 for a rise over the horizon, 0.0 for a fall."""
    position: Floats
    """Target position after the bar of the forecast."""
    row: Rows
    """Row of the bar on the common axis of the markets."""
    end: Rows
    """Row of the last bar of the outcome, after `row`."""

    def __len__(self) -> int:
        return len(self.rise)

    def where(self, chosen: NDArray[np.bool_]) -> "Outcomes":
        return Outcomes(
            self.probability[chosen],
            self.rise[chosen],
            self.position[chosen],
            self.row[chosen],
            self.end[chosen],
        )

    @property
    def independent(self) -> float:
        """Equivalent number of outcomes without overlap."""
        return independent_outcomes(self.row, self.end)


def independent_outcomes(row: Rows, end: Rows) -> float:
    """Sum of the average uniqueness of outcomes.

    Args:
        row: rows of the forecasts, ascending, shape (n,).
        end: last row of each outcome, shape (n,).
    """
    return float(average_uniqueness(row, end).sum())


def market_forecasts(bars: Bars, run: OutOfSample, params: Mapping[str, Any]) -> MarketForecasts:
    """Out-of-sample part of a walk-forward.

    Args:
        bars: bars of the walk-forward.
        run: results on the bars.
        params: training parameters of the version.
    """
    unseen = bars[run.rows]
    return MarketForecasts(
        bars=unseen,
        horizon=_horizons(unseen, run.folds, params),
        probability=run.forecast[run.rows],
        positions=run.positions[run.rows],
        unit=return_unit(bars)[run.rows],
        returns=None if run.returns is None else run.returns.rows(run.rows),
    )


def outcomes_of(record: ForecastRecord) -> Outcomes:
    """Forecasts with a known outcome; rows with a tie, a return of exactly 0, are left out.

    Raises:
        ExplanationUnavailable: the kind makes no forecasts, or not over a single horizon.
        NotEnoughBars: fewer than `MIN_INDEPENDENT` outcomes without overlap.
    """
    if all(np.isnan(each.probability).all() for each in record.markets):
        raise ExplanationUnavailable(f"{record.kind} makes no forecasts: its positions are all that it says")
    require_horizon(record)
    axis = common_axis(record)
    outcomes = _joined([_outcomes(each, axis) for each in record.markets])
    require_outcomes(record.kind, len(outcomes), outcomes.independent)
    return outcomes


def common_axis(record: ForecastRecord) -> NDArray[np.int64]:
    """Open times of the bars of all markets, nanoseconds since 1970-01-01 UTC, ascending."""
    if len(record.markets) == 1:
        return record.markets[0].bars.time
    return np.unique(np.concatenate([each.bars.time for each in record.markets]))


def require_horizon(record: ForecastRecord) -> None:
    """Refuse forecasts without a single horizon.

    Raises:
        ExplanationUnavailable: a forecast has no known horizon.
    """
    if any((each.horizon == UNKNOWN_HORIZON).any() for each in record.markets):
        raise ExplanationUnavailable(
            f"{record.kind} states no single horizon of its forecasts: see the members of an ensemble each"
        )


def require_outcomes(kind: str, forecasts: int, independent: float) -> None:
    """Refuse to measure few outcomes.

    Raises:
        NotEnoughBars: fewer than `MIN_INDEPENDENT` outcomes without overlap.
    """
    if not independent >= MIN_INDEPENDENT:
        raise NotEnoughBars(
            f"{forecasts:,} out-of-sample forecasts of {kind} have {independent:.1f} outcomes without "
            f"overlap, and {MIN_INDEPENDENT:g} are needed to measure them: give more days of bars"
        )


def direction_over(bars: Bars, horizon: Rows) -> tuple[Floats, Rows]:
    """Direction over the horizon of each bar and last row of the outcome, shape (n_bars,); NaN and -1 where
    unknown."""
    return _over(bars, horizon, direction)


def return_over(bars: Bars, horizon: Rows) -> tuple[Floats, Rows]:
    """Simple return over the horizon of each bar and last row of the outcome, shape (n_bars,); NaN and -1
    where unknown."""
    return _over(bars, horizon, forward_return)


def _over(bars: Bars, horizon: Rows, label: Callable[[Bars, int], Labels]) -> tuple[Floats, Rows]:
    values = np.full(len(bars), np.nan)
    end = np.full(len(bars), -1, dtype=np.int64)
    for each in np.unique(horizon[horizon != UNKNOWN_HORIZON]).tolist():
        labels = label(bars, each)
        own = horizon == each
        values[own] = labels.values[own]
        end[own] = labels.end[own]
    return values, end


def _outcomes(market: MarketForecasts, axis: NDArray[np.int64]) -> Outcomes:
    rise, end = direction_over(market.bars, market.horizon)
    known = np.flatnonzero(~np.isnan(rise) & ~np.isnan(market.probability))
    on_axis = np.searchsorted(axis, market.bars.time)
    return Outcomes(
        market.probability[known],
        rise[known],
        market.positions[known],
        on_axis[known],
        on_axis[end[known]],
    )


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    row = np.concatenate([each.row for each in parts])
    order = np.argsort(row, kind="stable")
    return Outcomes(
        np.concatenate([each.probability for each in parts])[order],
        np.concatenate([each.rise for each in parts])[order],
        np.concatenate([each.position for each in parts])[order],
        row[order],
        np.concatenate([each.end for each in parts])[order],
    )


def _horizons(bars: Bars, folds: Sequence[FoldResult], params: Mapping[str, Any]) -> Rows:
    """Horizon after each bar, by the fold's model or by the parameters."""
    horizons = np.full(len(bars), _stated_horizon(params), dtype=np.int64)
    for fold in folds:
        first = int(np.searchsorted(bars.time, pd.Timestamp(fold.test_start).value))
        if "horizon" in fold.train_metrics:
            horizons[first:] = int(fold.train_metrics["horizon"])
    return horizons


def _stated_horizon(params: Mapping[str, Any]) -> int:
    """Horizon by the parameters, shared by all members of an ensemble; `UNKNOWN_HORIZON` without."""
    own = [params.get("horizon")]
    members = [
        each["params"].get("horizon")
        for each in params.get("members", ())
        if isinstance(each, Mapping) and "horizon" in each["params"]
    ]
    stated = set(members or own)
    horizon = stated.pop() if len(stated) == 1 else None
    return horizon if isinstance(horizon, int) else UNKNOWN_HORIZON
