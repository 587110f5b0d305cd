"""SHAP values of trees: by hand, by brute force, and against XGBoost, LightGBM and shap."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.domain.costs import Costs
from clm_core.domain.errors import ExplanationUnavailable, FeatureMismatch
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.explain.forest import (
    LEAF,
    MISSING_NAN,
    Forest,
    TreeNodes,
    boosted_of,
    forest_of,
    lightgbm_forest,
    xgboost_forest,
)
from clm_core.explain.tree_shap import BLOCK, shap_values
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.models import catalog

NAN = float("nan")
Node = tuple[int, float, "Node", "Node"] | tuple[float, float]
"""Feature, threshold and children of a split, or value and cover of a leaf."""


def forest(*trees: Node, features: int) -> Forest:
    """Forest whose missing values go right."""
    columns: list[list[float]] = []

    def add(node: Node) -> int:
        number = len(columns)
        columns.append([])
        if len(node) == 2:
            value, cover = node
            columns[number] = [LEAF, LEAF, 0, 0.0, cover, value]
            return number
        feature, threshold, left, right = node
        first = add(left)
        second = add(right)
        cover = columns[first][4] + columns[second][4]
        columns[number] = [first, second, feature, threshold, cover, 0.0]
        return number

    roots = np.array([add(tree) for tree in trees], np.int32)
    left, right, feature, threshold, cover, value = np.array(columns).T
    nodes = TreeNodes(
        left.astype(np.int32),
        right.astype(np.int32),
        feature.astype(np.int32),
        threshold.copy(),
        np.zeros(len(left), np.bool_),
        np.full(len(left), MISSING_NAN, np.int8),
        cover.copy(),
        value.copy(),
    )
    return Forest(tuple(f"f{each}" for each in range(features)), 0.0, False, roots, nodes)


def expectation(node: Node, row: Floats, known: frozenset[int]) -> float:
    if len(node) == 2:
        return node[0]
    feature, threshold, left, right = node
    if feature in known:
        return expectation(left if row[feature] <= threshold else right, row, known)
    weights = cover_of(left), cover_of(right)
    sides = expectation(left, row, known), expectation(right, row, known)
    return (weights[0] * sides[0] + weights[1] * sides[1]) / sum(weights)


def cover_of(node: Node) -> float:
    return node[1] if len(node) == 2 else cover_of(node[2]) + cover_of(node[3])


def by_brute_force(node: Node, row: Floats) -> list[float]:
    """Shapley values by the definition, over all subsets of the other features."""
    n = len(row)

    def value(feature: int) -> float:
        others = [each for each in range(n) if each != feature]
        total = 0.0
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - 1 - size) / math.factorial(n)
            for subset in combinations(others, size):
                known = frozenset(subset)
                gain = expectation(node, row, known | {feature}) - expectation(node, row, known)
                total += weight * gain
        return total

    return [value(feature) for feature in range(n)]


def trees(features: int, depth: int) -> st.SearchStrategy[Node]:
    leaf: st.SearchStrategy[Node] = st.tuples(st.floats(-5, 5), st.floats(1, 100))
    if depth == 0:
        return leaf
    below = trees(features, depth - 1)
    split = st.tuples(st.integers(0, features - 1), st.sampled_from([-1.0, 0.0, 1.0]), below, below)
    return st.one_of(leaf, split)


FEATURES = 4
rows = st.lists(st.sampled_from([-2.0, -0.5, 0.5, 2.0]), min_size=FEATURES, max_size=FEATURES).map(np.array)


def test_a_tree_of_depth_two_has_the_shapley_values_worked_by_hand() -> None:
    # 10 of 40 rows go left at the root, 15 of the other 30 left below
    tree: Node = (0, 0.0, (1.0, 10.0), (1, 0.0, (3.0, 15.0), (7.0, 15.0)))
    shapley = shap_values(forest(tree, features=2), np.array([[1.0, 1.0]]))
    # v() = 4, v(0) = 5, v(1) = 1/4 * 1 + 3/4 * 7 = 5.5, v(0, 1) = 7
    assert shapley.base == pytest.approx(4.0)
    assert shapley.values[0] == pytest.approx([(1.0 + 1.5) / 2, (1.5 + 2.0) / 2])


@given(trees(FEATURES, 4), rows)
def test_values_are_those_of_the_definition(tree: Node, row: Floats) -> None:
    shapley = shap_values(forest(tree, features=FEATURES), row[None])
    assert shapley.values[0] == pytest.approx(by_brute_force(tree, row), abs=1e-12)


@given(st.lists(trees(FEATURES, 3), min_size=1, max_size=3), rows)
def test_values_and_base_add_up_to_the_margin_and_unused_features_have_none(
    several: list[Node], row: Floats
) -> None:
    shapley = shap_values(forest(*several, features=FEATURES + 1), np.append(row, 1.0)[None])
    everything = frozenset(range(FEATURES))
    assert shapley.margins[0] == pytest.approx(sum(expectation(each, row, everything) for each in several))
    assert shapley.values[0, FEATURES] == 0.0


@given(trees(2, 4), st.sampled_from([-2.0, -0.5, 0.5, 2.0]))
def test_features_that_play_the_same_part_have_the_same_value(tree: Node, value: float) -> None:
    swapped = shap_values(forest(tree, exchanged(tree), features=2), np.array([[value, value]]))
    assert swapped.values[0, 0] == pytest.approx(swapped.values[0, 1], abs=1e-12)


def exchanged(node: Node) -> Node:
    """Tree with the features 0 and 1 exchanged."""
    return node if len(node) == 2 else (1 - node[0], node[1], exchanged(node[2]), exchanged(node[3]))


def test_rows_are_explained_alike_alone_and_among_others() -> None:
    tree: Node = (0, 0.0, (1.0, 10.0), (1, 0.0, (3.0, 15.0), (0, 1.0, (7.0, 5.0), (9.0, 10.0))))
    values = np.random.default_rng(1).normal(size=(2 * BLOCK + 3, 2))
    together = shap_values(forest(tree, features=2), values).values
    alone = [shap_values(forest(tree, features=2), each[None]).values[0] for each in values[-5:]]
    assert np.array_equal(together[-5:], alone)
    assert shap_values(forest(tree, features=2), values[:0]).values.shape == (0, 2)


def test_rows_with_other_columns_than_the_trees_are_refused() -> None:
    with pytest.raises(FeatureMismatch, match="trees of 2 features"):
        shap_values(forest((0.0, 1.0), features=2), np.zeros((1, 3)))


def sample(missing: float) -> tuple[Floats, Floats]:
    """Rows with ties and zeros, a share of the values missing, and a target with interactions."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(600, 5)).round(1)
    target = values[:, 0] * values[:, 1] + np.abs(values[:, 2]) + rng.normal(size=600)
    values[rng.random(values.shape) < missing] = NAN
    return values, target


