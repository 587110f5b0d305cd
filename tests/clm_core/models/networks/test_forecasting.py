import os
import random
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.backtest.sentinel import shuffle
from clm_core.decisions import gate
from clm_core.decisions.cases import Case
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.costs import Costs
from clm_core.domain.errors import (
    BundleCorrupt,
    FeatureMismatch,
    InvalidTrainingParams,
    ModelError,
    NotEnoughBars,
)
from clm_core.domain.evaluations import Decision
from clm_core.domain.execution import Execution
from clm_core.evidence.soundness import activity
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialCount
from clm_core.market.bars import Bars, Floats
from clm_core.models.bundle import read_card, save_bundle
from clm_core.models.networks.forecasting import (
    FILE,
    LEVELS,
    MIN_ROWS,
    ForecastModel,
    ForecastRecipe,
    probability_of_rise,
    recipe_of,
    training_windows,
)
from clm_core.models.networks.nhits import KIND, NHITSParams
from clm_core.models.networks.patchtst import PatchTSTParams

NETWORKS = [pytest.param(NHITSParams, id="nhits"), pytest.param(PatchTSTParams, id="patchtst")]
Params = type[NHITSParams] | type[PatchTSTParams]
QUICK = {"steps": 4, "check_steps": 2, "horizon": 6, "hidden_size": 8, "round_trip_bps": 1.0, "shrink": False}
ROUND_TRIP = 14.0
"""Basis points, at the default costs."""


def quick(network: Params, **changes: object) -> ForecastRecipe:
    return recipe_of(network.parse({**QUICK, **changes}), Costs())


@pytest.fixture(scope="module")
def model(bars: Bars) -> ForecastModel:
    return quick(NHITSParams).fit(bars, seed=0)


