"""Sections about a model, in a retrain and on demand."""

import numpy as np
import pytest
from kind_cases import member
from planted_edges import FEATURE, planted_bars

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.models.contract import TrainedOn
from clm_core.models.policies.reinforcement import Normaliser, PolicyModel
from clm_core.models.policies.rl_v3 import PPOParams
from clm_core.models.policies.trading import PolicyNetwork
from clm_core.retraining.model_sections import model_sections, or_reason, sections_on_demand

OUTPUT = (np.array([[1.0], [-1.0]]), np.zeros(1))
"""Last layer of a policy: the first unit less the second."""
TREES = {"rounds": 5, "horizon": 6, "features": [FEATURE, "hour_sin"], "sizing": "none"}


@pytest.fixture(scope="module")
def bars() -> Bars:
    return planted_bars()


def test_an_ensemble_is_explained_by_member_with_name_and_weight(bars: Bars) -> None:
    two = [member(ModelType.LIGHTGBM, **TREES), member(ModelType.LIGHTGBM, **TREES) | {"version": "v2"}]
    params = {"members": two, "weights": [3, 1]}
    model = catalog.recipe(ModelType.ENSEMBLE, params, Costs()).fit(bars, seed=1)
    sections = sections_on_demand(model, bars, rows=100)
    assert [each.name for each in sections] == ["features-1", "reliance-1", "features-2", "reliance-2"]
    assert sections[0].title == "Features: lightgbm_btcusd_1h@v20251204_143022, weight 0.75"
    assert sections[2].title == "Features: lightgbm_btcusd_1h@v2, weight 0.25"
    assert [each.values["features"][0]["feature"] for each in sections] == [FEATURE] * 4
    assert [each.name for each in model_sections(model, bars, rows=100)] == ["features-1", "features-2"]
    alone = sections_on_demand(model, bars, rows=100, only="features-1")
    assert [each.name for each in alone] == ["features-1", "features-2"]


def test_a_rule_says_of_each_section_why_there_is_none(bars: Bars) -> None:
    model = catalog.strategy(RuleFamily.MOMENTUM).recipe({}, Costs()).fit(bars, seed=1)
    features, relied = sections_on_demand(model, bars, rows=100)
    assert features.sentences[0].startswith("momentum has no trees")
    assert relied.sentences[0].startswith("momentum names no features")
    assert (features.values, relied.values) == ({}, {})


def test_a_policy_is_shown_over_the_two_features_it_relies_on_most(bars: Bars) -> None:
    params = PPOParams(features=("body", FEATURE, "hour_sin"), fee_bps=0, slippage_bps=0)
    weights = np.array([[0.5], [1.0], [0.0], [0.0], [0.0]])
    network = PolicyNetwork(np.hstack([weights, -weights]), *(np.zeros(2), np.eye(2), np.zeros(2)), *OUTPUT)
    normaliser = Normaliser(np.zeros(3), np.array([0.005, 1.0, 1.0]), 0.005)
    model = PolicyModel(params, TrainedOn.of(bars, 1), {}, normaliser, network)
    features, relied, policy = sections_on_demand(model, bars, rows=100)
    assert features.sentences[0].startswith("rl_v3 has no trees")
    assert [each["feature"] for each in relied.values["features"]] == [FEATURE, "body", "hour_sin"]
    assert policy.values["features"] == [FEATURE, "body"]
    assert [each.name for each in sections_on_demand(model, bars, 100, only="policy")] == [
        "features",
        "policy",
    ]


def test_too_few_bars_are_a_reason_and_other_errors_are_errors() -> None:
    def too_few() -> None:
        raise NotEnoughBars("no bar has every feature")

    def broken() -> None:
        raise ZeroDivisionError

    section = or_reason("features", "Features", too_few)  # type: ignore[arg-type]
    assert section.sentences == ("no bar has every feature.",)
    with pytest.raises(ZeroDivisionError):
        or_reason("features", "Features", broken)  # type: ignore[arg-type]
