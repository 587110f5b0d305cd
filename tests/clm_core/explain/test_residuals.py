"""Residuals of forecast returns with known answers."""

from dataclasses import replace

import numpy as np
import pytest

from clm_core.backtest.return_forecasts import ReturnForecasts
from clm_core.backtest.walk_forward import OutOfSample
from clm_core.domain.errors import ExplanationUnavailable
from clm_core.explain.forecasts import ForecastRecord, MarketForecasts, market_forecasts
from clm_core.explain.residuals import pinball_losses, residuals_of
from clm_core.explain.residuals_section import section_of
from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import forward_return, return_unit

HORIZON = 6
FIRST = 500
RNG = np.random.default_rng(7)
LEVELS = np.array([0.1, 0.5, 0.9])


def record(bars: Bars, expected: Floats, quantiles: Floats | None = None) -> ForecastRecord:
    forecast = np.full(len(bars), np.nan)
    levels = np.empty(0) if quantiles is None else LEVELS
    known = np.empty((len(bars), 0)) if quantiles is None else quantiles
    returns = ReturnForecasts(expected, known, levels)
    run = OutOfSample(forecast, forecast, slice(FIRST, len(bars)), (), returns)
    return ForecastRecord("nhits", 0.0, (market_forecasts(bars, run, {"horizon": HORIZON}),))


def outcome(bars: Bars) -> Floats:
    return np.asarray(forward_return(bars, HORIZON).values)


def test_forecasts_with_a_share_of_the_outcome_have_the_skill_of_the_share(bars: Bars) -> None:
    # residuals of half the outcome: squares of a quarter
    residuals = residuals_of(record(bars, outcome(bars) / 2))
    assert residuals.skill.value == pytest.approx(0.75)
    assert residuals.correlation.value == pytest.approx(1.0)
    section = section_of(residuals)
    assert section.sentences[0].startswith("The expected returns are better than expecting nothing")
    assert residuals.newest[0].at == bars.index[-HORIZON - 2]


def test_forecasts_of_noise_show_nothing_and_their_intervals_hold_nine_of_ten(bars: Bars) -> None:
    residuals = residuals_of(record(bars, RNG.normal(0, 1e-4, len(bars))))
    assert residuals.skill.low < 0 < residuals.skill.high
    assert residuals.coverage.value == pytest.approx(0.9, abs=0.02)
    assert sum(each.forecasts for each in residuals.by_time) == residuals.forecasts
    assert sum(count for _, count in residuals.histogram) == residuals.forecasts
    assert section_of(residuals).sentences[0].startswith("Nothing shows that the expected returns are better")
    assert residuals.to_json()["quantiles"] is None


def test_a_residual_that_repeats_is_found_at_its_lag(bars: Bars) -> None:
    unit = return_unit(bars) * np.sqrt(HORIZON)
    # outcomes less residuals that alternate every horizon
    wave = np.where(np.arange(len(bars)) // HORIZON % 2 == 0, 1.0, -1.0)
    residuals = residuals_of(record(bars, outcome(bars) - wave * unit))
    assert residuals.autocorrelation[:3] == pytest.approx((-1.0, 1.0, -1.0), abs=0.02)
    assert residuals.deviation == pytest.approx(1.0, abs=0.01)
    assert residuals.excess_kurtosis == pytest.approx(-2.0, abs=0.05)


def test_quantiles_are_held_against_their_levels(bars: Bars) -> None:
    unit = return_unit(bars) * np.sqrt(HORIZON)
    right = np.nanquantile((outcome(bars) / unit)[FIRST:], LEVELS)
    quantiles = residuals_of(record(bars, np.zeros(len(bars)), unit[:, None] * right)).quantiles
    assert quantiles is not None
    assert [each.value for each in quantiles.below] == pytest.approx(LEVELS, abs=0.005)
    assert quantiles.skill.value == pytest.approx(0.0, abs=1e-3)
    wide = residuals_of(record(bars, np.zeros(len(bars)), unit[:, None] * right * 3)).quantiles
    assert wide is not None
    assert wide.skill.high < -0.3
    assert wide.error > quantiles.error


def test_the_pinball_loss_is_that_of_the_definition() -> None:
    losses = pinball_losses(np.array([[1.0, 2.0, 3.0]]), np.array([2.5, 0.0]), LEVELS)
    assert losses == pytest.approx([(0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3, (0.9 + 0.5 * 2 + 0.1 * 3) / 3])


def test_members_of_a_pool_are_measured_together(bars: Bars) -> None:
    one = record(bars, outcome(bars) / 2)
    [market] = one.markets
    assert isinstance(market, MarketForecasts)
    both = residuals_of(replace(one, markets=(market, market)))
    alone = residuals_of(one)
    assert both.forecasts == 2 * alone.forecasts
    assert both.independent == pytest.approx(alone.independent)
    assert both.autocorrelation == pytest.approx(alone.autocorrelation)


def test_a_kind_without_expected_returns_says_so_by_name(bars: Bars) -> None:
    one = record(bars, outcome(bars))
    markets = tuple(replace(each, returns=None) for each in one.markets)
    with pytest.raises(ExplanationUnavailable, match="lightgbm expects no returns"):
        residuals_of(replace(one, kind="lightgbm", markets=markets))
