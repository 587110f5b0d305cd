import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from kind_cases import CASES

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, MissingExtra, ModelError
from clm_core.domain.execution import FIXED_UNITS, NEW_VERSIONS
from clm_core.domain.search_space import Between, SearchDimension
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.models import catalog, golden
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.catalog import recipe
from clm_core.models.kind import OlderParams
from clm_core.models.offer import offers
from clm_core.models.sizing import sections
from clm_core.models.trees import xgboost
from clm_core.settings import Settings
from deployments.definitions import target_deployments

TUNABLE = [kind for kind in catalog.kinds() if kind is not ModelType.ENSEMBLE]


@pytest.mark.parametrize("model_type", catalog.kinds())
def test_a_recipe_is_of_the_requested_type_and_takes_numbers_as_text(model_type: ModelType):
    params = CASES[model_type].params
    made = recipe(model_type, {name: str(v) if type(v) is int else v for name, v in params.items()}, Costs())
    assert made.model_type is model_type
    assert params.items() <= made.describe().items()


@pytest.mark.parametrize("model_type", catalog.kinds())
def test_a_wrong_parameter_is_refused_without_bars(model_type: ModelType):
    with pytest.raises(InvalidTrainingParams, match="speed"):
        recipe(model_type, {"speed": 9}, Costs())


def test_a_type_without_implementation_is_refused_with_the_types_to_choose(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(catalog, "_modules", lambda: {ModelType.XGBOOST: "clm_core.models.trees.xgboost"})
    with pytest.raises(ModelError, match="lightgbm has no implementation yet; choose one of xgboost"):
        recipe(ModelType.LIGHTGBM, {}, Costs())


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "find_spec", lambda library: None)
    with pytest.raises(MissingExtra, match=r"xgboost is not installed\. Install it with: pip install"):
        recipe(ModelType.XGBOOST, {}, Costs())


@pytest.fixture
def deeper_since_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """XGBoost as a kind whose parameter max_depth did not exist before: all trees were five deep and slow."""
    older = OlderParams("max_depth", {"max_depth": 5, "learning_rate": 0.001})
    monkeypatch.setattr(xgboost, "KIND", replace(xgboost.KIND, older_params=(older,)))


@pytest.mark.usefixtures("deeper_since_then")
def test_stored_parameters_without_a_marker_keep_their_meaning_and_a_request_gets_the_defaults():
    stored = catalog.stored_params(ModelType.XGBOOST, {"rounds": 7})
    requested = catalog.requested_params(ModelType.XGBOOST, {"rounds": 7})
    assert stored == {"rounds": 7, "max_depth": 5, "learning_rate": 0.001} | sections(None, FIXED_UNITS)
    assert requested == {"rounds": 7, "max_depth": 3} | sections(xgboost.KIND.sizing, NEW_VERSIONS)
    # once requested, stored for good
    assert catalog.stored_params(ModelType.XGBOOST, requested) == requested


def test_parameters_of_a_command_line_are_stored_with_their_types() -> None:
    typed = {"max_depth": 5, "learning_rate": 0.1, "regime": "calm", "sizing": {"max_turnover": 60.0}}
    written = {"max_depth": "5", "learning_rate": "0.1", "regime": "calm", "sizing": {"max_turnover": "60"}}
    requested = catalog.requested_params(ModelType.XGBOOST, written)
    assert requested == catalog.requested_params(ModelType.XGBOOST, typed)
    assert {name: type(requested[name]) for name in ("max_depth", "learning_rate")} == {
        "max_depth": int,
        "learning_rate": float,
    }


@pytest.mark.usefixtures("deeper_since_then")
def test_an_older_set_keeps_the_values_stored_with_it():
    stored = catalog.stored_params(ModelType.XGBOOST, {"learning_rate": 0.1})
    assert catalog.own_params(stored) == {"learning_rate": 0.1, "max_depth": 5}


def extremes(tuned: SearchDimension) -> list[object]:
    """Extreme values of a search range."""
    if isinstance(tuned.values, Between):
        bounds = (tuned.values.low, tuned.values.high)
        return [int(bound) if tuned.whole else bound for bound in bounds]
    return list(tuned.values.choices)


