"""Validation metrics of kinds with and without forecasts."""

import math
from dataclasses import replace

import numpy as np

from clm_core.backtest.results import Metrics
from clm_core.backtest.return_forecasts import ReturnForecasts
from clm_core.backtest.walk_forward import OutOfSample
from clm_core.explain.forecasts import ForecastRecord, market_forecasts
from clm_core.explain.validation import validation_metrics
from clm_core.market.bars import Bars
from clm_core.market.labels import direction, forward_return

METRICS = Metrics(
    total_return=0.1,
    cagr=0.1,
    volatility=0.2,
    sharpe_ratio=0.5,
    sortino_ratio=0.7,
    calmar_ratio=math.inf,
    max_drawdown=-0.1,
    profit_factor=math.nan,
    win_rate=0.5,
    trades=40,
    exposure=0.3,
    turnover=12.0,
)


def record(bars: Bars, levels: tuple[float, ...] = ()) -> ForecastRecord:
    """Forecasts that know every outcome."""
    outcome = forward_return(bars, 6).values
    forecast = np.where(direction(bars, 6).values > 0, 0.9, 0.1)
    quantiles = outcome[:, None] + np.asarray(levels) - 0.5
    returns = ReturnForecasts(outcome, quantiles, np.asarray(levels))
    run = OutOfSample(np.sign(forecast - 0.5), forecast, slice(500, len(bars)), (), returns)
    return ForecastRecord("nhits", 0.0, (market_forecasts(bars, run, {"horizon": 6}),))


def test_a_kind_without_forecasts_has_the_finite_metrics_of_its_backtest(bars: Bars) -> None:
    silent = replace(record(bars).markets[0], probability=np.full(len(bars) - 500, np.nan), returns=None)
    metrics = validation_metrics(METRICS, ForecastRecord("rl_v3", 0.0, (silent,)))
    assert metrics == validation_metrics(METRICS, None)
    assert (metrics["sharpe_ratio"], metrics["trades"]) == (0.5, 40.0)
    assert not {"calmar_ratio", "profit_factor", "brier_skill"} & metrics.keys()


def test_right_forecasts_have_skill_by_every_metric(bars: Bars) -> None:
    metrics = validation_metrics(METRICS, record(bars))
    assert metrics["auc"] == metrics["precision_long"] == metrics["precision_short"] == 1.0
    assert metrics["brier_skill_low"] > 0.9
    assert metrics["return_skill"] == metrics["coverage_90"] == 1.0
    assert "pinball_loss" not in metrics


def test_forecasters_have_the_metrics_of_their_quantiles_too(bars: Bars) -> None:
    metrics = validation_metrics(METRICS, record(bars, levels=(0.25, 0.75)))
    assert {"pinball_loss", "pinball_skill", "quantile_error"} <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
