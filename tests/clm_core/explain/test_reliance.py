"""Permutation importance of every kind, on a series whose edge is carried by one feature."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted_edges import FEATURE, planted_bars

from clm_core.domain.costs import Costs
from clm_core.domain.errors import ExplanationUnavailable, NotEnoughBars
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.explain.importance import inputs_of
from clm_core.explain.reliance import FeatureReliances, explain_reliance, reliance_section
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.contract import Model
from clm_core.models.pooled import fit_pool, view_of

OTHERS = ("hour_sin", "weekday_cos", "close_z_48")
"""Features without an edge."""
FREE = {"fee_bps": 0, "slippage_bps": 0}
PLAYED = {"checks": 2, "memory": 24, **FREE}
KINDS: dict[ModelType, dict[str, Any]] = {
    ModelType.XGBOOST: {"rounds": 30, "horizon": 6},
    ModelType.LIGHTGBM: {"rounds": 30, "horizon": 6},
    ModelType.NHITS: {
        "steps": 40,
        "learning_rate": 0.01,
        "input_size": 4,
        "dropout": 0.0,
        "horizon": 6,
        "hidden_size": 16,
        "round_trip_bps": 0.0,
        "shrink": False,
    },
    ModelType.RL_V2: {"bars_played": 10_000, "margin": 0, **PLAYED},
    ModelType.RL_V3: {"bars_played": 20_000, **PLAYED},
}


@pytest.fixture(scope="module")
def planted() -> Bars:
    return planted_bars()


def fitted(kind: ModelType, bars: Bars) -> Model:
    params = {**KINDS[kind], "features": (FEATURE, *OTHERS), "sizing": "none"}
    return catalog.recipe(kind, params, Costs()).fit(bars, seed=1)


def ranked(reliances: FeatureReliances) -> list[str]:
    return [each.feature for each in reliances.features]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_feature_with_the_edge_is_first_and_those_without_come_far_behind(
    kind: ModelType, planted: Bars
) -> None:
    reliances = explain_reliance(fitted(kind, planted), planted)
    first, second, *_ = reliances.features
    assert first.feature == FEATURE
    assert first.mean > 0.5
    assert second.mean < first.mean / 3
    assert {*OTHERS} < {*ranked(reliances)}


def test_a_network_of_returns_relies_on_returns_alone(planted: Bars) -> None:
    small = {"steps": 4, "input_size": 16, "patch_len": 8, "layers": 1, "hidden_size": 16, "sizing": "none"}
    params = {**small, "round_trip_bps": 0.0, "shrink": False}
    model = catalog.recipe(ModelType.PATCHTST, params, Costs()).fit(planted, seed=1)
    [only] = explain_reliance(model, planted).features
    assert only.feature == "log_return_1"
    assert only.mean > 0.1


def test_each_member_of_a_pool_is_explained_on_its_own_bars(planted: Bars) -> None:
    other = replace(planted_bars(seed=6), symbol="OTHER")
    params = {**KINDS[ModelType.LIGHTGBM], "features": (FEATURE, *OTHERS)}
    recipe = catalog.pooling(catalog.recipe(ModelType.LIGHTGBM, params, Costs()))
    model = fit_pool(recipe, Panel("both", (planted, other)), seed=1)
    for bars in (planted, other):
        reliances = explain_reliance(view_of(model, bars.symbol), bars)
        assert (reliances.symbol, ranked(reliances)[0]) == (bars.symbol, FEATURE)


def test_sizing_is_part_of_the_positions_compared(planted: Bars) -> None:
    sized = catalog.recipe(ModelType.LIGHTGBM, KINDS[ModelType.LIGHTGBM], Costs()).fit(planted, seed=1)
    with pytest.raises(NotEnoughBars, match="0 whose positions can be compared, and 168 are needed"):
        explain_reliance(sized, planted[:1_000])


def test_a_section_names_the_first_feature_and_counts_those_without_effect(planted: Bars) -> None:
    reliances = explain_reliance(fitted(ModelType.XGBOOST, planted), planted)
    unused = replace(
        reliances, features=(*reliances.features, replace(reliances.features[0], feature="f", mean=0.0))
    )
    section = reliance_section(unused)
    assert section.sentences[0].startswith(f"The positions rely most on {FEATURE}: shuffled, they lose 0.")
    assert section.sentences[0].endswith("Without effect on the positions: 1 of 5 features.")
    assert [row[0] for row in section.tables[0].rows] == ranked(reliances)
    json.dumps([section.values, section.charts[0].figure], allow_nan=False)
    nothing = replace(reliances, features=unused.features[-1:])
    assert reliance_section(nothing).sentences[0] == (
        "No shuffle of a feature changes a position: 1 features were shuffled."
    )


def test_a_change_reaches_the_bars_with_every_feature_alone(planted: Bars) -> None:
    model = inputs_of(fitted(ModelType.RL_V3, planted))
    seen = list[int]()

    def count(values: Any) -> Any:
        seen.append(len(values))
        assert not np.isnan(values).any()
        return values

    model.with_changed_inputs(count).positions(planted)
    assert seen == [len(planted) - 47]


def test_rules_have_no_features_and_say_so_by_name(planted: Bars) -> None:
    model = catalog.strategy(RuleFamily.BREAKOUT).recipe({}, Costs()).fit(planted, seed=1)
    with pytest.raises(ExplanationUnavailable, match="breakout names no features"):
        explain_reliance(model, planted)
