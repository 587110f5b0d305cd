"""What one policy promotes, luck and edges alike, as figures and as a picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.decisions.simulation import Wait, World, Year, simulate_waits, simulate_years

COLOURS = ("#2f6fed", "#c93a3a", "#9a6700", "#12805c")


@dataclass(frozen=True)
class Outlook:
    policy: str
    world: World
    """Of the years without an edge; the streams with one differ in that alone."""
    streams: int
    horizon_years: float
    luck: Year | None
    """Years of retrains without an edge; None where that was not asked for."""
    edges: dict[float, Wait]
    """By true annual Sharpe ratio."""

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = _finite(asdict(self))
        return told


def outlook(
    world: World,
    policy: GatePolicy,
    edges: Sequence[float],
    streams: int,
    horizon_years: float,
    seed: int,
    progress: Callable[[float], None] = lambda done: None,
) -> Outlook:
    """Simulate what a policy lets through.

    Args:
        edges: true annual Sharpe ratios; 0 asks for years without an edge.
        streams: years without an edge, and streams of each other edge.
        horizon_years: until which streams wait for a promotion.
    """
    luck, waits = None, {}
    for number, edge in enumerate(edges):
        rng = np.random.default_rng([seed, number])

        def part(done: float, number: int = number) -> None:
            progress((number + done) / len(edges))

        if edge == 0.0:
            luck = simulate_years(replace(world, annual_sharpe=0.0), policy, streams, rng, part)
        else:
            with_edge = replace(world, annual_sharpe=edge)
            waits[edge] = simulate_waits(with_edge, policy, streams, horizon_years, rng, part)
    return Outlook(policy.name, world, streams, horizon_years, luck, waits)


def draw(outlooks: Sequence[Outlook], file: Path) -> None:
    """Years in which luck is promoted, and how many of those with an edge are promoted by when; PNG or SVG by
    the name of the file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for place, found in enumerate(outlooks):
        colour = COLOURS[place % len(COLOURS)]
        if found.luck is not None:
            share = found.luck.promoted
            left.bar(place, 100 * share.value, yerr=196 * share.error, color=colour, width=0.6, capsize=4)
            height = 100 * share.value + 196 * share.error + 2
            left.text(place, height, f"{share.value:.1%}", ha="center")
        for style, (edge, wait) in zip(_styles(len(found.edges)), found.edges.items(), strict=True):
            years = [0.0, *(year for year in wait.years if math.isfinite(year)), found.horizon_years]
            passed = np.arange(len(years)) / len(wait.years) * 100
            passed[-1] = passed[-2]
            right.step(
                years,
                passed,
                where="post",
                color=colour,
                alpha=style,
                label=f"{found.policy}, Sharpe {edge:g}",
            )
    left.set_xticks(range(len(outlooks)), [found.policy for found in outlooks])
    left.set_ylabel("years that promote luck, %")
    left.set_ylim(0, 110)
    right.set_xlabel("years of track record")
    right.set_ylabel("promoted, %")
    right.set_ylim(0, 104)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def _styles(count: int) -> list[float]:
    """Opacities, the largest edge boldest."""
    return np.linspace(0.35, 1.0, count).tolist() if count > 1 else [1.0] * count


def _finite(value: Any) -> Any:
    """JSON has no word for what never happened: null."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(name): _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value