@pytest.mark.parametrize(
    ("network", "params", "complaint"),
    [
        (NHITSParams, {"step": 5}, "step.*Valid parameters: .*steps"),
        (NHITSParams, {"patch_len": 5}, "patch_len.*Valid parameters: .*features"),
        (PatchTSTParams, {"features": "rsi_14"}, "features.*Valid parameters: .*patch_len"),
        (NHITSParams, {"features": "moon_phase"}, "features.*moon_phase.*log_return_1"),
        (NHITSParams, {"horizon": 0}, "horizon.*greater than or equal to 1"),
        (NHITSParams, {"learning_rate": float("nan")}, "learning_rate.*finite"),
        (NHITSParams, {"dropout": 1}, "dropout.*less than 1"),
        (NHITSParams, {"device": "tpu"}, "device.*auto"),
        (PatchTSTParams, {"patch_len": 100}, "patch_len 100 is longer than input_size 96"),
        (PatchTSTParams, {"hidden_size": 30}, "hidden_size 30 is no multiple of heads 4"),
    ],
)
def test_invalid_parameters_are_named_together_with_the_valid_parameters(
    network: Params, params: dict[str, object], complaint: str
):
    with pytest.raises(InvalidTrainingParams, match=complaint):
        network.parse(params)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_has_just_enough_windows_on_the_bars_that_its_recipe_states(network: Params, bars: Bars):
    of_kind = recipe_of(network.parse({}), Costs())
    stretch = max(bars.stretches(), key=lambda rows: rows.stop - rows.start)
    needed = of_kind.bars_to_fit(bars)
    assert len(training_windows(bars[stretch][:needed], of_kind.params).fit) >= MIN_ROWS
    with pytest.raises(NotEnoughBars):
        training_windows(bars[stretch][: needed - needed // 20], of_kind.params)


def test_a_missing_gpu_is_refused_before_bars_are_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InvalidTrainingParams, match=r"torch finds no GPU here\. Use device=auto"):
        recipe_of(NHITSParams(device="cuda"), Costs())


def test_a_forecast_has_to_beat_the_round_trip_of_the_settings_by_default():
    assert recipe_of(NHITSParams(), Costs()).params.round_trip_bps == ROUND_TRIP
    assert recipe_of(NHITSParams(), Costs(fee_bps=1, slippage_bps=0.5)).params.round_trip_bps == 3
    assert recipe_of(NHITSParams.parse({"round_trip_bps": "7"}), Costs()).params.round_trip_bps == 7


@pytest.mark.parametrize(
    ("quantiles", "probability"),
    [
        (LEVELS - 0.5, 0.5),
        (LEVELS - 0.25, 0.75),
        (LEVELS + 1.0, 1 - LEVELS[0]),
        (LEVELS - 2.0, 1 - LEVELS[-1]),
        (np.zeros(9), 0.5),
        (np.array([-8.0, -7, -6, -5, -1, 3, 6, 7, 8]), 1 - (0.5 + 0.25 / 9)),
    ],
    ids=["even", "uniform", "all above", "all below", "all zero", "between two levels"],
)
def test_the_probability_of_a_rise_is_read_off_the_quantiles(quantiles: Floats, probability: float):
    assert probability_of_rise(quantiles[None])[0] == pytest.approx(probability, abs=1e-12)


@given(quantiles=st.lists(st.integers(-2, 2), min_size=9, max_size=9).map(np.sort))
def test_mirrored_quantiles_have_the_opposite_probability_with_ties_too(quantiles: Floats):
    probability = probability_of_rise(quantiles[None] / 1.0)[0]
    mirrored = probability_of_rise(-quantiles[None, ::-1] / 1.0)[0]
    assert mirrored == pytest.approx(1 - probability, abs=1e-12)


@given(
    quantiles=st.lists(st.floats(-3, 3), min_size=9, max_size=9).map(lambda q: np.sort(q) + LEVELS),
    shift=st.floats(-1e-5, 1e-5),
)
def test_a_small_change_of_quantiles_is_a_small_change_of_probability(quantiles: Floats, shift: float):
    # neighbouring quantiles are at least 1/9 apart, with a probability of 1/9 in between
    before, after = probability_of_rise(np.stack([quantiles, quantiles + shift]))
    assert abs(before - after) <= abs(shift) + 1e-12


def test_the_position_is_full_from_an_edge_beyond_cost_of_full_edge_on(
    model: ForecastModel,
):
    def signals(long_only: bool) -> list[float]:
        params = model.params.model_copy(
            update={"round_trip_bps": 100.0, "full_edge": 0.5, "long_only": long_only}
        )
        changed = ForecastModel(params, model.trained_on, {}, model.forecaster)
        # the cost is 0.5 of the unit
        return changed._signals(
            np.array([0.0, 0.4, -0.5, 0.75, -0.75, 1.0, 9.0, -9.0]), np.full(8, 0.02)
        ).tolist()

    assert signals(long_only=False) == pytest.approx([0, 0, 0, 0.5, -0.5, 1, 1, -1])
    assert signals(long_only=True) == pytest.approx([0, 0, 0, 0.5, 0, 1, 1, 0])


def test_quantiles_ascend_and_their_mean_is_the_expected_return(model: ForecastModel, bars: Bars):
    quantiles = model.quantiles(bars)
    expected = model.expected_return(bars)
    assert quantiles.shape == (len(bars), len(model.quantile_levels))
    known = ~np.isnan(expected)
    assert np.array_equal(known, ~np.isnan(quantiles).any(axis=1))
    assert (np.diff(quantiles[known], axis=1) >= 0).all()
    np.testing.assert_allclose(np.expm1(np.log1p(quantiles[known]).mean(axis=1)), expected[known], atol=1e-12)


def test_the_bars_of_the_look_back_alone_give_the_same_position_as_the_whole_history(bars: Bars):
    recipe = quick(PatchTSTParams, input_size=24)
    model = recipe.fit(bars, seed=0)
    full = model.positions(bars)
    needed = 96 + 24 + 6
    for row in (700, 1400, 2500):
        live = model.positions(bars[row + 1 - needed : row + 1])[-1]
        assert live == pytest.approx(full[row], abs=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_untrained_network_has_no_forecast_takes_no_position_and_fails_as_collapsed(
    network: Params, bars: Bars
):
    model = quick(network, learning_rate=1e-12, round_trip_bps=ROUND_TRIP).fit(bars, seed=0)
    forecast = model.forecast(bars)
    positions = model.positions(bars)
    assert np.nanmax(np.abs(forecast - 0.5)) < 1e-6
    result = backtest(bars, positions, Costs(), Execution())
    verdict = gate.judge(
        Case(
            summarise(result, bars.periods_per_year),
            activity(positions),
            track_record(result.returns),
            TrialCount(1, 1.0, 0.0),
            365.0,
            None,
        ),
        GatePolicy(name="strict"),
    )
    assert verdict.decision is Decision.FAIL
    assert "collapsed: 100.0% of its positions are flat" in verdict.reasons


@pytest.mark.parametrize("network", NETWORKS)
def test_a_fit_leaves_the_generators_and_threads_of_the_process_as_they_were(network: Params, bars: Bars):
    import torch

    def state() -> tuple[object, ...]:
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
        )

    before = state()
    quick(network).fit(bars[:1000], seed=5)
    assert state() == before


@pytest.mark.parametrize("by", ["key", "signal"])
def test_an_interrupted_training_raises_and_restores_the_signal_handler(by: str, bars: Bars):
    def interrupt(done: float) -> None:
        if by == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quick(NHITSParams).fit(bars, 0, interrupt)
    assert signal.getsignal(signal.SIGINT) is handler


def test_sigterm_ends_a_training(bars: Bars):
    with pytest.raises(SystemExit):
        quick(NHITSParams, steps=500).fit(bars, 0, lambda done: os.kill(os.getpid(), signal.SIGTERM))


def test_a_diverging_training_raises_an_error_with_the_parameter_to_change(bars: Bars):
    with pytest.raises(ModelError, match="lower learning_rate"):
        quick(NHITSParams, learning_rate=1.0, weight_decay=10.0, steps=2000, patience=2000).fit(bars, 0)


def test_shrinkage_drops_forecasts_learnt_from_noise(bars: Bars):
    noise = shuffle(bars, np.random.default_rng(3))
    overfitted = {"steps": 200, "patience": 200, "check_steps": 200, "learning_rate": 0.01}
    unshrunk = quick(NHITSParams, **overfitted).fit(noise, seed=0).train_metrics
    shrunk = quick(NHITSParams, **overfitted, shrink=True).fit(noise, seed=0).train_metrics
    name = "validation_quantile_loss"
    assert shrunk["trust"] <= 0.1 < unshrunk["trust"] == 1.0
    assert shrunk[name] <= shrunk[f"{name}_of_constant"] < unshrunk[name]


def test_training_stops_when_the_loss_no_longer_falls_and_keeps_the_best_weights(bars: Bars):
    model = quick(NHITSParams, steps=400, patience=3, learning_rate=0.01).fit(bars, seed=0)
    best = int(np.argmin(model.learning_curve))
    assert len(model.learning_curve) == best + 1 + 3
    assert model.train_metrics["steps"] == 2 * (best + 1)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def with_nan(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "base": np.full_like(tensors["base"], np.nan)}, path)


