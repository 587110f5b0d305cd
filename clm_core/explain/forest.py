"""Trees of XGBoost and LightGBM as arrays, read from the content of their files.

A row goes left at a node if its value is at most the threshold. XGBoost compares in single precision and goes
left below the threshold: values are rounded to single precision, and thresholds are the next smaller number.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import ExplanationUnavailable
from clm_core.market.bars import Floats
from clm_core.models import catalog
from clm_core.models.contract import Model
from clm_core.models.sizing import unsized_model
from clm_core.models.trees.boosting import BoostedModel
from clm_core.models.trees.lightgbm import LightGBMTrees
from clm_core.models.trees.xgboost import parsed_booster

Nodes = NDArray[np.int32]

LEAF = -1
"""Child of a leaf."""
MISSING_NONE = 0
MISSING_ZERO = 1
MISSING_NAN = 2
"""Values that take the default direction: none (NaN counts as 0), 0 and NaN, or NaN."""
MARGINS: dict[str, Callable[[float], float]] = {
    "reg:squarederror": lambda score: score,
    "binary:logistic": lambda score: math.log(score / (1 - score)),
}
"""Margin of XGBoost's base score, by objective."""
CATEGORICAL = 1
MISSING_SHIFT = 2
DEFAULT_LEFT = 2
"""Bits of LightGBM's `decision_type`."""


class TreeNodes(NamedTuple):
    """Nodes of all trees in sequence, each array of shape (n_nodes,): an argument of compiled functions."""

    left: Nodes
    """Child for values up to the threshold; LEAF in a leaf."""
    right: Nodes
    feature: Nodes
    """Column compared; any in a leaf."""
    threshold: Floats
    default_left: NDArray[np.bool_]
    """True if a missing value goes left."""
    missing: NDArray[np.int8]
    """MISSING_NONE, MISSING_ZERO or MISSING_NAN."""
    cover: Floats
    """Training rows in the node: number, or sum of hessians."""
    value: Floats
    """Margin of a leaf; any in other nodes."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Sum of binary trees."""

    features: tuple[str, ...]
    """Names of the columns of the rows."""
    base: float
    """Margin before the first tree."""
    single: bool
    """True if values are rounded to single precision before the comparison."""
    roots: Nodes
    """Root of each tree, shape (n_trees,)."""
    nodes: TreeNodes


def forest_of(model: Model) -> Forest:
    """Trees of a fitted model.

    Raises:
        ExplanationUnavailable: the model is not made of trees, or has trees of an unknown sort.
    """
    boosted = boosted_of(model)
    return (
        lightgbm_forest(boosted.raw)
        if isinstance(boosted.trees, LightGBMTrees)
        else xgboost_forest(boosted.raw)
    )


def boosted_of(model: Model) -> BoostedModel:
    """The boosted trees of a model, below the sizing.

    Raises:
        ExplanationUnavailable: the model is not made of trees.
    """
    inner = unsized_model(model)
    if isinstance(inner, BoostedModel):
        return inner
    made_by = catalog.origin(model)
    raise ExplanationUnavailable(
        f"{made_by.name if made_by else model.model_type} has no trees: SHAP values exist for xgboost and "
        "lightgbm. `clm explain` shows the reliance on the features of other kinds"
    )


