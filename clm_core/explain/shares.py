"""Shares of the features beside each other, over the folds of a version and over the versions of a model.

The distance of two models is half the sum of the absolute differences of their shares, the total variation
distance: 0 for equal shares, 1 for models without a feature in common, and otherwise the part of the shares
that moved from some features to others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from clm_core.domain import measures
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.explain.feature_charts import PIXELS_A_FEATURE, RISING

FEATURES = 15
"""Features in the table and the heat map, those with the largest share in any model."""
TABLE_MODELS = 5
"""Models in the table, the newest: as many as a terminal shows."""
CLEAR = "rgba(31,111,139,0)"
"""`RISING`, transparent."""

Shares = Mapping[str, float]
"""Share of each feature in the decisions of a model, 0..1, summing to 1; a feature without share may miss."""


@dataclass(frozen=True)
class NamedShares:
    """Shares of one of several models of the same recipe, in the order of time."""

    label: str
    """Name of the model in the table: its version, or the end of its training bars."""
    shares: Shares


def distance(one: Shares, other: Shares) -> float:
    """Total variation distance of two sets of shares, 0..1."""
    # in one order: sums of the same numbers in another order differ in their last bits
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in sorted({*one, *other})) / 2


def largest_moves(one: Shares, other: Shares, count: int = 3) -> tuple[tuple[str, float], ...]:
    """Features whose shares differ most, with the share of the other less that of the one; largest first."""
    moves = {name: other.get(name, 0.0) - one.get(name, 0.0) for name in sorted({*one, *other})}
    ranked = sorted(moves.items(), key=lambda item: -abs(item[1]))
    return tuple((name, move) for name, move in ranked[:count] if move != 0)


def shares_section(name: str, title: str, models: Sequence[NamedShares], measured: str) -> Section:
    """Shares of each feature by model, with the distance of each model from the one before.

    Args:
        models: oldest first, at least two.
        measured: what a share is a share of, as a clause: "mean |SHAP|".
    """
    distances = [distance(one.shares, other.shares) for one, other in pairwise(models)]
    names = {feature for each in models for feature in each.shares}
    largest = {feature: max(each.shares.get(feature, 0.0) for each in models) for feature in names}
    shown = sorted(sorted(names), key=lambda feature: -largest[feature])[:FEATURES]
    in_table = models[-TABLE_MODELS:]
    cells = tuple(
        (feature, *(measures.percent(each.shares.get(feature, 0.0)) for each in in_table))
        for feature in shown
    )
    moved = ("distance", *["", *map(measures.percent, distances)][-len(in_table) :])
    return Section(
        name=name,
        title=title,
        sentences=_sentences(models, distances, measured),
        charts=(_heat_map(models, shown),),
        tables=(
            SectionTable(
                columns=("feature", *(each.label for each in in_table)),
                rows=(*cells, moved),
                note=f"The newest {len(in_table)} of {len(models)}. Distance from the one before: half the "
                "sum of the absolute differences of all shares; 0 % for equal shares, 100 % for no feature "
                "in common.",
            ),
        ),
        values={
            "models": [{"label": each.label, "shares": dict(each.shares)} for each in models],
            "distances": distances,
        },
    )


def _sentences(models: Sequence[NamedShares], distances: Sequence[float], measured: str) -> tuple[str, ...]:
    before, newest = models[-2:]
    moves = ", ".join(
        f"{name} {measures.signed_percent(move)}"
        for name, move in largest_moves(before.shares, newest.shares)
    )
    newest_sentence = (
        f"From {before.label} to {newest.label}, {measures.percent(distances[-1])} of the shares of "
        f"{measured} moved from some features to others{f': {moves}' if moves else ''}."
    )
    if len(distances) < 2:
        return (newest_sentence,)
    usual = median(distances[:-1])
    return (newest_sentence, f"Median of the distances before: {measures.percent(usual)}.")


def _heat_map(models: Sequence[NamedShares], shown: Sequence[str]) -> SectionChart:
    # plotly draws from the bottom up
    features = list(shown[::-1])
    cells: dict[str, Any] = {
        "type": "heatmap",
        "x": [each.label for each in models],
        "y": features,
        "z": [[round(each.shares.get(feature, 0.0), 4) for each in models] for feature in features],
        "zmin": 0,
        "zmax": max(each.shares.get(feature, 0.0) for each in models for feature in features),
        "colorscale": [[0, CLEAR], [1, RISING]],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{y}, %{x}: %{z:.1%}<extra></extra>",
    }
    layout = {"xaxis": {"type": "category", "showgrid": False}, "yaxis": {"showgrid": False}}
    return SectionChart(
        name="shares",
        height=110 + PIXELS_A_FEATURE * len(features),
        figure={"data": [cells], "layout": layout},
        note="The darker, the larger the share.",
    )
