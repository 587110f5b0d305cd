"""Drift of forecast errors: a planted change is found, and calibrated forecasts show none."""

import numpy as np
import pytest

from clm_core.evidence.forecast_errors import (
    MIN_OBSERVATIONS,
    error_drift,
    error_drift_of_members,
    forecast_errors,
)
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
    drifts = [error_drift(calibrated(rng, 400)) for _ in range(20)]
    assert [each.changed_at for each in drifts if each] == [None] * 20


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


def risen(rng: np.random.Generator, count: int, chance: float = 0.85) -> np.ndarray:
    """Errors of forecasts of a half in a market that rises more often."""
    return (rng.random(count) < chance) - np.full(count, 0.5)


def test_a_single_member_is_tested_as_a_market_alone() -> None:
    rng = np.random.default_rng(4)
    errors = np.concatenate([calibrated(rng, 200), risen(rng, 200)])
    assert error_drift_of_members({"A": errors}) == {"A": error_drift(errors)}


def test_the_members_of_a_pool_with_a_change_are_found_and_those_with_few_outcomes_left_out() -> None:
    rng = np.random.default_rng(5)
    errors = {f"S{number}": calibrated(rng, 300) for number in range(8)}
    errors["S3"] = np.concatenate([calibrated(rng, 200), risen(rng, 200)])
    errors["new"] = risen(rng, MIN_OBSERVATIONS - 1)
    drifts = error_drift_of_members(errors)
    assert drifts.keys() == errors.keys() - {"new"}
    assert [symbol for symbol, each in drifts.items() if each.changed_at is not None] == ["S3"]
    assert drifts["S3"].observations == 400


def test_a_change_of_one_member_counts_later_than_the_same_change_of_a_market_alone_or_of_all() -> None:
    rng = np.random.default_rng(6)
    changed = np.concatenate([calibrated(rng, 200), risen(rng, 200, 0.9)])
    others = {f"S{number}": calibrated(rng, 400) for number in range(9)}
    alone = error_drift(changed)
    one = error_drift_of_members({"changed": changed, **others})["changed"]
    every = error_drift_of_members({f"S{number}": changed for number in range(10)})["S0"]
    assert alone is not None
    assert None not in (alone.changed_at, one.changed_at, every.changed_at)
    assert alone.changed_at <= every.changed_at < one.changed_at


def test_a_pool_without_a_model_of_forecasts_has_no_finding() -> None:
    assert error_drift_of_members({"A": np.zeros(0)}) == {}