def xgboost_forest(raw: bytes) -> Forest:
    """Trees of XGBoost's file, binary (`.ubj`) or JSON.

    Raises:
        ExplanationUnavailable: a split is categorical, or the booster or its objective is of another sort.
    """
    booster = parsed_booster(raw, {"nthread": 1})
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    if learner["gradient_booster"]["name"] != "gbtree":
        raise _unavailable("XGBoost", f"the booster {learner['gradient_booster']['name']}")
    if objective not in MARGINS:
        raise _unavailable("XGBoost", f"the objective {objective}")
    trees = learner["gradient_booster"]["model"]["trees"]
    if any(tree["categories_nodes"] for tree in trees):
        raise _unavailable("XGBoost", "a categorical split")
    if any(tree["tree_param"]["size_leaf_vector"] not in ("0", "1") for tree in trees):
        raise _unavailable("XGBoost", "a vector in each leaf")
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    names = learner["feature_names"] or [f"f{n}" for n in range(booster.num_features())]
    sizes = [len(tree["left_children"]) for tree in trees]
    shift = np.repeat(_starts(sizes), sizes)

    def joined(name: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.concatenate([np.array(tree[name], kind) for tree in trees])

    left = joined("left_children", np.int32)
    conditions = joined("split_conditions", np.float32)
    leaf = left == LEAF
    nodes = TreeNodes(
        left=np.where(leaf, LEAF, left + shift).astype(np.int32),
        right=np.where(leaf, LEAF, joined("right_children", np.int32) + shift).astype(np.int32),
        feature=joined("split_indices", np.int32),
        threshold=np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64),
        default_left=joined("default_left", np.bool_),
        missing=np.full(len(left), MISSING_NAN, np.int8),
        cover=joined("sum_hessian", np.float64),
        value=conditions.astype(np.float64),
    )
    return Forest(tuple(names), MARGINS[objective](base), True, _starts(sizes), nodes)


def lightgbm_forest(raw: bytes) -> Forest:
    """Trees of LightGBM's text file.

    Raises:
        ExplanationUnavailable: a split is categorical, or a leaf or the sum of the trees is of another sort.
    """
    head, *sections = raw.decode().partition("\nend of trees")[0].split("\nTree=")
    header = _fields(head)
    if header["num_tree_per_iteration"] != "1":
        raise _unavailable("LightGBM", "several trees for each round")
    if "average_output" in head.split("\n"):
        raise _unavailable("LightGBM", "a mean of the trees in place of their sum")
    trees = [_fields(section) for section in sections]
    if any(tree["num_cat"] != "0" for tree in trees):
        raise _unavailable("LightGBM", "a categorical split")
    if any(tree["is_linear"] != "0" for tree in trees):
        raise _unavailable("LightGBM", "a linear model in each leaf")
    splits = [int(tree["num_leaves"]) - 1 for tree in trees]
    # splits come before the leaves of a tree; child -1 is the first leaf
    sizes = [2 * count + 1 for count in splits]
    starts = _starts(sizes)

    def joined(of_splits: str, of_leaves: str, kind: type[np.generic]) -> NDArray[Any]:
        parts = list[NDArray[Any]]()
        for tree, count in zip(trees, splits, strict=True):
            parts.append(_numbers(tree, of_splits, count, kind))
            parts.append(_numbers(tree, of_leaves, count + 1, kind))
        return np.concatenate(parts)

    def children(name: str) -> Nodes:
        parts = list[NDArray[Any]]()
        for tree, count, start in zip(trees, splits, starts, strict=True):
            child = _numbers(tree, name, count, np.int32)
            parts.append(start + np.where(child < 0, count - 1 - child, child))
            parts.append(np.full(count + 1, LEAF))
        return np.concatenate(parts).astype(np.int32)

    decision = joined("decision_type", "", np.int8)
    nodes = TreeNodes(
        left=children("left_child"),
        right=children("right_child"),
        feature=joined("split_feature", "", np.int32),
        threshold=joined("threshold", "", np.float64),
        default_left=decision & DEFAULT_LEFT != 0,
        missing=decision >> MISSING_SHIFT,
        cover=joined("internal_count", "leaf_count", np.float64),
        value=joined("", "leaf_value", np.float64),
    )
    return Forest(tuple(header["feature_names"].split(" ")), 0.0, False, starts, nodes)


def _unavailable(library: str, what: str) -> ExplanationUnavailable:
    return ExplanationUnavailable(
        f"trees of {library} with {what} have no SHAP values here: use permutation importance"
    )


def _starts(sizes: Sequence[int]) -> Nodes:
    """Number of the first node of each tree."""
    return np.cumsum([0, *sizes[:-1]]).astype(np.int32)


def _fields(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.split("\n") if "=" in line)


def _numbers(tree: dict[str, str], name: str, count: int, kind: type[np.generic]) -> NDArray[Any]:
    """Numbers of a field; zeros if absent: a tree of a single leaf has neither splits nor counts."""
    if not tree.get(name):
        return np.zeros(count, kind)
    return np.array(tree[name].split(" "), np.float64).astype(kind)