@pytest.mark.parametrize("model_type", TUNABLE)
def test_the_bounds_of_a_search_space_can_be_trained_and_contain_the_default(model_type: ModelType):
    for name, tuned in catalog.search_space(model_type).items():
        for value in extremes(tuned):
            assert recipe(model_type, {name: value}, Costs()).describe()[name] == value
        if isinstance(tuned.values, Between):
            assert tuned.values.low <= tuned.default <= tuned.values.high
        else:
            assert tuned.default in tuned.values.choices


def test_a_kind_without_tunable_parameters_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(xgboost, "KIND", replace(xgboost.KIND, search_space=dict))
    with pytest.raises(ModelError, match="xgboost names no parameter to tune"):
        catalog.search_space(ModelType.XGBOOST)


@pytest.mark.parametrize(
    "model_type", [ModelType.NHITS, ModelType.PATCHTST, ModelType.RL_V2, ModelType.RL_V3]
)
def test_kinds_trained_with_torch_record_the_version_of_torch(model_type: ModelType):
    assert "torch" in catalog.distributions(recipe(model_type, {}, Costs()))


MOMENTUM = """
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.models.contract import TrainedOn
from clm_core.models.kind import ModelKind
from clm_core.models.params import TrainingParams


class MomentumParams(TrainingParams):
    model_type: ClassVar[ModelType] = ModelType.PATCHTST

    span: Annotated[int, Between(2, 50)] = Field(default=10, ge=1)


@dataclass(frozen=True)
class MomentumModel:
    params: MomentumParams
    trained_on: TrainedOn
    model_type = ModelType.PATCHTST
    train_metrics = {}

    @property
    def bars_needed(self):
        return self.params.span + 1

    def positions(self, bars):
        before = np.roll(bars.close, self.params.span)
        before[: self.params.span] = bars.close[: self.params.span]
        return np.sign(bars.close - before)

    def forecast(self, bars):
        return np.full(len(bars), np.nan)

    def importances(self):
        return {}

    def save(self, folder):
        pass


@dataclass(frozen=True)
class MomentumRecipe:
    params: MomentumParams
    model_type = ModelType.PATCHTST

    def describe(self):
        return self.params.model_dump(mode="json")

    def fit(self, bars, seed, progress=None):
        return MomentumModel(self.params, TrainedOn.of(bars, seed))


KIND = ModelKind(
    recipe=lambda params, costs: MomentumRecipe(MomentumParams.parse(params)),
    load=lambda folder, card: MomentumModel(MomentumParams.parse(card.params), card.trained_on),
    library="numpy",
    seeds=2,
    search_space=MomentumParams.search_space,
    retrain_every=timedelta(hours=5),
)
"""


@pytest.fixture
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelType]:
    """A kind whose only file lies in a wing of its own."""
    wing = tmp_path / "dropped_wing"
    wing.mkdir()
    (wing / "__init__.py").write_text("")
    (wing / "patchtst.py").write_text(MOMENTUM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalog, "WINGS", ("clm_core.models.trees", "dropped_wing"))
    yield ModelType.PATCHTST
    for name in ("dropped_wing", "dropped_wing.patchtst"):
        sys.modules.pop(name, None)


def test_a_file_dropped_into_a_wing_is_trained_saved_loaded_tuned_listed_and_scheduled(
    dropped: ModelType, bars: Bars, tmp_path: Path
):
    assert catalog.kinds() == (ModelType.XGBOOST, ModelType.LIGHTGBM, dropped)
    momentum = recipe(dropped, {"span": "3"}, Costs())
    model = momentum.fit(bars, seed=0)
    digest = save_bundle(model, momentum, tmp_path / "bundle", bars)
    loaded = load_bundle(tmp_path / "bundle", digest)
    golden.preflight(loaded, tmp_path / "bundle")
    assert loaded.positions(bars).tolist() == model.positions(bars).tolist()
    assert list(catalog.search_space(dropped)) == ["span"]
    assert catalog.seeds(momentum) == 2
    [offer] = [each for each in offers() if each.kind.model_type is dropped]
    assert (offer.usable, offer.library) == (True, "numpy")
    deployed = target_deployments(Settings(home=tmp_path, universe=(Market(symbol="BTCUSD"),)))
    [retrain] = [each for each in deployed if each.name == "patchtst_btcusd_1h"]
    assert retrain.every == timedelta(hours=5)
