from dataclasses import replace

import pytest
from kind_cases import CASES

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, MissingExtra, ModelError
from clm_core.domain.search_space import Between, Tuned
from clm_core.domain.vocabulary import ModelType
from clm_core.models import catalog
from clm_core.models.catalog import recipe
from clm_core.models.trees import xgboost

TUNABLE = [kind for kind in catalog.kinds() if kind is not ModelType.ENSEMBLE]


@pytest.mark.parametrize("model_type", catalog.kinds())
def test_a_recipe_is_of_the_requested_type_and_takes_numbers_as_text(model_type: ModelType):
    params = CASES[model_type].params
    found = recipe(model_type, {name: str(v) if type(v) is int else v for name, v in params.items()}, Costs())
    assert found.model_type is model_type
    assert params.items() <= found.describe().items()


@pytest.mark.parametrize("model_type", catalog.kinds())
def test_a_wrong_parameter_is_refused_without_bars(model_type: ModelType):
    with pytest.raises(InvalidTrainingParams, match="speed"):
        recipe(model_type, {"speed": 9}, Costs())


def test_a_type_without_an_implementation_names_those_that_have_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "_modules", lambda: {ModelType.XGBOOST: "clm_core.models.trees.xgboost"})
    with pytest.raises(ModelError, match="lightgbm has no implementation yet; choose one of xgboost"):
        recipe(ModelType.LIGHTGBM, {}, Costs())


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "find_spec", lambda library: None)
    with pytest.raises(MissingExtra, match=r"xgboost is not installed\. Install it with: pip install"):
        recipe(ModelType.XGBOOST, {}, Costs())


def tried(tuned: Tuned) -> list[object]:
    """The outermost values."""
    if isinstance(tuned.values, Between):
        bounds = (tuned.values.low, tuned.values.high)
        return [int(bound) if tuned.whole else bound for bound in bounds]
    return list(tuned.values.choices)


@pytest.mark.parametrize("model_type", TUNABLE)
def test_what_a_tuning_tries_can_be_trained_and_the_default_is_among_it(model_type: ModelType):
    for name, tuned in catalog.search_space(model_type).items():
        for value in tried(tuned):
            assert recipe(model_type, {name: value}, Costs()).describe()[name] == value
        if isinstance(tuned.values, Between):
            assert tuned.values.low <= tuned.default <= tuned.values.high
        else:
            assert tuned.default in tuned.values.choices


def test_a_kind_of_model_without_anything_to_tune_says_how_to_change_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xgboost, "KIND", replace(xgboost.KIND, search_space=dict))
    with pytest.raises(ModelError, match="xgboost names no parameter to tune"):
        catalog.search_space(ModelType.XGBOOST)


@pytest.mark.parametrize(
    "model_type", [ModelType.NHITS, ModelType.PATCHTST, ModelType.RL_V2, ModelType.RL_V3]
)
def test_what_torch_has_trained_says_which_torch(model_type: ModelType):
    assert "torch" in catalog.distributions(recipe(model_type, {}, Costs()))
