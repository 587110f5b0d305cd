"""What a policy does: position and value over the current position and the two features it relies on most.

The maps are partial dependences (Friedman 2001, "Greedy function approximation: a gradient boosting
machine"): means over bars whose two features are set to the values of the map, while the other features stay
as they are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.domain import measures
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.explain.feature_charts import FALLING, RISING, digits, thinned
from clm_core.explain.reliance import BARS
from clm_core.explain.shares import CLEAR
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.models.policies.reinforcement import PolicyModel, rules_of
from clm_core.models.policies.trading import ACCOUNT_INPUTS, answers

NAME = "policy"
TITLE = "Positions of the policy"
STEPS = 21
"""Values of each of the two features."""
SAMPLED = 64
"""Bars over which a map is a mean, evenly spread over the newest."""
TAIL = 2.0
"""Percent of the bars with values beyond either end of a map."""
CLEAR_FALLING = "rgba(199,123,48,0)"
"""`FALLING`, transparent."""
NAMES = {-1.0: "short", 0.0: "flat", 1.0: "long"}


@dataclass(frozen=True, eq=False)
class PolicyMaps:
    """Answers of a policy on a grid of two features, as means over bars, without open profit."""

    kind: str
    """Kind of the policy, for people."""
    features: tuple[str, str]
    """Features of the grid: along, and upwards."""
    along: Floats
    """Values of the first feature, shape (STEPS,)."""
    upwards: Floats
    """Values of the second feature, shape (STEPS,)."""
    currents: tuple[float, ...]
    """Current positions: short, flat and long, without short where the policy holds long only."""
    bars: int
    """Number of bars of the means."""
    positions: Floats
    """Mean next position, -1..1, shape (n_currents, STEPS, STEPS): the second axis is upwards."""
    values: Floats | None
    """Mean value of the next position, in standard deviations of a bar's return, shape as `positions`; None
    for a policy that keeps no values."""
    sides: Floats
    """Shares of the grid and the bars whose next position is short, flat and long, shape (n_currents, 3)."""
    by_current: float
    """Share of the grid and the bars in which the next position depends on the current one."""


def explain_policy(model: PolicyModel, bars: Bars, features: tuple[str, str]) -> PolicyMaps:
    """Position and value over the current position and two features.

    Args:
        bars: bars of the model's market, with its own series; the newest set the ranges.
        features: names of two features of the policy.

    Raises:
        NotEnoughBars: no bar has every feature.
    """
    params = model.params
    table = compute_features(model.trained_on.accept(bars)[-(BARS + model.bars_needed) :], params.features)
    known = table.values[table.complete]
    if not len(known):
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: none of {len(bars)} bars has every feature. Import more bars"
        )
    columns = [params.features.index(name) for name in features]
    along, upwards = (_range(known[:, column]) for column in columns)
    currents = (0.0, 1.0) if params.long_only else (-1.0, 0.0, 1.0)
    sampled = known[thinned(len(known), SAMPLED)]
    grid = np.tile(sampled[:, None, None, :], (1, STEPS, STEPS, 1))
    grid[:, :, :, columns[0]] = along
    grid[:, :, :, columns[1]] = upwards[:, None]
    scores = model.normaliser.scores(grid.reshape(-1, known.shape[1]))
    answered = [_answers(model, scores, current) for current in currents]
    positions, values = (np.stack(each).reshape(-1, *grid.shape[:3]) for each in zip(*answered, strict=True))
    sides = [[np.mean(np.sign(each) == side) for side in (-1, 0, 1)] for each in positions]
    return PolicyMaps(
        kind=model.model_type.value,
        features=features,
        along=along,
        upwards=upwards,
        currents=currents,
        bars=len(sampled),
        positions=positions.mean(axis=1),
        values=values.mean(axis=1) if params.discrete else None,
        sides=np.array(sides),
        by_current=float(np.mean(np.ptp(positions, axis=0) > 0)),
    )


def policy_section(maps: PolicyMaps) -> Section:
    along, upwards = maps.features
    charts = [_maps(maps, "positions", "Mean next position", maps.positions, (-1.0, 1.0))]
    if maps.values is not None:
        ends = float(maps.values.min()), float(maps.values.max())
        charts.append(_maps(maps, "values", "Mean value of the next position", maps.values, ends))
    return Section(
        name=NAME,
        title=TITLE,
        sentences=(
            f"Next position over {along} and {upwards}, the features that the positions rely on most: means "
            f"over {maps.bars} bars with these two features changed, without open profit or loss.",
            f"In {measures.percent(maps.by_current)} of the cases the next position depends on the current "
            "one.",
            *_about_values(maps),
        ),
        charts=tuple(charts),
        tables=(_table(maps),),
        values={
            "features": list(maps.features),
            "along": maps.along.tolist(),
            "upwards": maps.upwards.tolist(),
            "currents": list(maps.currents),
            "positions": maps.positions.tolist(),
            "values": None if maps.values is None else maps.values.tolist(),
            "share_by_current": maps.by_current,
        },
    )


def _about_values(maps: PolicyMaps) -> tuple[str, ...]:
    if maps.values is None:
        return (f"{maps.kind} chooses positions without keeping an estimate of their value.",)
    return (
        "Value: discounted rewards to come after the next position, as the policy estimates them, in "
        "standard deviations of a bar's return.",
    )


def _range(column: Floats) -> Floats:
    low, high = np.percentile(column, [TAIL, 100 - TAIL])
    return np.linspace(low, high, STEPS)


def _answers(model: PolicyModel, scores: Any, current: float) -> tuple[Floats, Floats]:
    """Next position, and its value for a policy of three positions, shape (n,) each."""
    observations = np.zeros((len(scores), scores.shape[1] + ACCOUNT_INPUTS))
    observations[:, :-ACCOUNT_INPUTS] = scores
    observations[:, -ACCOUNT_INPUTS] = current
    positions, outputs = answers(observations, rules_of(model.params, model.normaliser), model.network)
    chosen = np.rint(positions).astype(np.int64) + 1 if model.params.discrete else np.zeros(len(scores), int)
    return positions, outputs[np.arange(len(scores)), chosen]


def _table(maps: PolicyMaps) -> SectionTable:
    rows = [
        (
            NAMES[current],
            *map(measures.percent, sides.tolist()),
            f"{positions.mean():+.2f}",
        )
        for current, sides, positions in zip(maps.currents, maps.sides, maps.positions, strict=True)
    ]
    return SectionTable(
        columns=("current", "then short", "then flat", "then long", "mean"),
        rows=tuple(rows),
        note="Shares of the bars and of the values of the two features, and the mean next position.",
    )


def _maps(maps: PolicyMaps, name: str, title: str, values: Floats, ends: tuple[float, float]) -> SectionChart:
    """Heat maps beside each other, one for each current position."""
    count = len(maps.currents)
    layout: dict[str, Any] = {"showlegend": False, "annotations": []}
    data = []
    for number, current in enumerate(maps.currents):
        axis = "" if number == 0 else str(number + 1)
        left = number / count + 0.01
        right = (number + 1) / count - 0.01
        data.append(_map(maps, values[number], ends, axis, last=number == count - 1))
        plain = {"showgrid": False, "zeroline": False}
        layout[f"xaxis{axis}"] = plain | {"domain": [left, right], "nticks": 3, "anchor": f"y{axis}"}
        layout[f"yaxis{axis}"] = plain | {"anchor": f"x{axis}", "showticklabels": number == 0, "ticks": ""}
        place = {"x": 0.5, "y": 1.0, "xref": f"x{axis} domain", "yref": "paper", "showarrow": False}
        layout["annotations"].append(place | {"text": f"from {NAMES[current]}", "yanchor": "bottom"})
    layout["margin"] = {"l": 8, "r": 8, "t": 24, "b": 8}
    return SectionChart(
        name=name,
        title=title,
        height=320,
        figure={"data": data, "layout": layout},
        note=f"Along: {maps.features[0]}; upwards: {maps.features[1]}.",
    )


def _colours(low: float, high: float) -> list[list[Any]]:
    """Colour scale without colour at 0: ochre below, blue above."""
    if low < 0 < high:
        zero = -low / (high - low)
        return [[0.0, FALLING], [zero, CLEAR_FALLING], [zero, CLEAR], [1.0, RISING]]
    return [[0.0, CLEAR], [1.0, RISING]] if low >= 0 else [[0.0, FALLING], [1.0, CLEAR_FALLING]]


def _map(
    maps: PolicyMaps, values: Floats, ends: tuple[float, float], axis: str, last: bool
) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": digits(maps.along),
        "y": digits(maps.upwards),
        "z": [digits(row) for row in values],
        "zmin": ends[0],
        "zmax": ends[1],
        "colorscale": _colours(*ends),
        "showscale": last,
        "colorbar": {"orientation": "h", "thickness": 8, "y": -0.3, "len": 0.8},
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "hovertemplate": "%{x}, %{y}: %{z}<extra></extra>",
    }
