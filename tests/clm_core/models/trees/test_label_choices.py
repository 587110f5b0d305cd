"""Labels of the trees: a planted edge is learnt, a drift is not sold, answers use no later bar."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.backtest.walk_forward import OutOfSample, walk_forward
from clm_core.domain.costs import Costs, MarketCosts
from clm_core.domain.errors import BundleCorrupt, NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import direction, forward_return
from clm_core.market.look_ahead import first_leak
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import golden
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.catalog import find_kind, own_params, stored_params
from clm_core.models.contract import ExpectsReturns, Recipe, StatesBarsToFit
from clm_core.models.strategies.trend import LOOK_BACK_DAYS, trend
from clm_core.models.trees.boosting import OLDER_LEAVES, OLDER_PARAMS, READING, BoostedModel
from clm_core.models.trees.targets import rule_memory

CHOICES = ["volatility_scaled_return", "direction", "triple_barrier", "meta"]
DIRECT = CHOICES[:3]
KINDS = [ModelType.XGBOOST, ModelType.LIGHTGBM]
H4 = Timeframe.H4.nanoseconds
RULE_DAYS = np.array(LOOK_BACK_DAYS) * 6
"""Look-backs of the trend rule in bars of four hours."""


def recipe(kind: ModelType, params: dict[str, Any], costs: Costs) -> Recipe:
    """Recipe of the trees alone, without sizing."""
    return find_kind(kind).recipe(params, MarketCosts.of(costs))


def series(returns: Floats, seed: int) -> Bars:
    """Four-hourly bars with the given log returns from close to close, opening at the last close."""
    rng = np.random.default_rng(seed)
    close = 1_000 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[1_000.0], close[:-1]])
    wick = np.abs(rng.normal(0, 0.003, (2, len(close))))
    high = np.maximum(opened, close) * (1 + wick[0])
    low = np.minimum(opened, close) / (1 + wick[1])
    time = 1_577_836_800_000_000_000 + np.arange(len(close)) * H4
    volume = rng.lognormal(3, 0.5, len(close))
    return Bars("COIN", Timeframe.H4, Calendar.ALWAYS, time, opened, high, low, close, volume)


@cache
def noise(n: int = 5_000) -> Bars:
    return series(np.random.default_rng(11).normal(0, 0.01, n), 12)


@cache
def momentum() -> Bars:
    """A market that goes on as over the last eight bars, a fifth of a standard deviation a bar."""
    rng = np.random.default_rng(1)
    returns = list(rng.normal(0, 0.01, 8))
    for shock in rng.normal(0, 0.01, 5_992):
        returns.append(shock + 0.002 * np.sign(sum(returns[-8:])))
    return series(np.array(returns), 2)


@cache
def trend_in_calm() -> Bars:
    """A market that follows its trend in calm months and turns against it in wild ones, 200 bars each."""
    rng = np.random.default_rng(3)
    level = list(np.cumsum(rng.normal(0, 0.01, RULE_DAYS[-1] + 1)))
    for bar in range(6_500):
        side = np.sign(np.mean([np.sign(level[-1] - level[-1 - days]) for days in RULE_DAYS]))
        calm = bar // 200 % 2 == 0
        step = rng.normal(0.0015 * side, 0.007) if calm else rng.normal(-0.004 * side, 0.02)
        level.append(level[-1] + step)
    return series(np.diff(level, prepend=0.0), 4)


def falls_then_rises(seed: int) -> Bars:
    """A market without an edge, like SOL: it loses most of its value at first and then rises manifold."""
    drift = np.where(np.arange(7_000) < 3_000, -0.0016, 0.0008)
    return series(np.random.default_rng(seed).normal(drift, 0.012), 6)


def fitted(bars: Bars, label: str, kind: ModelType = ModelType.XGBOOST, **params: Any) -> BoostedModel:
    chosen = {"label": label, "horizon": 6, "rounds": 150, "learning_rate": 0.05, **params}
    model = recipe(kind, chosen, Costs()).fit(bars, seed=0)
    assert isinstance(model, BoostedModel)
    return model


def skill(bars: Bars, answers: Floats, first: int, horizon: int) -> float:
    """t value of the correlation with the next returns, counting one row a horizon."""
    moved = forward_return(bars, horizon).values
    rows = np.flatnonzero(~np.isnan(answers) & ~np.isnan(moved))
    rows = rows[rows >= first]
    return float(np.corrcoef(answers[rows], moved[rows])[0, 1] * np.sqrt(len(rows) / horizon))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", DIRECT)
def test_a_planted_edge_is_learnt(label: str, kind: ModelType) -> None:
    bars = momentum()
    first = 4_000
    model = fitted(bars[:first], label, kind)
    assert isinstance(model, ExpectsReturns)
    for answers in (model.forecast(bars), model.positions(bars), model.expected_return(bars)):
        assert skill(bars, answers, first, 6) > 3


def test_the_filter_of_the_rule_trades_where_the_rule_wins() -> None:
    bars = trend_in_calm()
    first = 5_000
    model = fitted(bars[:first], "meta")
    positions = model.positions(bars)[first:]
    side = np.sign(trend(bars))[first:]
    calm = (np.arange(len(bars)) - RULE_DAYS[-1] - 1)[first:] // 200 % 2 == 0
    # a position holds the signals of six bars
    same_side = np.convolve(side, np.ones(6))[: len(side)] == 6 * side
    assert np.all(positions[same_side] * side[same_side] >= 0)
    assert np.abs(positions[calm]).mean() > 2 * np.abs(positions[~calm]).mean()
    assert skill(bars, model.positions(bars), first, 6) > 1.5


def walked(bars: Bars, params: dict[str, Any]) -> OutOfSample:
    return walk_forward(recipe(ModelType.XGBOOST, params, Costs()), bars, WalkForwardPlan(folds=3), seed=0)


@pytest.mark.parametrize("label", DIRECT)
def test_a_drift_of_the_first_window_is_not_sold_as_skill(label: str) -> None:
    runs = [walked(falls_then_rises(seed), {"label": label, "horizon": 24}) for seed in (100, 101, 102)]
    positions = np.concatenate([run.positions[run.rows] for run in runs])
    assert np.mean(positions < 0) < 0.5
    assert abs(positions.mean()) < 0.4


def test_the_base_rate_alone_takes_the_drift_out_of_a_market_without_changes() -> None:
    drift = series(np.random.default_rng(7).normal(-0.0016, 0.012, 3_000), 8)
    centred = fitted(drift, "direction", horizon=24, centre_horizons=0)
    assert abs(centred.positions(drift).mean()) < 0.2
    assert centred.train_metrics["base_rate"] < 0.4


def test_the_old_rule_sold_the_drift_of_its_first_window() -> None:
    run = walked(falls_then_rises(100), own_params(stored_params(ModelType.XGBOOST, {})))
    assert np.mean(run.positions[run.folds[0].test] < 0) > 0.8


@pytest.mark.parametrize("label", CHOICES)
def test_noise_has_no_skill(label: str) -> None:
    bars = noise()
    first = 3_500
    model = fitted(bars[:first], label)
    assert abs(skill(bars, model.positions(bars), first, 6)) < 3.5


@pytest.mark.parametrize("label", CHOICES)
def test_no_answer_uses_a_later_bar_and_the_bars_needed_give_the_answers_of_all_history(label: str) -> None:
    bars = noise()
    # features with a short memory, so that a bar too few shows
    model = fitted(bars[:3_500], label, rounds=20, features="log_return_1,log_return_8")
    answers = (model.positions, model.forecast, model.expected_return)
    whole = [answer(bars) for answer in answers]
    for answer in answers:
        assert first_leak(answer, bars, rows=[3_000, 4_500]) is None
    for end in (4_000, 4_777, 5_000):
        window = bars[end - model.bars_needed : end]
        for answer, expected in zip(answers, whole, strict=True):
            assert answer(window)[-1] == expected[end - 1]


def test_the_memory_of_the_rule_is_counted() -> None:
    model = fitted(noise(), "meta", rounds=5, features="log_return_1")
    assert model.bars_needed == rule_memory(Timeframe.H4) + 6 == 721 + 6
    centred = fitted(noise(), "direction", rounds=5, features="log_return_1")
    alone = fitted(noise(), "direction", rounds=5, features="log_return_1", centre_horizons=0)
    assert centred.bars_needed == alone.bars_needed + 15 * 6


@pytest.mark.parametrize("label", CHOICES)
def test_a_bundle_keeps_every_answer_and_says_when_its_reading_is_lost(label: str, tmp_path: Path) -> None:
    bars = noise()
    fitting = recipe(ModelType.LIGHTGBM, {"label": label, "rounds": 20}, Costs())
    model = fitting.fit(bars, seed=3)
    assert isinstance(model, BoostedModel)
    save_bundle(model, fitting, tmp_path / "bundle", bars)
    sized = load_bundle(tmp_path / "bundle")
    golden.preflight(sized, tmp_path / "bundle")
    loaded = getattr(sized, "inner", sized)
    assert isinstance(loaded, BoostedModel)
    for name in ("positions", "forecast", "expected_return"):
        assert np.array_equal(getattr(loaded, name)(bars), getattr(model, name)(bars), equal_nan=True)
    assert loaded.reading == model.reading
    assert loaded.bars_needed == model.bars_needed
    (tmp_path / "bundle" / READING).write_text("{}")
    with pytest.raises(BundleCorrupt, match=r"reading\.json"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("label", CHOICES)
def test_rows_without_a_look_back_have_no_answer(label: str) -> None:
    bars = noise()
    model = fitted(bars, label, rounds=5)
    unknown = np.isnan(model.forecast(bars))
    assert unknown[: 720 if label == "meta" else 100].all()
    assert not unknown[800:].any()
    assert not model.positions(bars)[unknown].any()
    assert np.isnan(model.expected_return(bars)[unknown]).all()


def test_labels_of_the_calibration_begin_after_those_of_the_stopping_have_ended() -> None:
    metrics = fitted(noise(), "direction").train_metrics
    whole = fitted(noise(), "direction", calibrate=False).train_metrics
    assert metrics["fit_rows"] == whole["fit_rows"]
    # labels end seven bars after their rows
    assert metrics["validation_rows"] + metrics["calibration_rows"] == whole["validation_rows"] - 7
    assert whole["calibration_rows"] == 0


def test_a_fit_too_sure_of_itself_is_calibrated() -> None:
    """A single deep tree on noise, unshrunk: probabilities far from even, and worse than a coin later on."""
    bars = noise()
    first = 3_500
    sure = {"max_depth": 8, "min_child_weight": 1, "learning_rate": 1.0, "rounds": 1, "reg_lambda": 0.1}
    rises = direction(bars, 6).values[first:]
    losses = []
    for calibrate in (False, True):
        forecast = fitted(bars[:first], "direction", calibrate=calibrate, **sure).forecast(bars)[first:]
        given = np.where(rises > 0.5, forecast, 1 - forecast)
        losses.append(-np.log(given[~np.isnan(rises)]).mean())
    assert losses[0] > 1.05 * np.log(2)
    assert losses[1] < (losses[0] + np.log(2)) / 2


def test_expected_returns_have_the_size_of_the_returns_that_follow() -> None:
    bars = momentum()
    first = 4_000
    for label in DIRECT:
        model = fitted(bars[:first], label)
        expected = model.expected_return(bars)[first:-8]
        moved = forward_return(bars, 6).values[first:-8]
        slope = np.cov(expected, moved)[0, 1] / expected.var()
        assert 0.5 < slope < 2, label


def test_a_half_life_makes_the_newest_rows_decide() -> None:
    """A market that goes on at first and turns back later: a short half-life learns the present."""
    rng = np.random.default_rng(8)
    returns = list(rng.normal(0, 0.01, 8))
    for bar, shock in enumerate(rng.normal(0, 0.01, 5_992)):
        sign = 1 if bar < 3_400 else -1
        returns.append(shock + 0.003 * sign * np.sign(sum(returns[-8:])))
    bars = series(np.array(returns), 9)
    first = 4_600
    params = {"validation_fraction": 0.05, "early_stopping_rounds": 150, "rounds": 80}
    forecasts = [
        fitted(bars[:first], "direction", **params, age_half_life=age).forecast(bars) for age in (0, 300)
    ]
    equal, aged = (skill(bars, forecast, first, 6) for forecast in forecasts)
    assert aged > 2 > equal


def test_stored_parameters_without_a_label_are_those_of_the_old_rule() -> None:
    stored = own_params(stored_params(ModelType.XGBOOST, {"max_depth": 4}))
    assert stored == {**OLDER_PARAMS.meaning, **OLDER_LEAVES.meaning, "max_depth": 4}
    assert recipe(ModelType.XGBOOST, stored, Costs()).describe()["label"] == "sign"
    assert recipe(ModelType.XGBOOST, {"max_depth": 4}, Costs()).describe()["label"] != "sign"


def test_too_few_bars_name_the_number_needed() -> None:
    with pytest.raises(NotEnoughBars, match="to calibrate on") as refused:
        fitted(noise()[:700], "direction", validation_fraction=0.1)
    assert refused.value.needed is not None
    assert fitted(noise()[: refused.value.needed], "direction", validation_fraction=0.1)


@pytest.mark.parametrize("timeframe", ["1h", "1d"])
def test_trees_at_their_defaults_state_the_bars_that_a_fit_needs(timeframe: str) -> None:
    step = Timeframe(timeframe)
    time = np.arange(len(noise()), dtype=np.int64) * step.nanoseconds
    bars = replace(noise(), timeframe=step, time=time)
    of_kind = recipe(ModelType.LIGHTGBM, {"rounds": 3}, Costs())
    assert isinstance(of_kind, StatesBarsToFit)
    needed = of_kind.bars_to_fit(bars[:300])
    assert of_kind.fit(bars[:needed], seed=0)
    with pytest.raises(NotEnoughBars):
        of_kind.fit(bars[: needed - needed // 20], seed=0)
