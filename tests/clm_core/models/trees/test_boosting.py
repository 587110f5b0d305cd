import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.market.features import FEATURES, LOOK_BACK
from clm_core.market.signals import hold_signals
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.skill import skill_metrics
from clm_core.models.trees.boosting import BoostedModel, BoostingRecipe
from clm_core.models.trees.lightgbm import LightGBMParams, LightGBMRecipe
from clm_core.models.trees.xgboost import XGBoostParams, XGBoostRecipe, parsed_booster
from clm_core.testing.tick_walks import mirror_image, tick_walk

LIBRARIES = [pytest.param(XGBoostParams, id="xgboost"), pytest.param(LightGBMParams, id="lightgbm")]
Params = type[XGBoostParams] | type[LightGBMParams]
HOUR = Timeframe.H1.nanoseconds
SIGN = {
    "label": "sign",
    "uniqueness_weights": False,
    "calibrate": False,
    "horizon": 24,
    "threshold": 0.02,
}
"""The rule of versions made before there was a choice of labels."""


def recipe_of(params: XGBoostParams | LightGBMParams) -> BoostingRecipe:
    priced = params.with_costs(Costs())
    return XGBoostRecipe(priced) if isinstance(priced, XGBoostParams) else LightGBMRecipe(priced)


def stretches_of(lengths: list[int]) -> Bars:
    """Bars with arbitrary prices and an outage between stretches."""
    rows = np.concatenate([np.arange(length) + 1000 * k for k, length in enumerate(lengths)])
    ones = [np.ones(len(rows)) for _ in range(5)]
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, rows.astype(np.int64) * HOUR, *ones)


def hold_by_loop(signals: NDArray[np.int64], lengths: list[int], horizon: int) -> list[float]:
    positions = []
    start = 0
    for length in lengths:
        stretch = signals[start : start + length]
        positions += [sum(stretch[max(0, t - horizon + 1) : t + 1]) / horizon for t in range(length)]
        start += length
    return positions


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    horizon=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_a_position_is_the_mean_of_the_last_signals_of_the_same_stretch(
    lengths: list[int], horizon: int, seed: int
):
    signals = np.random.default_rng(seed).integers(-1, 2, sum(lengths))
    positions = hold_signals(signals, stretches_of(lengths), horizon)
    assert positions.tolist() == hold_by_loop(signals, lengths, horizon)


def test_the_bars_needed_suffice_for_the_same_positions(bars: Bars):
    model = recipe_of(XGBoostParams(**{**SIGN, "rounds": 60, "horizon": 12})).fit(bars, seed=0)
    full = model.positions(bars)
    rows = range(1000, len(bars), 20)
    live = [model.positions(bars[t + 1 - model.bars_needed : t + 1])[-1] for t in rows]
    assert model.bars_needed == 805 + 12
    assert live == full[rows].tolist()


@pytest.mark.parametrize(("standstill", "horizon"), [(0.0, 24), (0.5, 4), (0.8, 1)])
@pytest.mark.parametrize("label", ["sign", "volatility_scaled_return", "direction", "triple_barrier"])
def test_mean_positions_on_a_driftless_walk_and_its_mirror_image_add_up_to_about_nothing(
    label: str, standstill: float, horizon: int
):
    params = {"rounds": 20, "label": label, "horizon": horizon, "calibrate": label != "sign"}
    recipe = recipe_of(LightGBMParams.parse(params | {"threshold": 0.01 if label == "sign" else 0}))
    sums = []
    for seed in range(6):
        walk = tick_walk(3_000, standstill, seed)
        both = (walk, mirror_image(walk))
        sums.append(sum(recipe.fit(prices, seed).positions(prices).mean() for prices in both))
    assert abs(np.mean(sums)) <= 4 * np.std(sums, ddof=1) / np.sqrt(6) + 0.05, sums


def test_ties_are_left_out_of_the_fit_and_counted():
    bars = tick_walk(2_000, 0.8, seed=0)
    params = XGBoostParams(rounds=5, horizon=1, label="direction", calibrate=False)
    metrics = recipe_of(params).fit(bars, seed=0).train_metrics
    labelled = 2_000 - LOOK_BACK - 2
    assert metrics["ties"] == pytest.approx(0.8 * labelled, rel=0.05)
    assert metrics["fit_rows"] + metrics["validation_rows"] + metrics["ties"] <= labelled


