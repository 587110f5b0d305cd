"""Importance of features, by SHAP values and by permutation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.domain.costs import Costs
from clm_core.domain.errors import ExplanationUnavailable
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.explain.importance import (
    Importance,
    block_order,
    changed_positions,
    concordance,
    importances_of,
    permutation_importance,
)
from clm_core.explain.tree_shap import ShapValues
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.contract import Change

NAN = float("nan")


def test_importances_are_sorted_and_tell_the_direction_of_a_feature() -> None:
    shap = ShapValues(("a", "b"), np.array([[0.5, -3.0], [0.5, -1.0], [-0.5, 1.0], [-0.5, 3.0]]), base=0.1)
    rows = np.array([[7.0, 1.0], [7.0, 2.0], [7.0, 3.0], [7.0, 4.0]])
    assert importances_of(shap, rows) == (
        Importance("b", mean_absolute=2.0, share=0.8, when_high=3.0, when_low=-3.0),
        Importance("a", mean_absolute=0.5, share=0.2, when_high=0.0, when_low=0.0),
    )


def test_values_of_nothing_have_no_share_and_missing_rows_no_direction() -> None:
    [nothing] = importances_of(ShapValues(("a",), np.zeros((2, 1)), base=0.0), np.array([[NAN], [NAN]]))
    assert (nothing.share, nothing.mean_absolute) == (0.0, 0.0)
    assert np.isnan([nothing.when_high, nothing.when_low]).all()


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 99))
def test_shuffled_rows_are_all_rows_in_whole_blocks(n_rows: int, block: int, seed: int) -> None:
    order = block_order(n_rows, block, np.random.default_rng(seed))
    assert sorted(order) == list(range(n_rows))
    breaks = int(np.count_nonzero(np.diff(order) != 1))
    assert breaks <= n_rows // block + 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 1, 1], [1, 1, 1], 1.0),
        ([1, 1, 1], [0, 0, 0], 0.0),
        ([1, -1, 1, -1], [1, 1, -1, -1], 0.0),
        ([1, -1], [-1, 1], -1.0),
        ([1, -1], [0.5, -0.5], 0.8),
    ],
    ids=["equal", "equal constants", "other constants", "unrelated", "opposite", "half the scale"],
)
def test_concordance_counts_direction_scale_and_mean(
    one: list[float], other: list[float], expected: float
) -> None:
    assert concordance(np.array(one, float), np.array(other, float)) == pytest.approx(expected)


def test_a_model_relies_on_the_features_it_reads_and_on_no_others() -> None:
    values = np.random.default_rng(1).normal(size=(2_000, 3))

    def positions(change: Change) -> Floats:
        changed = change(values)
        return np.tanh(2 * changed[:, 1] + changed[:, 0])

    first, second, third = permutation_importance("abc", positions, seed=3, block=24, shuffles=4)
    assert [first.feature, second.feature, third.feature] == ["b", "a", "c"]
    assert 1.0 > first.mean > second.mean > 0.1
    assert (third.mean, third.deviation) == (0.0, 0.0)
    assert permutation_importance("abc", positions, seed=3, block=24, shuffles=4)[0] == first


@pytest.mark.parametrize("kind", [ModelType.XGBOOST, ModelType.LIGHTGBM])
def test_positions_of_trees_depend_on_the_features_with_shap_values(kind: ModelType, bars: Bars) -> None:
    params = {"features": ["close_z_48", "return_z_24"], "horizon": 6, "rounds": 5}
    model = catalog.recipe(kind, params, Costs()).fit(bars, seed=1)
    positions = changed_positions(model, bars)
    assert np.array_equal(positions(lambda values: values), model.positions(bars))
    reliances = permutation_importance(
        ["close_z_48", "return_z_24"], positions, seed=3, block=168, shuffles=2
    )
    assert reliances[0].mean > 0.05


def test_a_kind_without_features_says_so_by_name(bars: Bars) -> None:
    model = catalog.strategy(RuleFamily.MOMENTUM).recipe({}, Costs()).fit(bars, seed=1)
    with pytest.raises(ExplanationUnavailable, match="momentum names no features"):
        changed_positions(model, bars)
