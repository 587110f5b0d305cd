"""Promotions of the default policy and of the thresholds alone: rewrites the tables of
docs/decisions/0002-gate.md and the picture in the README.

python -m benchmarks.gate     four minutes on two idle cores; the same seed gives the same figures
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process a core, and small matrices

import numpy as np

from clm_core.decisions.evidence_window import mean_tested_days
from clm_core.decisions.gate_policy import GatePolicy, load_document
from clm_core.decisions.outlook import Outlook, draw_picture
from clm_core.decisions.payoffs import SYMMETRIC, WIN_RATES, payoff_ratio
from clm_core.decisions.return_streams import Shape
from clm_core.decisions.simulated_market import DAYS_A_YEAR, World
from clm_core.decisions.simulation import (
    Realised,
    SimulatedWaits,
    SimulatedYears,
    one_recipe,
    simulate_waits,
    simulate_years,
)
from clm_core.domain.evaluations import CheckStatus

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = DOCS / "decisions" / "0002-gate.md"
PICTURE = DOCS / "images" / "gate.png"
MARK = "<!-- below: python -m benchmarks.gate -->\n"
SEED = 20_251_204
YEARS = 100
STREAMS = 50
HORIZON = 4.0
SHAPES = (Shape.NORMAL, Shape.STUDENT, Shape.AUTOREGRESSIVE, Shape.GARCH)
VOLATILITIES = (0.15, 0.35, 0.60)
EDGES = (1.0, 2.0, 3.0)
POLICIES = ("strict", "thresholds-only")
MAX_SHARE_OF_LUCKY_YEARS = 0.05
MIN_IN_TIME = 0.80


def default_world(**changes: Any) -> World:
    return replace(World(record_years=record_years(1825)), **changes)


def record_years(days: int) -> float:
    return mean_tested_days(days, World().timeframe) / DAYS_A_YEAR


LUCK = {
    (shape, payoff, volatility): default_world(shape=shape, win_rate=wins, volatility=volatility)
    for shape, (payoff, wins), volatility in product(SHAPES, WIN_RATES.items(), VOLATILITIES)
}
OTHERS = {
    "365 days of bars": default_world(record_years=record_years(365)),
    "365 days of bars, option-like": default_world(record_years=record_years(365), win_rate=0.9),
    "unrelated retrains, no costs": default_world(retrain_correlation=0.0, cost_bps=0.0),
    "203 trades a year": default_world(trades_per_year=203.0),
    "203 trades a year, option-like": default_world(trades_per_year=203.0, win_rate=0.9),
    "20 trades a year": default_world(trades_per_year=20.0),
    "20 bps a side": default_world(cost_bps=20.0),
    "95 % win": default_world(win_rate=0.95),
}
WAITS = {
    (payoff, volatility, edge): default_world(win_rate=wins, volatility=volatility, annual_sharpe=edge)
    for edge, (payoff, wins), volatility in product(EDGES, WIN_RATES.items(), VOLATILITIES)
    if payoff == SYMMETRIC or edge > 1.0
}
SHORT_WAITS = {
    (volatility, edge): default_world(
        volatility=volatility, annual_sharpe=edge, record_years=record_years(365)
    )
    for volatility, edge in product(VOLATILITIES, EDGES)
}
REFUSED = {
    (payoff, edge): default_world(win_rate=wins, annual_sharpe=edge)
    for (payoff, wins), edge in product(WIN_RATES.items(), EDGES[1:])
}

Result = TypeVar("Result")
Luck = tuple[SimulatedYears, SimulatedWaits]
"""Years in which every retrain is another recipe, and years in which one recipe is refreshed."""
LuckCell = tuple[Shape, str, float]


def main() -> int:
    with ProcessPoolExecutor() as pool:
        waits = pool.map(wait, WAITS.values())
        short = pool.map(wait, SHORT_WAITS.values())
        luck = pool.map(years, LUCK.values())
        others = pool.map(years, OTHERS.values())
        reasons = pool.map(refusals, REFUSED.values())
        alone = pool.map(alone_luck, [default_world()]), pool.map(alone_wait, map(with_edge, EDGES))
        waited = dict(zip(WAITS, announced("waits", waits), strict=True))
        waited_short = dict(zip(SHORT_WAITS, announced("waits from 365 days", short), strict=True))
        lucky = dict(zip(LUCK, announced("years without an edge", luck), strict=True))
        lucky_others = dict(zip(OTHERS, others, strict=True))
        refused = dict(zip(REFUSED, reasons, strict=True))
        [alone_years] = list(alone[0])
        alone_waits = dict(zip(EDGES, alone[1], strict=True))
    text = "\n".join(
        [
            luck_table(lucky),
            others_table(lucky_others, alone_years),
            waits_table(waited),
            short_table(waited_short),
            refusals_table(refused),
            payoff_table(waited),
        ]
    )
    print(text)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + text)
    draw_picture(pictured(lucky, waited, alone_years, alone_waits), PICTURE)
    return 0 if holds(lucky, waited, waited_short) else 1


def announced(name: str, results: Iterable[Result]) -> Iterator[Result]:
    """The results, with a line each for the person who waits."""
    for number, result in enumerate(results, 1):
        print(f"{name}: {number}", file=sys.stderr, flush=True)
        yield result


def levels(policy: str) -> GatePolicy:
    return load_document(preset=policy).policy("any model", "any market")


def with_edge(edge: float) -> World:
    return default_world(annual_sharpe=edge)


def years(world: World) -> Luck:
    return lucky_years(world, levels("strict"))


def alone_luck(world: World) -> Luck:
    return lucky_years(world, levels("thresholds-only"))


def lucky_years(world: World, policy: GatePolicy) -> Luck:
    return (
        simulate_years(world, policy, YEARS, generator(world, 0)),
        simulate_waits(world, policy, YEARS, 1.0, generator(world, 1)),
    )


def wait(world: World) -> SimulatedWaits:
    return simulate_waits(world, levels("strict"), STREAMS, HORIZON, generator(world, 2))


def alone_wait(world: World) -> SimulatedWaits:
    return simulate_waits(world, levels("thresholds-only"), STREAMS, HORIZON, generator(world, 2))


def refusals(world: World) -> Counter[str]:
    """Number of streams in which each check refuses the first retrain, and of those that pass."""
    counts = Counter[str]()
    rng = generator(world, 3)
    for _ in range(STREAMS):
        verdict = one_recipe(world, levels("strict"), 0.0, rng).verdict(0)
        counts.update(check.label for check in verdict.checks if check.status is CheckStatus.MISSED)
        counts["passed"] += verdict.passed
    return counts


def generator(world: World, part: int) -> np.random.Generator:
    """Generator of a cell of its own, so that cells are independent."""
    return np.random.default_rng([SEED, part, crc32(repr(world).encode())])


def pictured(
    lucky: dict[LuckCell, Luck],
    waits: dict[tuple[str, float, float], SimulatedWaits],
    alone: Luck,
    alone_waits: dict[float, SimulatedWaits],
) -> list[Outlook]:
    world = default_world()
    strict_waits = {edge: waits[SYMMETRIC, world.volatility, edge] for edge in EDGES}
    strict = lucky[Shape.NORMAL, SYMMETRIC, world.volatility]
    return [
        Outlook(policy, world, STREAMS, HORIZON, luck[0], edges, luck[1])
        for policy, luck, edges in zip(POLICIES, (strict, alone), (strict_waits, alone_waits), strict=True)
    ]


def holds(
    lucky: dict[LuckCell, Luck],
    waits: dict[tuple[str, float, float], SimulatedWaits],
    short: dict[tuple[float, float], SimulatedWaits],
) -> bool:
    shares = [result.promoted for luck in lucky.values() for result in luck]
    kept = all(share.value - 2 * share.error <= MAX_SHARE_OF_LUCKY_YEARS for share in shares)
    strong = [wait for (_, _, edge), wait in waits.items() if edge == 3.0]
    strong += [wait for (_, edge), wait in short.items() if edge == 3.0]
    return kept and all(wait.in_time.value >= MIN_IN_TIME for wait in strong)


def luck_table(lucky: dict[LuckCell, Luck]) -> str:
    rows = [
        [shape, payoff]
        + [str(result.promoted) for volatility in VOLATILITIES for result in lucky[shape, payoff, volatility]]
        for shape, payoff in product(SHAPES, WIN_RATES)
    ]
    pooled = [
        np.mean(
            [
                lucky[shape, payoff, volatility][kind].promoted.value
                for shape, payoff in product(SHAPES, WIN_RATES)
            ]
        )
        for volatility, kind in product(VOLATILITIES, (0, 1))
    ]
    count = YEARS * len(SHAPES) * len(WIN_RATES)
    rows.append(
        ["all", "all"] + [f"{share:.1%} ± {sqrt(share * (1 - share) / count):.1%}" for share in pooled]
    )
    headings = ["returns of a bar", "payoff"]
    headings += [
        f"{volatility:.0%}: {kind}"
        for volatility, kind in product(VOLATILITIES, ("52 recipes", "one recipe, refreshed"))
    ]
    return table(
        "Years that promote luck",
        f"{YEARS:,} years in each cell of 52 weekly retrains that earn nothing beyond their costs, under the "
        "default policy, with the Monte-Carlo standard error; at yearly volatilities of the market of "
        f"{', '.join(f'{volatility:.0%}' for volatility in VOLATILITIES)}. Every retrain is another recipe "
        "with a correlation of 0.9 to the others, or all refresh one recipe with one growing record.",
        headings,
        rows,
    )


def others_table(others: dict[str, Luck], alone: Luck) -> str:
    rows = [[name, *luck_cells(luck)] for name, luck in others.items()]
    rows.append(["thresholds alone (`thresholds-only`)", *luck_cells(alone)])
    return table(
        "Years that promote luck in other settings",
        f"{YEARS:,} years each, normal returns, volatility 35 %, symmetric payoff and 73 trades a year at 7 "
        "bps a side unless the row says otherwise. At 95 % winners a loss is 19 gains.",
        ["setting", "52 recipes", "promotions a year", "one recipe, refreshed"],
        rows,
    )


def luck_cells(luck: Luck) -> list[str]:
    other, refreshed = luck
    return [str(other.promoted), f"{other.promotions:.3f}", str(refreshed.promoted)]


def waits_table(waits: dict[tuple[str, float, float], SimulatedWaits]) -> str:
    rows = [
        [f"{edge:g}", payoff, f"{volatility:.0%}", *wait_cells(waits[payoff, volatility, edge])]
        for payoff, volatility, edge in waits
    ]
    return table(
        "How long a true edge waits",
        f"{STREAMS} streams each, normal returns: the record of a recipe, which begins with the window of "
        f"{record_years(1825):.2f} years (of 1,825 days of bars, the default) and is continued and "
        f"judged every week for {HORIZON:g} years. All years are years of record. inf: not before the end.",
        ["true Sharpe ratio", "payoff", "volatility", *WAIT_HEADINGS],
        rows,
    )


def short_table(waits: dict[tuple[float, float], SimulatedWaits]) -> str:
    rows = [
        [f"{edge:g}", f"{volatility:.0%}", *wait_cells(waits[volatility, edge])]
        for edge, volatility in product(EDGES, VOLATILITIES)
    ]
    return table(
        "The same from 365 days of bars",
        f"{STREAMS} streams each, symmetric payoff; the record begins with {record_years(365):.2f} years.",
        ["true Sharpe ratio", "volatility", *WAIT_HEADINGS],
        rows,
    )


WAIT_HEADINGS = [
    "promoted at the first retrain",
    "promoted before the end",
    "median years",
    "minimum track record, years",
    "promoted within twice that",
    "textbook minimum, years",
    "median over textbook",
]


def wait_cells(wait: SimulatedWaits) -> list[str]:
    return [
        str(wait.promoted_at_once),
        str(wait.promoted),
        f"{wait.median_years:.2f}",
        f"{wait.minimum_years:.2f}",
        str(wait.in_time) if isfinite(wait.in_time.value) else "not before the end",
        f"{wait.textbook_years:.2f}",
        f"{wait.median_years / wait.textbook_years:.1f}",
    ]


def refusals_table(refused: dict[tuple[str, float], Counter[str]]) -> str:
    names = [name for name, _ in sum(refused.values(), Counter[str]()).most_common() if name != "passed"]
    rows = [
        [f"{edge:g}", payoff, *(f"{counts[name] / STREAMS:.0%}" for name in ("passed", *names))]
        for (payoff, edge), counts in refused.items()
    ]
    return table(
        "Refusals of a true edge at the first retrain",
        f"Share of {STREAMS} streams at a volatility of 35 % in which a check is missed; a verdict can miss "
        "several. A missed deflated Sharpe ratio waits for more bars; the others fail the version, and the "
        "next retrain judges the longer record.",
        ["true Sharpe ratio", "payoff", "promoted", *names],
        rows,
    )


def payoff_table(waits: dict[tuple[str, float, float], SimulatedWaits]) -> str:
    rows = [
        [
            payoff,
            f"{volatility:.0%}",
            f"{wins:.0%}",
            f"{payoff_ratio(wins):.2f}",
            *traded_cells(waits[payoff, volatility, 2.0].realised),
        ]
        for (payoff, wins), volatility in product(WIN_RATES.items(), VOLATILITIES)
    ]
    return table(
        "Trades",
        f"Means over {STREAMS} records of {record_years(1825):.2f} years with a true Sharpe ratio of 2, "
        "after sizing and costs.",
        [
            "payoff",
            "volatility of the market",
            "win rate without an edge, before costs",
            "gain over loss",
            "net Sharpe ratio",
            "volatility",
            "win rate",
            "gain over loss, traded",
            "trades a year",
            "turnover a year",
        ],
        rows,
    )


def traded_cells(realised: Realised) -> list[str]:
    return [
        f"{realised.sharpe_ratio.value:.2f} ± {realised.sharpe_ratio.error:.2f}",
        f"{realised.volatility:.1%}",
        f"{realised.win_rate:.0%}",
        f"{realised.payoff_ratio:.2f}",
        f"{realised.trades_per_year:.0f}",
        f"{realised.turnover:.0f}",
    ]


def table(title: str, words: str, headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---" for _ in headings], *rows]
    return f"### {title}\n\n{words}\n\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
