"""Promotions of the default policy and of the thresholds alone: rewrites the tables of
docs/decisions/0002-gate.md and the picture in the README.

python -m benchmarks.gate     about ten minutes on two cores; the same seed gives the same figures
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from math import isfinite
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process a core, and small matrices

from clm_core.decisions.gate_policy import GatePolicy, load_document
from clm_core.decisions.outlook import Outlook, draw_picture, outlook
from clm_core.decisions.return_streams import Shape
from clm_core.decisions.simulation import World

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = DOCS / "decisions" / "0002-gate.md"
PICTURE = DOCS / "images" / "gate.png"
MARK = "<!-- below: python -m benchmarks.gate -->\n"
SEED = 20_251_204
YEARS = {"strict": 200, "thresholds-only": 200}
STREAMS = 100
HORIZON = 4.0
SHAPES = (Shape.NORMAL, Shape.STUDENT, Shape.AUTOREGRESSIVE, Shape.GARCH)
CORRELATIONS = (0.0, 0.9)
WINDOW_YEARS = 1080 / 365
"""Out-of-sample window of a retrain with the default of 1,825 days of hourly bars."""
RECORDS = (204 / 365, WINDOW_YEARS)
"""Out-of-sample windows of 365 and 1,825 days of hourly bars."""
EDGES = (1.0, 2.0, 3.0)
POLICIES = ("strict", "thresholds-only")
MAX_SHARE_OF_LUCKY_YEARS = 0.05
MIN_IN_TIME = 0.80

EdgelessCase = tuple[Shape, float, float, str]


def main() -> int:
    edgeless_cases = list(product(SHAPES, CORRELATIONS, RECORDS, POLICIES))
    with ProcessPoolExecutor() as pool:
        edgeless = dict(zip(edgeless_cases, pool.map(years, edgeless_cases), strict=True))
        waits = dict(zip(POLICIES, pool.map(streams, POLICIES), strict=True))
    text = "\n".join([edgeless_table(edgeless), waits_table(waits)])
    print(text)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + text)
    draw_picture([pictured(edgeless, waits, policy) for policy in POLICIES], PICTURE)
    return 0 if holds(edgeless, waits["strict"]) else 1


def years(case: EdgelessCase) -> Outlook:
    shape, correlation, record_years, policy = case
    world = World(shape, retrain_correlation=correlation, record_years=record_years)
    return outlook(world, levels(policy), [0.0], YEARS[policy], HORIZON, SEED)


def streams(policy: str) -> Outlook:
    return outlook(World(record_years=WINDOW_YEARS), levels(policy), EDGES, STREAMS, HORIZON, SEED)


def levels(policy: str) -> GatePolicy:
    return load_document(preset=policy).policy("any model", "any market")


def pictured(edgeless: dict[EdgelessCase, Outlook], waits: dict[str, Outlook], policy: str) -> Outlook:
    world = edgeless[Shape.NORMAL, 0.9, WINDOW_YEARS, policy]
    return Outlook(policy, world.world, STREAMS, HORIZON, world.luck, waits[policy].edges)


def holds(edgeless: dict[EdgelessCase, Outlook], strict: Outlook) -> bool:
    shares = [
        result.luck.promoted for case, result in edgeless.items() if result.luck and case[-1] == "strict"
    ]
    kept = all(share.value - 2 * share.error <= MAX_SHARE_OF_LUCKY_YEARS for share in shares)
    return kept and strict.edges[3.0].in_time.value >= MIN_IN_TIME


def edgeless_table(edgeless: dict[EdgelessCase, Outlook]) -> str:
    rows = [
        f"| {shape} | {correlation:g} | {50 / 90 * 365 * record:.0f} | "
        + " | ".join(
            cell for policy in POLICIES for cell in cells(edgeless[shape, correlation, record, policy])
        )
        + " |"
        for shape, correlation, record in product(SHAPES, CORRELATIONS, RECORDS)
    ]
    return "\n".join(
        [
            "### Years that promote luck",
            "",
            f"{YEARS['strict']:,} years ({YEARS['thresholds-only']:,} by thresholds alone) of 52 weekly "
            "retrains without any edge, with the Monte-Carlo standard error.",
            "",
            "| returns | correlation of retrains | trades of record | strict: years | promotions a year "
            "| thresholds-only: years | promotions a year |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def cells(result: Outlook) -> list[str]:
    assert result.luck is not None
    return [str(result.luck.promoted), f"{result.luck.promotions:.3f}"]


def waits_table(waits: dict[str, Outlook]) -> str:
    rows = [
        f"| {edge:g} | {policy} | {wait.promoted} | {wait.median_years:.2f} | {wait.minimum_years:.2f} "
        f"| {wait.in_time if isfinite(wait.in_time.value) else 'not before the end'} |"
        for edge in EDGES
        for policy, wait in ((policy, waits[policy].edges[edge]) for policy in POLICIES)
    ]
    return "\n".join(
        [
            "### How long a true edge waits",
            "",
            f"{STREAMS} streams each, normal returns, 203 trades a year: the record of a recipe, "
            f"which begins with a window of {WINDOW_YEARS:.2f} years (of 1,825 days of bars, default) and "
            f"is continued and judged every week for {HORIZON:g} years; correlation of retrains 0.9. Years "
            "are years of record. inf: not before the end.",
            "",
            "| true annual Sharpe | policy | promoted | median years | minimum track record, years "
            "| promoted within twice that |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
