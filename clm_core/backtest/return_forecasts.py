"""Out-of-sample forecasts of returns, for kinds of model with expected returns or quantiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import ExpectsReturns, ForecastsQuantiles, Model
from clm_core.models.sizing import unsized_model


@dataclass(frozen=True, eq=False)
class ReturnForecasts:
    """Forecasts of the simple return over the horizon after each bar, NaN where unknown."""

    expected: Floats
    """Expected return, shape (n_bars,)."""
    quantiles: Floats
    """Quantiles of the return, ascending, shape (n_bars, n_levels); without columns for a model without
    quantiles."""
    levels: Floats
    """Levels of the quantiles, shape (n_levels,)."""

    def rows(self, rows: slice) -> "ReturnForecasts":
        return ReturnForecasts(self.expected[rows], self.quantiles[rows], self.levels)


NAMES = tuple(field.name for field in fields(ReturnForecasts))
"""Names of the forecasts among other arrays."""


def to_arrays(returns: ReturnForecasts | None) -> dict[str, Floats]:
    """Forecasts as arrays by name; empty for a model without."""
    return {} if returns is None else {name: getattr(returns, name) for name in NAMES}


def from_arrays(arrays: Mapping[str, Floats]) -> ReturnForecasts | None:
    """Forecasts among arrays by name; None where the arrays have none."""
    known = all(name in arrays for name in NAMES)
    return ReturnForecasts(**{name: arrays[name] for name in NAMES}) if known else None


def return_forecasts(model: Model, bars: Bars, first: int) -> ReturnForecasts | None:
    """Forecasts on the bars from a row on; None for a model without expected returns.

    Args:
        bars: bars of the model's market.
        first: first row of the forecasts.
    """
    inner = unsized_model(model)
    if not isinstance(inner, ExpectsReturns):
        return None
    needed = inner.bars_needed
    # the bars themselves where all are needed: the model keeps its last answers by the object
    known = bars if needed is None or needed > first else bars[first + 1 - needed :]
    rows = slice(len(known) - (len(bars) - first), None)
    expected = inner.expected_return(known)[rows]
    if np.isnan(expected).all():
        return None
    if not isinstance(inner, ForecastsQuantiles):
        return ReturnForecasts(expected, np.empty((len(expected), 0)), np.empty(0))
    return ReturnForecasts(expected, inner.quantiles(known)[rows], np.asarray(inner.quantile_levels))


def collected(bars: int, parts: Sequence[tuple[slice, ReturnForecasts | None]]) -> ReturnForecasts | None:
    """Forecasts of the models of a walk-forward; None if no model has forecasts.

    Args:
        bars: number of bars of the walk-forward.
        parts: rows of each model with the forecasts of the model on the rows.
    """
    known = [(rows, each) for rows, each in parts if each is not None]
    if not known:
        return None
    levels = known[0][1].levels
    whole = ReturnForecasts(np.full(bars, np.nan), np.full((bars, len(levels)), np.nan), levels)
    for rows, each in known:
        whole.expected[rows] = each.expected
        whole.quantiles[rows] = each.quantiles
    for array in (whole.expected, whole.quantiles):
        array.setflags(write=False)
    return whole