def from_another_network(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "base": tensors["base"][:3]}, path)


def without_base(path: Path) -> None:
    tensors = load_file(path)
    del tensors["base"]
    save_file(tensors, path)


@pytest.mark.parametrize("damage", [emptied, truncated, with_nan, from_another_network, without_base])
def test_damaged_weights_are_refused_with_a_remedy(
    damage: Callable[[Path], None], model: ForecastModel, bars: Bars, tmp_path: Path
):
    save_bundle(model, quick(NHITSParams), tmp_path, bars)
    damage(tmp_path / FILE)
    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors.*: train the model again"):
        KIND.load(tmp_path, read_card(tmp_path))


def test_a_card_names_the_torch_version_of_the_training(model: ForecastModel, bars: Bars, tmp_path: Path):
    save_bundle(model, quick(NHITSParams), tmp_path, bars)
    libraries = read_card(tmp_path).libraries
    assert (libraries["neuralforecast"], libraries["torch"]) == (version("neuralforecast"), version("torch"))


def test_features_unknown_to_the_installed_release_are_named(
    model: ForecastModel, bars: Bars, tmp_path: Path
):
    save_bundle(model, quick(NHITSParams), tmp_path, bars)
    card = read_card(tmp_path)
    older = card.model_copy(update={"params": {**card.params, "features": ["moon_phase"]}})
    with pytest.raises(FeatureMismatch, match="moon_phase"):
        KIND.load(tmp_path, older)


def test_a_warm_start_continues_the_older_model_and_keeps_the_feature_scales(bars: Bars):
    recipe = quick(NHITSParams, warm_start_steps=2, learning_rate=1e-12)
    older = recipe.fit(bars[:1400], seed=0)
    warm = recipe.fit_after(older, bars, seed=0)
    assert np.allclose(warm.positions(bars), older.positions(bars))
    assert warm.trained_on.bars == len(bars)
    assert not np.allclose(recipe.fit(bars, seed=0).forecaster.centre, older.forecaster.centre)
    assert np.array_equal(warm.forecaster.centre, older.forecaster.centre)
