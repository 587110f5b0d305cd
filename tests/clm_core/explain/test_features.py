"""The section of features: charts that stay small, and numbers that sum."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clm_core.domain.costs import Costs
from clm_core.domain.explanations import Section
from clm_core.domain.vocabulary import ModelType
from clm_core.explain.feature_charts import SWARM_WIDTH, beside, ranks, thinned
from clm_core.explain.features import explain_features, features_section
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.models import catalog

NAN = float("nan")


@pytest.fixture(scope="module")
def section(bars: Bars) -> Section:
    params = {"horizon": 6, "rounds": 5}
    model = catalog.recipe(ModelType.XGBOOST, params, Costs()).fit(bars, seed=1)
    return features_section(explain_features(model, bars, rows=300))


def test_the_newest_values_are_those_of_the_whole_series(bars: Bars) -> None:
    model = catalog.recipe(ModelType.XGBOOST, {"horizon": 6, "rounds": 5}, Costs()).fit(bars, seed=1)
    importances = explain_features(model, bars, rows=50)
    table = compute_features(bars, importances.shap.features)
    np.testing.assert_allclose(importances.values, table.values[table.complete][-50:], rtol=1e-9, atol=1e-12)
    assert (importances.rows, importances.end) == (50, bars.end)


def test_base_and_parts_of_the_newest_bar_add_up_to_the_last_step_of_the_waterfall(section: Section) -> None:
    chart = next(each for each in section.charts if each.name == "waterfall")
    steps = chart.figure["data"][0]
    answer = section.values["base"] + sum(each["shap"] for each in section.values["newest"].values())
    assert (steps["y"][0], steps["y"][-1]) == ("base", "answer")
    assert steps["x"][-1] == pytest.approx(answer, abs=1e-4)
    assert sum(steps["x"][:-1]) == pytest.approx(answer, abs=2e-3)


def test_charts_have_no_nan_and_take_less_than_a_hundred_kilobytes(section: Section) -> None:
    figures = [each.figure for each in section.charts]
    assert len(json.dumps(figures, allow_nan=False)) < 100_000
    assert [each.name for each in section.charts] == [
        "bars",
        "beeswarm",
        "dependence-1",
        "dependence-2",
        "waterfall",
    ]


def test_a_beeswarm_draws_the_same_number_of_bars_for_each_feature(section: Section) -> None:
    [points] = section.charts[1].figure["data"]
    drawn = len(section.charts[1].figure["layout"]["yaxis"]["ticktext"])
    assert len(points["x"]) == len(points["y"]) == len(points["marker"]["color"]) == 150 * drawn


@given(arrays(np.float64, st.integers(1, 80), elements=st.floats(-5, 5)))
def test_points_of_a_beeswarm_stay_on_their_own_line(values: Floats) -> None:
    places = beside(values)
    assert np.abs(places).max() <= SWARM_WIDTH + 1e-12
    like = places[values == values[0]]
    assert len(np.unique(like)) == len(like)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([3.0, 1.0, 2.0], [1.0, 0.0, 0.5]),
        ([1.0, 1.0, 2.0], [0.25, 0.25, 1.0]),
        ([1.0, NAN, 2.0], [0.0, 0.5, 1.0]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([NAN, NAN], [0.5, 0.5]),
    ],
    ids=["order", "equal values", "a missing value", "a constant", "nothing known"],
)
def test_a_colour_is_the_rank_of_the_value(column: list[float], expected: list[float]) -> None:
    assert ranks(np.array(column)).tolist() == expected


@given(st.integers(1, 500), st.integers(2, 60))
def test_thinned_rows_reach_from_the_first_to_the_last(count: int, max_count: int) -> None:
    rows = thinned(count, max_count)
    assert (rows[0], rows[-1]) == (0, count - 1)
    assert len(rows) == min(count, max_count)