@pytest.mark.parametrize("library", LIBRARIES)
def test_signs_follow_the_forecast_beyond_the_threshold(library: Params, bars: Bars):
    model = recipe_of(library(**{**SIGN, "rounds": 40, "horizon": 1})).fit(bars, seed=0)
    forecast = model.forecast(bars)
    positions = model.positions(bars)
    assert np.all(positions[forecast >= 0.52] == 1)
    assert np.all(positions[forecast <= 0.48] == -1)
    assert np.all(positions[np.abs(forecast - 0.5) < 0.02] == 0)
    assert {-1.0, 0.0, 1.0} == set(positions)


@pytest.mark.parametrize("label", ["sign", "direction"])
def test_long_only_stays_flat_in_place_of_short_positions(label: str, bars: Bars):
    params = {"rounds": 40, "horizon": 1, "label": label}
    params |= {"calibrate": False} if label == "sign" else {}
    both = recipe_of(XGBoostParams(**params)).fit(bars, seed=0)
    long_only = recipe_of(XGBoostParams(**params, long_only=True)).fit(bars, seed=0)
    assert np.array_equal(long_only.positions(bars), np.maximum(both.positions(bars), 0))


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameters_as_text_parse_to_the_same_values(library: Params):
    text = {"rounds": "5", "learning_rate": "0.1", "long_only": "true", "features": "rsi_14, log_return_1"}
    typed = library(rounds=5, learning_rate=0.1, long_only=True, features=("log_return_1", "rsi_14"))
    assert library.parse(text) == typed


@pytest.mark.parametrize(
    ("library", "params", "complaint"),
    [
        (XGBoostParams, {"max_dept": 5}, "max_dept.*Valid parameters: .*max_depth"),
        (XGBoostParams, {"num_leaves": 5}, "num_leaves.*Valid parameters: .*max_depth"),
        (LightGBMParams, {"max_depth": 5}, "max_depth.*Valid parameters: .*num_leaves"),
        (XGBoostParams, {"max_depth": 0}, "max_depth.*greater than or equal to 1"),
        (XGBoostParams, {"max_depth": "deep"}, "max_depth.*integer"),
        (XGBoostParams, {"learning_rate": 0}, "learning_rate.*greater than 0"),
        (XGBoostParams, {"learning_rate": float("nan")}, "learning_rate.*finite"),
        (LightGBMParams, {"reg_lambda": float("inf")}, "reg_lambda.*finite"),
        (LightGBMParams, {"threshold": 0.5}, "threshold.*less than 0.5"),
        (LightGBMParams, {"validation_fraction": 0.9}, "validation_fraction"),
        (LightGBMParams, {"features": "rsi_14,moon_phase"}, "features.*moon_phase.*log_return_1"),
        (LightGBMParams, {"features": ""}, "features"),
        (LightGBMParams, {"label": "magic"}, "label.*direction.*triple_barrier.*meta"),
        (XGBoostParams, {"horizon": "soon"}, "horizon.*auto"),
        (XGBoostParams, {"horizon": 0}, "horizon.*greater than or equal to 1"),
        (XGBoostParams, {"age_half_life": -1}, "age_half_life.*greater than or equal to 0"),
        (XGBoostParams, {"barrier": 0}, "barrier.*greater than 0"),
        (XGBoostParams, {"label": "sign"}, "calibrate=false and a horizon in bars"),
    ],
)
def test_invalid_parameters_are_named_together_with_the_valid_parameters(
    library: Params, params: dict[str, object], complaint: str
):
    with pytest.raises(InvalidTrainingParams, match=complaint):
        library.parse(params)


