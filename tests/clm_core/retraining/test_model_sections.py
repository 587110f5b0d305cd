"""Sections about a model, in a retrain and on demand."""

import pytest
from kind_cases import member
from planted_edges import FEATURE, planted_bars

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.retraining.model_sections import model_sections, or_reason, sections_on_demand

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


def test_too_few_bars_are_a_reason_and_other_errors_are_errors() -> None:
    def too_few() -> None:
        raise NotEnoughBars("no bar has every feature")

    def broken() -> None:
        raise ZeroDivisionError

    section = or_reason("features", "Features", too_few)  # type: ignore[arg-type]
    assert section.sentences == ("no bar has every feature.",)
    with pytest.raises(ZeroDivisionError):
        or_reason("features", "Features", broken)  # type: ignore[arg-type]
