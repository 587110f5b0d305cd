"""Training: key of the results, the recipe of the leak test, and results that are complete."""

from pathlib import Path

import pytest
from trainings import a_spec

from clm_core.backtest import sentinel
from clm_core.domain.costs import MarketCosts
from clm_core.market.bars import Bars
from clm_core.models.bundle import verify_bundle
from clm_core.models.contract import Recipe
from clm_core.models.sizing import unsized_recipe
from clm_core.models.trees.boosting import ROUNDS_OF_FOLDS, BoostingRecipe
from clm_core.retraining import training
from clm_core.retraining.training import TrainingSpec
from clm_core.services import Services

QUICK = {"rounds": 2}


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())


def ignore(step: str, share: float) -> None:
    pass


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param(a_spec(QUICK), True, id="the same"),
        pytest.param(a_spec({"rounds": 3}), False, id="parameters"),
        pytest.param(a_spec(QUICK, seeds=2), False, id="seeds"),
        pytest.param(a_spec(QUICK).model_copy(update={"costs": MarketCosts(fee_bps=9)}), False, id="costs"),
    ],
)
def test_the_results_key_depends_on_spec_and_data(other: TrainingSpec, same: bool) -> None:
    assert (training.results_key(other, "data") == training.results_key(a_spec(QUICK), "data")) is same
    assert training.results_key(other, "other data") != training.results_key(a_spec(QUICK), "data")


def test_the_leak_test_grows_as_many_trees_as_the_version_has(
    bars: Bars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = list[Recipe]()
    examine = sentinel.examine
    monkeypatch.setattr(
        sentinel, "examine", lambda recipe, *rest: tested.append(recipe) or examine(recipe, *rest)
    )
    training.train(a_spec({"rounds": 7}), bars, tmp_path, ignore)
    [recipe] = map(unsized_recipe, tested)
    assert isinstance(recipe, BoostingRecipe)
    metrics = training.read(tmp_path, bars).train_metrics
    assert recipe.fixed_rounds == metrics[ROUNDS_OF_FOLDS] == metrics["rounds"]


def test_results_with_a_damaged_bundle_are_not_complete(bars: Bars, tmp_path: Path) -> None:
    training.train(a_spec(QUICK), bars, tmp_path, ignore)
    assert training.is_complete(tmp_path)
    verify_bundle(tmp_path / training.BUNDLE)
    (tmp_path / training.BUNDLE / "trees.txt").write_text("tree\n")
    assert not training.is_complete(tmp_path)
