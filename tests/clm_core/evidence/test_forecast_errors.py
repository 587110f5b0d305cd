"""Drift of forecast errors: a planted change is found, and calibrated forecasts show none."""

import numpy as np
import pytest

from clm_core.evidence.forecast_errors import MIN_OBSERVATIONS, error_drift, forecast_errors
from clm_core.market.labels import direction
from clm_core.market.planted import planted_bars


def calibrated(rng: np.random.Generator, count: int) -> np.ndarray:
    forecast = np.clip(0.5 + 0.06 * rng.standard_normal(count), 0.0, 1.0)
    return (rng.random(count) < forecast) - forecast


def test_errors_are_a_horizon_apart_and_unknown_outcomes_are_left_out() -> None:
    bars = planted_bars(200)
    forecast = np.full(200, 0.6)
    forecast[34] = np.nan
    rose = direction(bars, 12).values
    rows = [row for row in range(10, 200, 12) if row != 34 and not np.isnan(rose[row])]
    assert rows[-1] <= 200 - 1 - 12 - 1
    assert forecast_errors(forecast, bars, 12, 10) == pytest.approx(rose[rows] - 0.6)


def test_too_few_outcomes_are_no_finding() -> None:
    assert error_drift(np.zeros(MIN_OBSERVATIONS - 1)) is None


def test_calibrated_forecasts_show_no_change() -> None:
    rng = np.random.default_rng(3)
    found = [error_drift(calibrated(rng, 400)) for _ in range(20)]
    assert [each.changed_at for each in found if each] == [None] * 20


def test_a_market_that_rises_more_often_than_forecast_is_found_with_the_error_before_and_since() -> None:
    rng = np.random.default_rng(4)
    forecast = np.full(200, 0.5)
    risen = (rng.random(200) < 0.85) - forecast
    drift = error_drift(np.concatenate([calibrated(rng, 200), risen]))
    assert drift is not None
    assert drift.changed_at is not None
    assert 200 < drift.changed_at < 300
    assert abs(drift.mean_before) < 0.15
    assert drift.mean_since is not None
    assert drift.mean_since > 0.15
