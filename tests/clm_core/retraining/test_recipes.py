"""Recipe of a job: what makes two versions of a model a refresh or a replacement."""

from typing import Any

import pytest
from records import a_job

from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.models import catalog
from clm_core.retraining.recipes import recipe_of


def job(model_type: ModelType = ModelType.LIGHTGBM, **changes: Any) -> TrainingJob:
    params = catalog.requested_params(model_type, changes.pop("training_params", {}), changes.get("plugin"))
    return a_job(model_type=model_type, training_params=params, **changes)


def digest(of: TrainingJob) -> str:
    plan = WalkForwardPlan().for_request(of.dataset_span_days, of.dataset_span_days)
    return recipe_of(of, plan, NEW_VERSIONS).digest


@pytest.mark.parametrize("model_type", [each for each in catalog.kinds() if each is not ModelType.ENSEMBLE])
def test_a_later_job_with_newer_bars_and_another_seed_has_the_same_recipe(model_type: ModelType) -> None:
    later = job(model_type, data_snapshot="7b" * 32, seed=9, requested_by="schedule")
    assert digest(later) == digest(job(model_type))


def test_a_default_written_out_makes_no_other_recipe() -> None:
    assert digest(job(training_params={"rounds": 500, "sizing.max_position": 1.0})) == digest(job())


def test_a_recipe_without_a_turnover_limit_is_that_of_before_there_were_limits() -> None:
    older = catalog.requested_params(ModelType.LIGHTGBM, {})
    del older["sizing"]["max_turnover"]
    plan = WalkForwardPlan().for_request(365, 365)
    recipe = recipe_of(job(), plan, NEW_VERSIONS)
    assert recipe.params["sizing"].keys() == older["sizing"].keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"training_params": {"rounds": 501}},
        {"training_params": {"label": "triple_barrier"}},
        {"training_params": {"sizing.target_volatility": 0.2}},
        {"training_params": {"sizing.max_turnover": 60}},
        {"training_params": {"execution.stop_loss": 0.05}},
        {"training_params": {"features": ["log_return_1", "rsi_14"]}},
        {"dataset_span_days": 366},
        {"symbol": "ETHUSD"},
        {"timeframe": "4h"},
        {"symbol": "TWO", "symbols": ("AAAUSD", "BBBUSD"), "data_snapshots": ("5a" * 32,) * 2},
        {"model_type": ModelType.XGBOOST},
    ],
    ids=lambda changes: ", ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_a_change_of_the_recipe_changes_the_digest(changes: dict[str, Any]) -> None:
    assert digest(job(**changes)) != digest(job())


def test_the_order_of_a_pools_members_makes_no_other_recipe() -> None:
    snapshots = ("5a" * 32, "6b" * 32)
    pool = {"symbol": "TWO", "data_snapshots": snapshots}
    first = job(**pool, symbols=("AAAUSD", "BBBUSD"))
    assert digest(job(**pool, symbols=("BBBUSD", "AAAUSD"))) == digest(first)


def member(version: str, **params: Any) -> dict[str, Any]:
    return {
        "asked": "lightgbm_btcusd_1h@production",
        "model_id": "lightgbm_btcusd_1h",
        "version": version,
        "model_type": "lightgbm",
        "plugin": None,
        "params": catalog.requested_params(ModelType.LIGHTGBM, params),
        "bundle_digest": version.ljust(64, "0"),
    }


def test_an_ensemble_of_retrained_members_has_the_same_recipe_and_one_of_changed_members_another() -> None:
    other = member("v9") | {"model_id": "lightgbm_b_1h"}

    def ensemble(first: dict[str, Any]) -> str:
        return digest(a_job(model_type=ModelType.ENSEMBLE, training_params={"members": [first, other]}))

    assert ensemble(member("v2")) == ensemble(member("v1"))
    assert ensemble(member("v2", rounds=7)) != ensemble(member("v1"))
    before_limits = member("v1")
    del before_limits["params"]["sizing"]["max_turnover"]
    assert ensemble(member("v2")) == ensemble(before_limits)


def test_a_changed_plugin_makes_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    ridge = job(ModelType.OTHER, plugin="ridge")
    before = digest(ridge)
    monkeypatch.setattr(catalog.plugins, "code_digest", lambda name: "0" * 64)
    assert digest(ridge) != before
