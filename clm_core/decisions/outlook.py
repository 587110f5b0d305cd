"""Outlook of a gate policy: simulated promotions without and with an edge, as figures and as a picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.decisions.simulated_market import World
from clm_core.decisions.simulation import (
    SimulatedWaits,
    SimulatedYears,
    simulate_waits,
    simulate_years,
)

COLOURS = ("#2f6fed", "#c93a3a", "#9a6700", "#12805c")


@dataclass(frozen=True)
class Outlook:
    policy: str
    world: World
    """Simulated market without an edge; the streams with an edge differ in the Sharpe ratio alone."""
    streams: int
    horizon_years: float
    luck: SimulatedYears | None
    """Years of retrains without an edge; None unless edge 0 is among the requested edges."""
    edges: dict[float, SimulatedWaits]
    """Waiting times by true annual Sharpe ratio."""
    refreshed: SimulatedWaits | None = None
    """One recipe without an edge, refreshed at every retrain of a year; None like `luck`."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary; `kinship`, the former `retrain_correlation`, stays for one release."""
        document: dict[str, Any] = _finite(asdict(self))
        document["world"]["kinship"] = document["world"]["retrain_correlation"]
        return document


def outlook(
    world: World,
    policy: GatePolicy,
    edges: Sequence[float],
    streams: int,
    horizon_years: float,
    seed: int,
    progress: Callable[[float], None] = lambda done: None,
) -> Outlook:
    """Simulate the promotions a policy allows.

    Args:
        edges: true annual Sharpe ratios; 0 stands for years without an edge.
        streams: number of years without an edge, and of streams of each other edge.
        horizon_years: longest wait for a promotion.
        seed: same seed, same figures.
        progress: called with the completed share, 0..1.
    """
    without_edge = None
    refreshed = None
    waits = {}
    for number, edge in enumerate(edges):
        rng = np.random.default_rng([seed, number])

        def part(done: float, number: int = number) -> None:
            progress((number + done) / len(edges))

        if edge == 0.0:
            none = replace(world, annual_sharpe=0.0)
            without_edge = simulate_years(none, policy, streams, rng, lambda done: part(done / 2.0))
            refreshed = simulate_waits(none, policy, streams, 1.0, rng, lambda done: part(0.5 + done / 2.0))
        else:
            with_edge = replace(world, annual_sharpe=edge)
            waits[edge] = simulate_waits(with_edge, policy, streams, horizon_years, rng, part)
    return Outlook(policy.name, world, streams, horizon_years, without_edge, waits, refreshed)


def draw_picture(outlooks: Sequence[Outlook], file: Path) -> None:
    """Draw the share of years that promote luck, and the share of streams promoted over time by edge; PNG or
    SVG by the file's suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    heights = [0.0]
    for place, each in enumerate(outlooks):
        colour = COLOURS[place % len(COLOURS)]
        if each.luck is not None:
            share = each.luck.promoted
            left.bar(place, 100 * share.value, yerr=196 * share.error, color=colour, width=0.6, capsize=4)
            height = 100 * share.value + 196 * share.error + 0.5
            left.text(place, height, f"{share.value:.1%}", ha="center")
            heights.append(height)
        for style, (edge, wait) in zip(_styles(len(each.edges)), each.edges.items(), strict=True):
            first = each.world.record_years
            passes = [year for year in wait.years if math.isfinite(year)]
            years = [first, *passes, first + each.horizon_years]
            passed = np.arange(len(years)) / len(wait.years) * 100
            passed[-1] = passed[-2]
            right.step(
                years,
                passed,
                where="post",
                color=colour,
                alpha=style,
                label=f"{each.policy}, Sharpe {edge:g}",
            )
    left.set_xticks(range(len(outlooks)), [each.policy for each in outlooks])
    left.set_ylabel("years that promote luck, %")
    left.set_ylim(0, min(1.3 * max(10.0, *heights), 110.0))
    right.set_xlabel("years of track record, from the first retrain on")
    right.set_ylabel("promoted, %")
    right.set_ylim(0, 104)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def _styles(count: int) -> list[float]:
    """Opacities in 0..1, rising with the edge."""
    return np.linspace(0.35, 1.0, count).tolist() if count > 1 else [1.0] * count


def _finite(value: Any) -> Any:
    """The value with NaN and infinity as None, since JSON has neither."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(name): _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value