XGBOOST = [
    pytest.param({"objective": "reg:squarederror", "base_score": 3.0}, 0.1, id="squared error"),
    pytest.param({"objective": "binary:logistic"}, 0.1, id="logistic"),
    pytest.param({"objective": "binary:logistic", "max_depth": 12, "min_child_weight": 0}, 0.0, id="deep"),
]


@pytest.mark.parametrize(("params", "missing"), XGBOOST)
def test_values_are_those_of_xgboost(params: dict[str, Any], missing: float) -> None:
    import xgboost

    values, target = sample(missing)
    if params["objective"] == "binary:logistic":
        target = (target > 0).astype(float)
    native = {"max_depth": 6, "nthread": 1, "seed": 1, "subsample": 0.5} | params
    booster = xgboost.train(native, xgboost.DMatrix(values, target, nthread=1), 20)
    # values unseen in training, and values on a threshold
    values[:100] = np.random.default_rng(6).normal(size=(100, 5))
    values[:5] = NAN
    matrix = xgboost.DMatrix(values, nthread=1)
    ours = shap_values(xgboost_forest(bytes(booster.save_raw("ubj"))), values)
    peer = booster.predict(matrix, pred_contribs=True)
    assert ours.values == pytest.approx(peer[:, :-1], abs=1e-4)
    assert ours.base == pytest.approx(peer[0, -1], abs=1e-5)
    assert ours.margins == pytest.approx(booster.predict(matrix, output_margin=True), abs=1e-5)


LIGHTGBM = [
    pytest.param({"objective": "regression"}, 0.1, id="regression"),
    pytest.param({"objective": "binary"}, 0.1, id="binary"),
    pytest.param({"objective": "binary", "num_leaves": 200, "min_data_in_leaf": 1}, 0.1, id="deep"),
    pytest.param({"objective": "regression", "zero_as_missing": True}, 0.1, id="zeros are missing"),
    pytest.param({"objective": "regression"}, 0.0, id="missing after the training"),
    pytest.param({"objective": "regression", "min_data_in_leaf": 10_000}, 0.0, id="no split"),
]


