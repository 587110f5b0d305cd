"""Charts of SHAP values: a beeswarm of all rows, values by feature value, and the parts of the newest row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.explanations import SectionChart
from clm_core.explain.tree_shap import ShapValues
from clm_core.market.bars import Floats

RISING = "#1f6f8b"
FALLING = "#c77b30"
"""Colours of parts, or of feature values, that are high or raise the answer, and of their opposites."""
WHOLE = "#7a8699"
"""Colour of sums."""
PIXELS_A_FEATURE = 22
SWARM_FEATURES = 12
"""Features of a beeswarm."""
SWARM_POINTS = 150
"""Points of a feature in a beeswarm: about 35 kB a chart."""
SWARM_BINS = 40
"""Bins of the values of a feature, in which points lie beside each other."""
SWARM_WIDTH = 0.42
"""Largest distance of a point from the line of its feature, in distances of two lines."""
DEPENDENCE_POINTS = 400
STEPS = 10
"""Features of a waterfall by name; the others are one part."""


def beeswarm(shap: ShapValues, rows: Floats, ranked: tuple[str, ...]) -> SectionChart:
    """One point for each feature and row, SHAP value by feature, in the colour of the feature value.

    Args:
        rows: the explained rows, shape (n_rows, n_features); NaN for a missing value.
        ranked: features to draw, most important first; the first `SWARM_FEATURES` are drawn.
    """
    drawn = ranked[:SWARM_FEATURES]
    at = thinned(len(rows), SWARM_POINTS)
    columns = [shap.features.index(feature) for feature in drawn]
    values = shap.values[at][:, columns].T
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": digits(values.ravel()),
        # plotly draws from the bottom up
        "y": np.round(
            np.concatenate([len(drawn) - 1 - n + beside(each) for n, each in enumerate(values)]), 3
        ).tolist(),
        "marker": {
            "size": 4,
            "opacity": 0.8,
            "color": np.round(np.concatenate([ranks(rows[at, column]) for column in columns]), 2).tolist(),
            "colorscale": [[0, FALLING], [1, RISING]],
            "cmin": 0,
            "cmax": 1,
        },
        "hovertemplate": "%{x}<extra></extra>",
    }
    axis = {"tickvals": list(range(len(drawn))), "ticktext": list(drawn[::-1]), "zeroline": False}
    return SectionChart(
        name="beeswarm",
        title="SHAP values of the bars",
        height=80 + PIXELS_A_FEATURE * len(drawn),
        figure={
            "data": [points],
            "layout": {"xaxis": {"title": {"text": "SHAP value"}}, "yaxis": axis},
        },
        note=f"One point a bar, {len(at)} of {len(rows)} bars, for the {len(drawn)} features with the "
        "largest mean |SHAP|. Blue: the value of the feature is among its highest; ochre: among its lowest.",
    )


def dependence(shap: ShapValues, rows: Floats, feature: str, number: int) -> SectionChart:
    """SHAP value of a feature by its value, one point for each row.

    Args:
        number: place of the feature among the most important ones, from 1 on, for the name of the chart.
    """
    column = shap.features.index(feature)
    known = np.flatnonzero(np.isfinite(rows[:, column]))
    at = known[thinned(len(known), DEPENDENCE_POINTS)]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": digits(rows[at, column]),
        "y": digits(shap.values[at, column]),
        "marker": {"size": 4, "opacity": 0.7, "color": RISING},
        "hovertemplate": "%{x}: %{y}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": feature}},
        "yaxis": {"title": {"text": "SHAP value"}},
    }
    return SectionChart(
        name=f"dependence-{number}",
        title=f"SHAP values by {feature}",
        height=260,
        figure={"data": [points], "layout": layout},
    )


def waterfall(shap: ShapValues, row: int, values: Floats, title: str) -> SectionChart:
    """Parts of the answer for a row: from the base, feature by feature, to the sum.

    Args:
        values: feature values of the row, shape (n_features,).
    """
    parts = shap.values[row]
    order = np.argsort(-np.abs(parts), kind="stable")
    named = order[:STEPS]
    rest = float(parts[order[STEPS:]].sum())
    others = [] if len(order) <= STEPS else [(f"{len(order) - STEPS} others", rest)]
    steps = [(f"{shap.features[n]} = {values[n]:.3g}", float(parts[n])) for n in named] + others
    bars = {
        "type": "waterfall",
        "orientation": "h",
        "measure": ["absolute", *("relative" for _ in steps), "total"],
        "y": ["base", *(name for name, _ in steps), "answer"],
        "x": digits(np.array([shap.base, *(part for _, part in steps), shap.base + float(parts.sum())])),
        "increasing": {"marker": {"color": RISING}},
        "decreasing": {"marker": {"color": FALLING}},
        "totals": {"marker": {"color": WHOLE}},
        "hovertemplate": "%{y}: %{delta}<extra></extra>",
    }
    # the base and the answer may lie far from 0, and their difference is what the chart shows
    reached = shap.base + np.cumsum([0.0, *(part for _, part in steps)])
    room = max(0.1 * float(np.ptp(reached)), 1e-9)
    layout: dict[str, Any] = {
        "xaxis": {"range": [float(reached.min()) - room, float(reached.max()) + room]},
        "yaxis": {"autorange": "reversed"},
        "showlegend": False,
    }
    return SectionChart(
        name="waterfall",
        title=title,
        height=80 + PIXELS_A_FEATURE * (len(steps) + 2),
        figure={"data": [bars], "layout": layout},
        note="From the base to the answer of the trees; blue parts raise the answer, ochre parts lower it.",
    )


def thinned(count: int, max_count: int) -> NDArray[np.int64]:
    """Ascending rows evenly spread over `count` rows, with the first and the last; at most `max_count`."""
    return np.unique(np.linspace(0, count - 1, min(count, max_count)).round().astype(np.int64))


def digits(values: Floats | Sequence[float], count: int = 4) -> list[float]:
    """Values with so many significant digits, so that a page stays small."""
    return [float(f"{value:.{count}g}") for value in np.asarray(values).tolist()]


def ranks(column: Floats) -> Floats:
    """Rank of each value among the known ones, 0..1, shape (n,): equal values have equal ranks, and a missing
    value, or one of a constant column, has 0.5."""
    known = np.sort(column[~np.isnan(column)])
    low = np.searchsorted(known, column, "left")
    high = np.searchsorted(known, column, "right")
    if len(known) < 2 or known[0] == known[-1]:
        return np.full(len(column), 0.5)
    middle = (low + high - 1) / 2 / (len(known) - 1)
    return np.where(np.isnan(column), 0.5, middle)


def beside(values: Floats) -> Floats:
    """Distance of each point from the line of its feature, so that points of like values lie beside each
    other; the widest bin reaches `SWARM_WIDTH` on both sides."""
    spread = float(np.ptp(values))
    if spread == 0.0:
        bins = np.zeros(len(values), np.int64)
    else:
        bins = np.minimum((values - values.min()) / spread * SWARM_BINS, SWARM_BINS - 1).astype(np.int64)
    counts = np.bincount(bins)
    order = np.argsort(bins, kind="stable")
    place = np.empty(len(values))
    first = (np.cumsum(counts) - counts)[bins[order]]
    place[order] = np.arange(len(values)) - first - (counts[bins[order]] - 1) / 2
    widest = max((int(counts.max()) - 1) / 2, 1.0)
    return np.asarray(place / widest * SWARM_WIDTH)
