"""Trees weighted towards a regime of the market."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, SeriesMissing
from clm_core.domain.recipes import regime_of
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.market.look_ahead import other_futures
from clm_core.market.panel import Panel
from clm_core.market.planted import planted_bars
from clm_core.market.regimes import regimes, with_regimes
from clm_core.market.sample_weights import regime_weights
from clm_core.models import catalog
from clm_core.models.contract import Model, Pooling
from clm_core.models.params import needs_regimes
from clm_core.models.sizing import unsized_recipe

QUICK = {"rounds": 5, "horizon": 6}


@pytest.fixture(scope="module")
def whole() -> Bars:
    return planted_bars(16_000, seed=1)


@pytest.fixture(scope="module")
def bars(whole: Bars) -> Bars:
    """The newest bars, with the regimes of the whole series."""
    return with_regimes(whole[-2_500:], whole)


def fit(bars: Bars, model_type: ModelType = ModelType.LIGHTGBM, **params: Any) -> Model:
    return catalog.recipe(model_type, QUICK | params, Costs()).fit(bars, 7)


@pytest.mark.parametrize("model_type", [ModelType.XGBOOST, ModelType.LIGHTGBM], ids=str)
def test_a_training_towards_a_regime_gives_another_model_and_says_the_weights(
    bars: Bars, model_type: ModelType
) -> None:
    even = fit(bars, model_type)
    calm = fit(bars, model_type, regime="calm")
    turbulent = fit(bars, model_type, regime="turbulent")
    answers = {model.forecast(bars).tobytes() for model in (even, calm, turbulent)}
    assert len(answers) == 3
    assert "regime_rows" not in even.train_metrics
    rows = calm.train_metrics["regime_rows"] + turbulent.train_metrics["regime_rows"]
    assert rows == calm.train_metrics["fit_rows"]
    for model in (calm, turbulent):
        share = model.train_metrics["regime_rows"] / rows
        expected = 4 * share / (4 * share + 1 - share)
        assert model.train_metrics["regime_share_of_weight"] == pytest.approx(expected, abs=0.02)


def test_rows_of_the_regime_weigh_four_times_as_much_and_unknown_ones_as_others() -> None:
    assert regime_weights(np.array([-1, 0, 1], dtype=np.int8), 1).tolist() == [1.0, 1.0, 4.0]


def test_the_regimes_of_a_fold_are_those_known_then(whole: Bars) -> None:
    fold = slice(13_500, 15_600)
    known = with_regimes(whole[fold], whole)
    assert set(np.unique(known.regime)) == {0, 1}
    for change, future in other_futures(whole, fold.stop - 1):
        assert with_regimes(future[fold], future).content_hash == known.content_hash, change


def test_parts_of_bars_keep_their_regimes_and_the_hash_tells_them_apart(whole: Bars, bars: Bars) -> None:
    labels = regimes(whole).labels
    part = bars[100:200].under(1)
    assert part.regime is not None
    assert part.regime.tolist() == labels[-2_400:-2_300].tolist()
    plain = whole[-2_500:]
    assert (
        len({plain.content_hash, bars.content_hash, replace(bars, regime=1 - labels[-2_500:]).content_hash})
        == 3
    )
    with pytest.raises(ValueError, match="2 regimes for 2500 bars"):
        replace(bars, regime=labels[:2])


def test_a_recipe_without_a_regime_is_described_as_before_there_were_regimes() -> None:
    for params in ({}, {"regime": None}, {"regime": "none"}):
        described = catalog.recipe(ModelType.XGBOOST, params, Costs()).describe()
        assert "regime" not in described
        assert not needs_regimes(described)
    described = catalog.recipe(ModelType.XGBOOST, {"regime": "calm"}, Costs()).describe()
    assert described["regime"] == regime_of(described) == "calm"
    assert needs_regimes(described)
    assert needs_regimes({"members": [{"params": described, "plugin": None}]})
    # a plug-in may have a parameter of the name
    assert not needs_regimes(described, "ridge")
    assert not needs_regimes({"members": [{"params": described, "plugin": "ridge"}, "a@b"]})


@pytest.mark.parametrize(
    ("model_type", "plugin", "params", "why"),
    [
        (ModelType.RL_V3, None, {}, "its fit has no weights of bars.* one of xgboost, lightgbm"),
        (ModelType.OTHER, "momentum", {}, "a rule is not fitted, its parameters are the whole rule"),
        (ModelType.ENSEMBLE, None, {"members": "a@b,c@d"}, "its members are, each by its own parameters"),
        (ModelType.LIGHTGBM, None, {"regime": "wild"}, "'calm' or 'turbulent'"),
    ],
    ids=["no weights", "a rule", "an ensemble", "an unknown regime"],
)
def test_a_regime_is_refused_where_none_can_be_trained_towards(
    model_type: ModelType, plugin: str | None, params: dict[str, str], why: str
) -> None:
    with pytest.raises(InvalidTrainingParams, match=why):
        catalog.recipe(model_type, {"regime": "calm"} | params, Costs(), plugin)


def test_bars_without_regimes_and_pools_are_refused(whole: Bars, bars: Bars) -> None:
    with pytest.raises(SeriesMissing, match="with_regimes"):
        fit(whole[-2_500:], regime="calm")
    recipe = catalog.recipe(ModelType.LIGHTGBM, {"regime": "calm"}, Costs())
    with pytest.raises(InvalidTrainingParams, match="a pool cannot be trained towards one"):
        catalog.pooling(recipe)
    inner = unsized_recipe(recipe)
    assert isinstance(inner, Pooling)
    with pytest.raises(InvalidTrainingParams, match="a pool cannot be trained towards one"):
        inner.fit_panel(Panel("POOL", (bars, replace(bars, symbol="OTHER"))), 7)
