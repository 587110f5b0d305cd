"""Forecasts of returns collected by a walk-forward."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.backtest.return_forecasts import ReturnForecasts, collected, return_forecasts
from clm_core.domain.execution import FIXED_UNITS
from clm_core.market.bars import Bars, Floats
from clm_core.models.sizing import SizedModel

MakeBars = Callable[..., Bars]


@dataclass(frozen=True)
class Expecting:
    """A model that expects the last close; NaN until there are enough bars."""

    bars_needed: int | None = 3

    def expected_return(self, bars: Bars) -> Floats:
        return np.where(np.arange(len(bars)) < (self.bars_needed or 1) - 1, np.nan, bars.close)


@dataclass(frozen=True)
class Quantiled(Expecting):
    quantile_levels: tuple[float, ...] = (0.25, 0.75)

    def quantiles(self, bars: Bars) -> Floats:
        return np.column_stack([self.expected_return(bars) - 1, self.expected_return(bars) + 1])


class Silent:
    """A model without expected returns."""

    bars_needed = 1


def forecasts_of(model: Any, bars: Bars, first: int) -> ReturnForecasts | None:
    return return_forecasts(model, bars, first)


def test_a_sized_model_forecasts_by_the_bars_it_needs(make_bars: MakeBars) -> None:
    bars = make_bars(np.arange(1, 11))
    for needed in (3, None):
        sized = SizedModel(Expecting(needed), None, FIXED_UNITS)  # type: ignore[arg-type]
        forecasts = forecasts_of(sized, bars, 4)
        assert forecasts is not None
        assert forecasts.expected.tolist() == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
        assert forecasts.quantiles.shape == (6, 0)


def test_quantiles_come_with_their_levels(make_bars: MakeBars) -> None:
    forecasts = forecasts_of(Quantiled(), make_bars(np.arange(1, 7)), 4)
    assert forecasts is not None
    assert forecasts.quantiles.tolist() == [[4.0, 6.0], [5.0, 7.0]]
    assert forecasts.levels.tolist() == [0.25, 0.75]


def test_a_model_without_known_returns_has_no_forecasts(make_bars: MakeBars) -> None:
    bars = make_bars(np.arange(1, 7))
    assert forecasts_of(Silent(), bars, 2) is None
    assert forecasts_of(Expecting(bars_needed=100), bars, 2) is None


def test_rows_without_a_forecast_stay_unknown(make_bars: MakeBars) -> None:
    part = forecasts_of(Quantiled(), make_bars(np.arange(1, 7)), 4)
    whole = collected(6, [(slice(2, 4), None), (slice(4, 6), part)])
    assert whole is not None
    assert np.isnan(whole.expected[:4]).all()
    assert whole.rows(slice(4, 6)).quantiles.tolist() == [[4.0, 6.0], [5.0, 7.0]]
    assert collected(6, [(slice(2, 4), None)]) is None