@pytest.mark.parametrize(("params", "missing"), LIGHTGBM)
def test_values_are_those_of_lightgbm(params: dict[str, Any], missing: float) -> None:
    import lightgbm

    values, target = sample(missing)
    if params["objective"] == "binary":
        target = (target > 0).astype(float)
    native = {
        "num_threads": 1,
        "verbosity": -1,
        "seed": 1,
        "deterministic": True,
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "min_data_in_leaf": 5,
    } | params
    booster = lightgbm.train(native, lightgbm.Dataset(values, target), 20)
    values[:100] = np.random.default_rng(6).normal(size=(100, 5)).round(1)
    values[:5] = NAN
    ours = shap_values(lightgbm_forest(booster.model_to_string().encode()), values)
    peer = booster.predict(values, pred_contrib=True, num_threads=1)
    assert ours.values == pytest.approx(peer[:, :-1], abs=1e-9)
    assert ours.base == pytest.approx(peer[0, -1], abs=1e-9)
    assert ours.margins == pytest.approx(booster.predict(values, raw_score=True, num_threads=1), abs=1e-9)


def test_values_are_those_of_shap() -> None:
    shap = pytest.importorskip("shap", reason="needs the extra `explain`")
    import lightgbm

    values, target = sample(0.0)
    booster = lightgbm.train({"num_threads": 1, "verbosity": -1}, lightgbm.Dataset(values, target), 20)
    ours = shap_values(lightgbm_forest(booster.model_to_string().encode()), values)
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    assert ours.values == pytest.approx(explainer.shap_values(values), abs=1e-6)
    assert ours.base == pytest.approx(float(np.ravel(explainer.expected_value)[0]), abs=1e-6)


@pytest.mark.parametrize("label", ["volatility_scaled_return", "direction"])
@pytest.mark.parametrize("kind", [ModelType.XGBOOST, ModelType.LIGHTGBM])
def test_values_of_a_fitted_model_add_up_to_its_answers(kind: ModelType, label: str, bars: Bars) -> None:
    params = {"features": ["close_z_48", "return_z_24"], "horizon": 6, "label": label, "rounds": 20}
    model = catalog.recipe(kind, params, Costs()).fit(bars, seed=1)
    boosted = boosted_of(model)
    table = compute_features(bars, boosted.params.features)
    known = table.values[table.complete]
    shapley = shap_values(forest_of(model), known)
    margins = shapley.margins if label == "volatility_scaled_return" else 1 / (1 + np.exp(-shapley.margins))
    assert shapley.features == boosted.params.features
    assert margins == pytest.approx(boosted.trees.answers(known), abs=1e-5)


def xgboost_of(params: dict[str, Any], categories: bool = False) -> bytes:
    import xgboost

    target = np.arange(40.0) % 4
    kinds = ["c" if categories else "float"]
    matrix = xgboost.DMatrix(target[:, None], target, nthread=1, feature_types=kinds, enable_categorical=True)
    return bytes(xgboost.train({"nthread": 1} | params, matrix, 2).save_raw("ubj"))


@pytest.mark.parametrize(
    ("params", "categories", "named"),
    [
        ({}, True, "a categorical split"),
        ({"objective": "count:poisson"}, False, "the objective count:poisson"),
        ({"booster": "dart"}, False, "the booster dart"),
        ({"objective": "multi:softprob", "num_class": 4}, False, "the objective multi:softprob"),
    ],
)
def test_trees_of_xgboost_without_values_are_refused_by_name(
    params: dict[str, Any], categories: bool, named: str
) -> None:
    with pytest.raises(ExplanationUnavailable, match=named):
        xgboost_forest(xgboost_of(params, categories))


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"min_data_per_group": 1, "cat_smooth": 0}, "a categorical split"),
        ({"linear_tree": True}, "a linear model in each leaf"),
        ({"objective": "multiclass", "num_class": 4}, "several trees for each round"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "a mean of the trees"),
    ],
)
def test_trees_of_lightgbm_without_values_are_refused_by_name(params: dict[str, Any], named: str) -> None:
    import lightgbm

    target = np.arange(40.0) % 4
    native = {"num_threads": 1, "verbosity": -1, "min_data_in_leaf": 1, "min_data_in_bin": 1} | params
    categories = [0] if "cat_smooth" in params else []
    data = lightgbm.Dataset(target[:, None], target, params=native, categorical_feature=categories)
    raw = lightgbm.train(native, data, 2).model_to_string().encode()
    with pytest.raises(ExplanationUnavailable, match=named):
        lightgbm_forest(raw)


def test_a_model_without_trees_is_refused_by_name(bars: Bars) -> None:
    model = catalog.strategy(RuleFamily.MOMENTUM).recipe({}, Costs()).fit(bars, seed=1)
    with pytest.raises(ExplanationUnavailable, match="momentum has no trees"):
        forest_of(model)
