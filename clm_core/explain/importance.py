"""Importance of features: by SHAP values, and by permutation.

Permutation importance of a feature is 1 - the concordance of the positions with those after the column of the
feature was shuffled. Positions are compared, not Sharpe ratios: how much a model relies on a feature is exact
for the given bars, while the difference between two Sharpe ratios is measured with an error of about
sqrt(2 (1 - correlation) / years), which exceeds most differences for years of bars. Whether the reliance pays
is the question of the gate, not of an explanation.

Blocks of consecutive rows are shuffled: single rows in random order would give a slow feature, such as a
volatility, the jumps of noise, and the positions would change for a column that no market produces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import ExplanationUnavailable
from clm_core.explain.tree_shap import ShapValues
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.contract import Change, Model, ReadsFeatures
from clm_core.models.plugins import PluginModel
from clm_core.models.sizing import SizedModel, unsized_model

QUARTER = 0.25
"""Share of the rows with high, and with low, values of a feature."""


@dataclass(frozen=True)
class Importance:
    """Importance of a feature by SHAP values over many rows."""

    feature: str
    mean_absolute: float
    """Mean of the absolute values, in units of the margin."""
    share: float
    """Share of `mean_absolute` in the sum over the features, 0..1; 0 where every value is 0."""
    when_high: float
    """Mean value over the rows in the top quarter of the feature, ties included; NaN without rows."""
    when_low: float
    """Mean value over the rows in the bottom quarter of the feature, ties included; NaN without rows."""


@dataclass(frozen=True)
class Reliance:
    """Permutation importance of a feature."""

    feature: str
    mean: float
    """Mean of 1 - concordance over the shuffles: 0 for unchanged positions, 1 for unrelated positions."""
    deviation: float
    """Standard deviation over the shuffles."""


def importances_of(shap: ShapValues, rows: Floats) -> tuple[Importance, ...]:
    """Importance of each feature, largest first; equals in the order of the features.

    Args:
        rows: the explained rows, shape (n_rows, n_features), n_rows of at least 1; NaN for a missing value.
    """
    absolute = np.abs(shap.values).mean(axis=0)
    total = float(absolute.sum())
    high = _top(rows)
    low = _top(-rows)
    importances = [
        Importance(
            feature=feature,
            mean_absolute=float(absolute[column]),
            share=float(absolute[column]) / total if total > 0 else 0.0,
            when_high=_mean(shap.values[high[:, column], column]),
            when_low=_mean(shap.values[low[:, column], column]),
        )
        for column, feature in enumerate(shap.features)
    ]
    return tuple(sorted(importances, key=lambda each: -each.mean_absolute))


def permutation_importance(
    features: Sequence[str], positions: Callable[[Change], Floats], seed: int, block: int, shuffles: int
) -> tuple[Reliance, ...]:
    """Reliance on each feature, largest first, of a model of any kind that takes positions from features.

    Args:
        features: names of the columns.
        positions: positions for changed feature values, shape (n_bars,): `changed_positions`.
        seed: seed of the shuffles.
        block: consecutive rows that stay together, at least 1: the memory of the slowest feature, or a week.
        shuffles: shuffles of each feature, at least 1.
    """
    rng = np.random.default_rng(seed)
    usual = positions(lambda values: values)
    reliances = []
    for column, feature in enumerate(features):
        falls = [1.0 - concordance(usual, positions(_shuffled(column, block, rng))) for _ in range(shuffles)]
        reliances.append(Reliance(feature, float(np.mean(falls)), float(np.std(falls))))
    return tuple(sorted(reliances, key=lambda each: -each.mean))


def changed_positions(model: Model, bars: Bars) -> Callable[[Change], Floats]:
    """Positions of a model with features, sizing included, for changed feature values.

    Raises:
        ExplanationUnavailable: the model has no features that can be changed.
    """
    inner = inputs_of(model)

    def positions(change: Change) -> Floats:
        changed = inner.with_changed_inputs(change)
        outer: Model = replace(model, inner=changed) if isinstance(model, SizedModel) else changed
        return outer.positions(bars)

    return positions


def inputs_of(model: Model) -> ReadsFeatures:
    """The model below the sizing, whose features can be changed.

    Raises:
        ExplanationUnavailable: the model has no features that can be changed.
    """
    inner = unsized_model(model)
    inner = inner.inner if isinstance(inner, PluginModel) else inner
    if isinstance(inner, ReadsFeatures):
        return inner
    made_by = catalog.origin(model)
    raise ExplanationUnavailable(
        f"{made_by.name if made_by else model.model_type} names no features that could be shuffled: its "
        "positions follow from the bars by rules of its own"
    )


def concordance(one: Floats, other: Floats) -> float:
    """Lin's concordance correlation coefficient (1989): 1 for equal series, and where both are constant and
    equal; a correlation that falls as well if the scale or the mean differs."""
    distance = float(np.mean((one - other) ** 2))
    spread = float(one.var() + other.var() + (one.mean() - other.mean()) ** 2)
    return 1.0 - distance / spread if spread > 0 else 1.0


def block_order(n_rows: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows in blocks of consecutive rows, in random order; the first block begins at a random row of a block,
    so that blocks are cut at other rows each time."""
    edges = np.arange(int(rng.integers(1, block + 1)), n_rows, block)
    blocks = np.split(np.arange(n_rows), edges)
    return np.concatenate([blocks[number] for number in rng.permutation(len(blocks))])


def _shuffled(column: int, block: int, rng: np.random.Generator) -> Change:
    def change(values: Floats) -> Floats:
        changed = values.copy()
        changed[:, column] = values[block_order(len(values), block, rng), column]
        return changed

    return change


def _top(rows: Floats) -> NDArray[np.bool_]:
    """True for the highest quarter of the known values of each column, shape (n_rows, n_features)."""
    edges = np.full(rows.shape[1], np.nan)
    whole = ~np.isnan(rows).any(axis=0)
    if len(rows):
        edges[whole] = np.quantile(rows[:, whole], 1.0 - QUARTER, axis=0)
    for column in np.flatnonzero(~whole):
        known = rows[~np.isnan(rows[:, column]), column]
        if len(known):
            edges[column] = np.quantile(known, 1.0 - QUARTER)
    # no value reaches the edge of a column without known values
    return np.asarray(rows >= edges)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