def test_features_default_to_all_and_are_described_by_name():
    assert recipe_of(XGBoostParams()).describe()["features"] == list(FEATURES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_the_chosen_features_are_used(library: Params, bars: Bars):
    chosen = ("volatility_24", "rsi_14")
    model = recipe_of(library(rounds=10, features=chosen)).fit(bars, seed=0)
    assert set(model.importances()) <= set(chosen)


@pytest.mark.parametrize("library", LIBRARIES)
def test_boosting_stops_where_the_validation_rows_stop_improving(library: Params, bars: Bars):
    late_stop = {"learning_rate": 0.3, "min_child_weight": 1, "rounds": 200, "early_stopping_rounds": 200}
    late_stop |= SIGN
    stopped = fitted(library, bars, {**late_stop, "early_stopping_rounds": 5})
    assert stopped.train_metrics["rounds"] < 100
    assert (
        fitted(library, bars, late_stop).train_metrics["validation_log_loss"]
        <= (stopped.train_metrics["validation_log_loss"])
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_seed_decides_which_rows_and_features_the_trees_see(library: Params, bars: Bars):
    recipe = recipe_of(library(rounds=10))
    forecasts = [recipe.fit(bars, seed).forecast(bars) for seed in (0, 1, 2**40)]
    assert not np.array_equal(forecasts[0], forecasts[1], equal_nan=True)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("label", ["volatility_scaled_return", "direction", "triple_barrier"])
def test_trees_that_cannot_split_stay_flat_and_name_no_feature(library: Params, label: str, bars: Bars):
    heavy = {"min_child_weight": 1e9, "leaf_share": 1.0}
    model = fitted(library, bars, {"rounds": 3, "label": label} | heavy)
    forecast = model.forecast(bars)
    assert np.ptp(forecast[~np.isnan(forecast)]) == 0
    assert not model.positions(bars).any()
    assert model.importances() == {}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("label", ["volatility_scaled_return", "direction"])
def test_trees_split_on_fewer_rows_than_two_leaves_of_the_least_weight(
    library: Params, label: str, bars: Bars
):
    few = bars[-700:]
    params = {"label": label, "horizon": 6, "rounds": 20}
    model = fitted(library, few, params)
    # half the rows are sampled for a tree, and 50 is the weight of 200 rows
    assert model.train_metrics["fit_rows"] / 2 < 2 * 200
    assert model.positions(few).any()
    # the meaning of parameters stored before leaves were limited
    assert not fitted(library, few, params | {"leaf_share": 1.0}).positions(few).any()


@pytest.mark.parametrize("library", LIBRARIES)
def test_leaves_hold_the_least_weight_where_rows_are_many(library: Params):
    params = library(label="direction", min_child_weight=50.0, leaf_share=0.25, subsample=0.5)
    assert [params.leaf_weight(rows) for rows in (800, 1_600, 50_000)] == [25.0, 50.0, 50.0]


@pytest.mark.parametrize("model_type", [ModelType.XGBOOST, ModelType.LIGHTGBM])
def test_stored_parameters_without_a_share_of_leaves_keep_the_least_weight(model_type: ModelType):
    stored = {"label": "direction", "rounds": 5}
    assert catalog.stored_params(model_type, stored)["leaf_share"] == 1.0
    assert catalog.requested_params(model_type, stored)["leaf_share"] == 0.25


def test_metrics_compare_the_trees_with_a_constant_forecast(bars: Bars):
    metrics = fitted(XGBoostParams, bars, {"rounds": 20, **SIGN}).train_metrics
    assert metrics["fit_rows"] > 4 * metrics["validation_rows"] * 0.9
    assert metrics["fit_log_loss"] < np.log(2)
    assert 0 < metrics["validation_log_loss_of_constant"] < 1


def test_labels_of_a_single_class_are_refused(bars: Bars):
    prices = np.linspace(100, 200, len(bars))
    rising = replace(
        bars,
        open=prices,
        close=prices.copy(),
        high=prices.copy(),
        low=prices.copy(),
        volume=np.ones(len(bars)),
    )
    with pytest.raises(NotEnoughBars, match="the same label"):
        recipe_of(XGBoostParams()).fit(rising, seed=0)


def test_the_file_of_trees_does_not_record_the_training_device(bars: Bars):
    model = fitted(XGBoostParams, bars, {"rounds": 2, "device": "cpu"})
    assert b"max_depth" not in model.raw
    assert b"device" not in model.raw


def test_importing_a_kind_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from clm_core.models import catalog\n"
        "declared = [catalog.declared(kind) for kind in catalog.kinds()]\n"
        "heavy = {'xgboost', 'lightgbm', 'torch', 'neuralforecast', 'stable_baselines3', 'mlflow'}\n"
        "print(all(declared), heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True set()"


def fitted(library: Params, bars: Bars, params: dict[str, Any]) -> BoostedModel:
    return recipe_of(library.parse(params)).fit(bars, seed=0)


@pytest.mark.parametrize("library", [XGBoostParams, LightGBMParams])
def test_the_learning_curve_has_its_lowest_loss_at_the_last_round_kept(
    library: type[XGBoostParams] | type[LightGBMParams], bars: Bars
) -> None:
    model = fitted(library, bars, {"rounds": 40, "early_stopping_rounds": 40, **SIGN})
    assert len(model.learning_curve) == 40
    assert np.argmin(model.learning_curve) + 1 == model.train_metrics["rounds"]
    assert min(model.learning_curve) == pytest.approx(model.train_metrics["validation_log_loss"], rel=1e-5)


@pytest.mark.parametrize("params", LIBRARIES)
def test_the_final_fit_grows_the_median_trees_of_the_folds_without_stopping(
    params: Params, bars: Bars
) -> None:
    recipe = recipe_of(params(early_stopping_rounds=1, rounds=500))
    folds = [{"rounds": float(rounds)} for rounds in (1, 30, 191, 20, 3)]
    model = recipe.following_folds(folds).fit(bars, seed=1)
    assert model.trees.rounds == 20
    assert model.train_metrics["rounds"] == model.train_metrics["rounds_of_folds"] == 20
    assert recipe.describe() == recipe.following_folds(folds).describe()


@pytest.mark.parametrize("params", LIBRARIES)
def test_a_stored_version_is_fitted_again_with_as_many_trees_or_stops_early_as_it_did(
    params: Params, bars: Bars
) -> None:
    recipe = recipe_of(params(rounds=40))
    final = recipe.following_folds([{"rounds": 7.0}, {"rounds": 12.0}])
    first = final.fit(bars, seed=1)
    assert recipe.as_fitted(first.train_metrics).fit(bars, seed=1).raw == first.raw
    of_earlier_release = {"rounds": 12.0}
    assert recipe.as_fitted(of_earlier_release) == recipe


@pytest.mark.parametrize("params", LIBRARIES)
def test_the_skill_is_the_gain_over_a_constant_with_the_error_of_labels_without_overlap(
    params: Params, bars: Bars
) -> None:
    metrics = fitted(params, bars, {"rounds": 5}).train_metrics
    loss, constant = (metrics[f"validation_squared_error{end}"] for end in ("", "_of_constant"))
    assert metrics["skill"] == pytest.approx(1 - loss / constant)
    assert 0 < metrics["skill_error"] < 1


def test_overlapping_labels_tell_no_more_than_those_without_overlap() -> None:
    losses = np.resize([1.0, 1.2], 480)
    constant = np.ones(480)
    tenfold = skill_metrics(losses, constant, 48)["skill_error"]
    assert tenfold == pytest.approx(0.1 / np.sqrt(48))
    assert skill_metrics(losses, constant, 480)["skill_error"] == pytest.approx(tenfold / np.sqrt(10))
    assert skill_metrics(losses, np.zeros(480), 48) == {}


def test_xgboost_is_imported_without_scikit_learn_which_others_may_import_afterwards() -> None:
    script = """
import sys
from clm_core.models.trees.xgboost import import_without_sklearn
import_without_sklearn()
print("xgboost" in sys.modules, "sklearn" in sys.modules)
from importlib.util import find_spec
assert find_spec("sklearn")
"""
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True False\n"


@pytest.mark.parametrize("params", LIBRARIES)
def test_answers_kept_for_the_next_question_are_those_of_the_same_model_and_bars(
    params: Params, bars: Bars
) -> None:
    one, other = (fitted(params, bars, {"rounds": rounds}) for rounds in (3, 9))
    parts = bars[:900], bars[:901]
    alone = [[model.forecast(part) for part in parts] for model in (one, other)]
    for part, forecasts in zip(parts, zip(*alone, strict=True), strict=True):
        for model, forecast in zip((one, other), forecasts, strict=True):
            model.positions(part)
            assert np.array_equal(model.forecast(part), forecast, equal_nan=True)


def test_rows_copied_by_xgboost_grow_the_same_trees_as_rows_binned_in_place(
    bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = fitted(XGBoostParams, bars, {"rounds": 8})
    monkeypatch.setattr("clm_core.models.trees.xgboost.MAX_ROWS_COPIED", 0)
    in_place = fitted(XGBoostParams, bars, {"rounds": 8})
    assert copied.raw == in_place.raw
    assert copied.learning_curve == in_place.learning_curve


def test_parsing_leaves_the_threads_of_openmp_to_the_caller() -> None:
    values = np.random.default_rng(0).normal(size=(300, 3))
    trained = xgboost.train({"nthread": 1}, xgboost.DMatrix(values, values[:, 0], nthread=1), 5)
    with xgboost.config_context(verbosity=2):
        parsed = parsed_booster(bytes(trained.save_raw("ubj")), {"nthread": 1})
        assert xgboost.get_config()["verbosity"] == 2
        assert xgboost.get_config()["nthread"] == 0
    assert parsed.inplace_predict(values).tobytes() == trained.inplace_predict(values).tobytes()
    with pytest.raises(xgboost.core.XGBoostError):
        parsed_booster(b"{abc", {})
