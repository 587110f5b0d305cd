"""Exact SHAP values of trees, with path-dependent expectations, for a matrix of rows.

The expectation v(S) of a tree for a row whose features S alone are known follows the row at splits on S, and
takes both sides at other splits, weighted by the training rows (cover). A leaf contributes to v(S) its value
times, for each feature j on its path, o_j if j is in S and r_j otherwise: o_j is 1 if the row passes all the
splits on j and 0 if not, r_j is the product of the shares of the training rows that pass.

The Shapley value of feature i for the leaf, the mean of v(S + i) - v(S) over all orders of the features, is
an integral (Owen 1972, "Multilinear extensions of games"),

    value * integral over t from 0 to 1 of (o_i - r_i) * product over j != i of (o_j t + r_j (1 - t)),

over a polynomial of degree one less than the number of features on the path: the Gauss-Legendre rule with
half as many points is exact, and its weights are positive, so that it is stable on paths of any length. The
products are carried down a tree and the sums of the leaves up again, for a block of rows at once.

The values are those of Lundberg et al. (2020), "From local explanations to global understanding with
explainable AI for trees", Nature Machine Intelligence 2, algorithm 2, which XGBoost and LightGBM implement.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.domain.errors import FeatureMismatch
from clm_core.explain.forest import LEAF, MISSING_NONE, MISSING_ZERO, Forest, Nodes, TreeNodes
from clm_core.market.bars import Floats

Ints = NDArray[np.int64]

BLOCK = 128
"""Rows carried through a tree at once."""
ZERO = float(np.float32(1e-35))
"""Largest magnitude that LightGBM takes for 0."""

_compiled = njit(cache=True, nogil=True, error_model="numpy")


@dataclass(frozen=True, eq=False)
class ShapValues:
    """Contributions of features to the margins of rows: log-odds, or a scaled return."""

    features: tuple[str, ...]
    values: Floats
    """Shape (n_rows, n_features): base + the sum of a row is the margin of the row."""
    base: float
    """Expected margin of a row without known features."""

    @property
    def margins(self) -> Floats:
        """Margin of each row, shape (n_rows,)."""
        return np.asarray(self.base + self.values.sum(axis=1))


class Steps(NamedTuple):
    """Walk through all trees, parents before children and left before right; shape (n_steps,) each.

    The level of a node counts the splits above it.
    """

    node: Ints
    level: Ints
    split: Ints
    """Node above; -1 for a root."""
    earlier: Ints
    """Level below the last split further up on the feature of the split; 0 without such a split."""
    features: Ints
    """Different features of the splits above."""
    tree_end: Ints
    """End of the steps of each tree, exclusive, shape (n_trees,)."""


class Factors(NamedTuple):
    """Numbers of the steps of a tree at each point of the rule, shape (n_steps, n_points) each.

    Of a split: the factor of the product, and the contribution of the feature per total below the split.
    Both are sums of the terms of a row.
    """

    always: Floats
    """Term of the product for every row."""
    came: Floats
    """Term of the product for rows passing the earlier splits on the feature."""
    passes: Floats
    """Term of the product for rows passing the split too."""
    gain_came: Floats
    """Term of the contribution for rows passing the earlier splits on the feature."""
    gain_passes: Floats
    """Term of the contribution for rows passing the split too."""
    expected: float
    """Mean value of the leaves, weighted by the training rows."""


def shap_values(forest: Forest, rows: Floats) -> ShapValues:
    """SHAP values of rows.

    Args:
        rows: values of the features, shape (n_rows, n_features); NaN for a missing value.

    Raises:
        FeatureMismatch: the rows have another number of columns than the trees have features.
    """
    if rows.ndim != 2 or rows.shape[1] != len(forest.features):
        raise FeatureMismatch(
            f"rows of shape {rows.shape} do not fit trees of {len(forest.features)} features: give one "
            "column a feature, in the order of the trees' features"
        )
    columns = np.zeros((rows.shape[1], -(-len(rows) // BLOCK) * BLOCK))
    columns[:, : len(rows)] = rows.T.astype(np.float32) if forest.single else rows.T
    steps = _walk(forest.roots, forest.nodes)
    rules = _rules(int(steps.features.max()) + 1 >> 1)
    values, expected = _values(columns, forest.nodes, steps, *rules)
    return ShapValues(forest.features, values[:, : len(rows)].T.copy(), forest.base + expected)


@cache
def _rules(max_points: int) -> tuple[Floats, Floats]:
    """Points and weights of the Gauss-Legendre rules on [0, 1], by number of points, each of shape
    (max_points + 1, max_points)."""
    points = np.zeros((max_points + 1, max_points))
    weights = np.zeros((max_points + 1, max_points))
    for count in range(1, max_points + 1):
        at, weight = np.polynomial.legendre.leggauss(count)
        points[count, :count] = (at + 1) / 2
        weights[count, :count] = weight / 2
    return points, weights


@_compiled
def _walk(roots: Nodes, nodes: TreeNodes) -> Steps:
    n_nodes = len(nodes.left)
    node_of = np.empty(n_nodes, np.int64)
    level_of = np.empty(n_nodes, np.int64)
    split_of = np.empty(n_nodes, np.int64)
    earlier_of = np.empty(n_nodes, np.int64)
    features_of = np.empty(n_nodes, np.int64)
    tree_end = np.empty(len(roots), np.int64)
    # step of the node entered last at each level, and nodes to enter with their levels
    entered = np.empty(n_nodes, np.int64)
    waiting = np.empty(n_nodes, np.int64)
    waiting_level = np.empty(n_nodes, np.int64)
    step = 0
    for tree in range(len(roots)):
        waiting[0] = roots[tree]
        waiting_level[0] = 0
        size = 1
        while size:
            size -= 1
            node = waiting[size]
            level = waiting_level[size]
            earlier = 0
            split = -1
            features = 0
            if level:
                split = node_of[entered[level - 1]]
                for above in range(level - 1, 0, -1):
                    if nodes.feature[split_of[entered[above]]] == nodes.feature[split]:
                        earlier = above
                        break
                features = features_of[entered[level - 1]] + (earlier == 0)
            entered[level] = step
            node_of[step] = node
            level_of[step] = level
            split_of[step] = split
            earlier_of[step] = earlier
            features_of[step] = features
            step += 1
            if nodes.left[node] != LEAF:
                waiting[size] = nodes.right[node]
                waiting[size + 1] = nodes.left[node]
                waiting_level[size] = waiting_level[size + 1] = level + 1
                size += 2
        tree_end[tree] = step
    return Steps(
        node_of[:step], level_of[:step], split_of[:step], earlier_of[:step], features_of[:step], tree_end
    )


@_compiled
def _factors(
    nodes: TreeNodes, steps: Steps, begin: int, end: int, points: Floats, weights: Floats
) -> Factors:
    """Numbers of the steps from `begin` to before `end`.

    The factor of a feature passed by a share r of the training rows is t + r (1 - t) for a passing row and
    r (1 - t) for a failing row; the steps hold ratios to the factor at the feature's split before.
    """
    shape = (end - begin, len(points))
    always = np.ones(shape)
    came = np.zeros(shape)
    passes = np.zeros(shape)
    gain_came = np.zeros(shape)
    gain_passes = np.zeros(shape)
    levels = steps.level[begin:end].max() + 1
    # of the node entered last at each level: training rows that pass the feature, and that reach the node
    share = np.ones(levels)
    reaches = np.ones(levels)
    expected = 0.0
    for number in range(end - begin):
        step = begin + number
        node = steps.node[step]
        level = steps.level[step]
        if level:
            above = nodes.cover[steps.split[step]]
            part = nodes.cover[node] / above if above > 0.0 else 0.0
            before = share[steps.earlier[step]]
            after = before * part
            share[level] = after
            reaches[level] = reaches[level - 1] * part
            for point in range(len(points)):
                t = points[point]
                known = t + before * (1.0 - t)
                always[number, point] = part
                came[number, point] = after * (1.0 - t) / known - part
                passes[number, point] = t / known
                gain_fails = -1.0 / (1.0 - t)
                gain_before = (1.0 - before) / known
                gain_after = (1.0 - after) / (t + after * (1.0 - t))
                gain_came[number, point] = weights[point] * (gain_fails - gain_before)
                gain_passes[number, point] = weights[point] * (gain_after - gain_fails)
        if nodes.left[node] == LEAF:
            expected += nodes.value[node] * reaches[level]
    return Factors(always, came, passes, gain_came, gain_passes, expected)


@_compiled
def _values(
    columns: Floats, nodes: TreeNodes, steps: Steps, points: Floats, weights: Floats
) -> tuple[Floats, float]:
    """SHAP values, shape (n_features, n_rows), and the expected margin without the forest's base.

    Of the node entered last at each level, for a block of rows: `passes`, 1.0 if the row passes all the
    splits above on the feature of the last split, and 1.0 at level 0; `product`, the product at each point of
    the rule; `total`, the sum of values times products over the leaves below.

    Args:
        columns: shape (n_features, n_rows), n_rows a multiple of BLOCK.
        points: of the rules by number of points, shape (n_rules, n_points).
    """
    levels = steps.level.max() + 1
    values = np.zeros(columns.shape)
    passes = np.ones((levels, BLOCK))
    product = np.ones((levels, points.shape[1], BLOCK))
    total = np.zeros((levels, points.shape[1], BLOCK))
    goes_left = np.zeros((levels, BLOCK))
    entered = np.zeros(levels, np.int64)
    expected = 0.0
    for tree in range(len(steps.tree_end)):
        # a variable that begins as the literal 0 would have `_factors` compiled twice
        begin = steps.tree_end[tree - 1] if tree else 0
        end = steps.tree_end[tree]
        rule = (steps.features[begin:end].max() + 1) // 2
        factors = _factors(nodes, steps, begin, end, points[rule, :rule], weights[rule, :rule])
        expected += factors.expected
        for first in range(0, columns.shape[1], BLOCK):
            for step in range(begin, end):
                node = steps.node[step]
                level = steps.level[step]
                entered[level] = step
                if level:
                    is_left = nodes.left[steps.split[step]] == node
                    _pass(passes[steps.earlier[step]], goes_left[level - 1], is_left, passes[level])
                    _descend(
                        product[level - 1],
                        passes[steps.earlier[step]],
                        passes[level],
                        factors,
                        step - begin,
                        product[level],
                    )
                if nodes.left[node] != LEAF:
                    column = columns[nodes.feature[node], first : first + BLOCK]
                    _compare(column, nodes, node, goes_left[level])
                    for point in range(rule):
                        for row in range(BLOCK):
                            total[level, point, row] = 0.0
                    continue
                for point in range(rule):
                    for row in range(BLOCK):
                        total[level, point, row] = nodes.value[node] * product[level, point, row]
                # a node is complete when the walk goes on beside or above it
                following = steps.level[step + 1] if step + 1 < end else 1
                for done in range(level, following - 1, -1):
                    at = entered[done]
                    _ascend(
                        total[done],
                        passes[steps.earlier[at]],
                        passes[done],
                        factors,
                        at - begin,
                        total[done - 1],
                        values[nodes.feature[steps.split[at]], first : first + BLOCK],
                    )
    return values, expected


@_compiled
def _compare(column: Floats, nodes: TreeNodes, node: int, goes_left: Floats) -> None:
    """Write 1.0 for rows going left at a node, else 0.0."""
    threshold = nodes.threshold[node]
    missing = nodes.missing[node]
    at_missing = nodes.default_left[node]
    at_nan = at_missing if missing != MISSING_NONE else threshold >= 0.0
    for row in range(BLOCK):
        value = column[row]
        goes = at_nan if np.isnan(value) else value <= threshold
        goes_left[row] = 1.0 if goes else 0.0
    if missing == MISSING_ZERO:
        for row in range(BLOCK):
            if abs(column[row]) <= ZERO:
                goes_left[row] = 1.0 if at_missing else 0.0


@_compiled
def _pass(before: Floats, goes_left: Floats, is_left: bool, after: Floats) -> None:
    """Write 1.0 for rows passing the earlier splits on the feature and going to the side, else 0.0."""
    sign = 1.0 if is_left else -1.0
    shift = 0.0 if is_left else 1.0
    for row in range(BLOCK):
        after[row] = before[row] * (shift + sign * goes_left[row])


@_compiled
def _descend(
    above: Floats, came: Floats, passes: Floats, factors: Factors, number: int, below: Floats
) -> None:
    """Write the products below a split."""
    for point in range(factors.always.shape[1]):
        always = factors.always[number, point]
        if_came = factors.came[number, point]
        if_passes = factors.passes[number, point]
        for row in range(BLOCK):
            below[point, row] = above[point, row] * (always + if_came * came[row] + if_passes * passes[row])


@_compiled
def _ascend(
    below: Floats,
    came: Floats,
    passes: Floats,
    factors: Factors,
    number: int,
    above: Floats,
    contribution: Floats,
) -> None:
    """Add the totals below a split to the totals above and to the contribution of the feature."""
    for point in range(factors.always.shape[1]):
        if_came = factors.gain_came[number, point]
        if_passes = factors.gain_passes[number, point]
        for row in range(BLOCK):
            total = below[point, row]
            above[point, row] += total
            contribution[row] += total * (if_came * came[row] + if_passes * passes[row])
