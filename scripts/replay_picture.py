"""Picture of two replays side by side, for README.md and docs/how-to/replay.md:

    clm replay --model xgboost --world dying --world-seed 2 --from 2020-01-01 --to 2021-09-01 \\
        --change 2020-10-01 --every 28 --json > dying.json
    clm replay --model xgboost --symbol BTCUSD --from 2018-10-01 --to 2019-10-01 --json > btcusd.json
    python scripts/replay_picture.py dying.json btcusd.json

The curves of the first policy but for holding, and below them the changes of production and the verdicts of
the retrains.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from PIL import Image

from clm_core.domain import measures
from clm_core.domain.replays import PolicyReplay, ReplayEventKind, ReplayResult
from clm_core.explain.replay_sections import COLOURS, TIME_LINE

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "replay.png"
ROWS = (
    ("rollback, halt", ReplayEventKind.PRODUCTION, ("rollback", "halt"), TIME_LINE["halt"]),
    ("promotion", ReplayEventKind.PRODUCTION, ("promotion",), TIME_LINE["promotion"]),
    ("PASS", ReplayEventKind.RETRAIN, ("pass",), TIME_LINE["retrain PASS"]),
    ("INCONCLUSIVE", ReplayEventKind.RETRAIN, ("inconclusive",), TIME_LINE["retrain INCONCLUSIVE"]),
    ("FAIL", ReplayEventKind.RETRAIN, ("fail",), TIME_LINE["retrain FAIL"]),
)
"""Rows below the curves, from above: name, kind and outcomes of the events, and colour."""


def main(files: Sequence[str]) -> None:
    results = [_result(Path(each)) for each in files]
    figure, axes = plt.subplots(
        2,
        len(results),
        figsize=(11, 4.6),
        sharex="col",
        squeeze=False,
        layout="constrained",
        height_ratios=(3, 1),
    )
    for column, result in enumerate(results):
        draw_curves(axes[0][column], result, result.policies[0])
        draw_events(axes[1][column], result.policies[0], named=column == 0)
    figure.savefig(PICTURE, dpi=100)
    # a third of the size
    Image.open(PICTURE).convert("RGB").quantize(64).save(PICTURE, optimize=True)


def _result(file: Path) -> ReplayResult:
    content = json.loads(file.read_text())
    del content["digest"], content["page"]
    return ReplayResult.model_validate(content)


def draw_curves(axis: Axes, result: ReplayResult, replayed: PolicyReplay) -> None:
    for curve in replayed.curves:
        if curve.name != "hold":
            width = 2.2 if curve.name == "production" else 1.2
            axis.plot(result.days, curve.equity, color=COLOURS[curve.name], linewidth=width, label=curve.name)
    request = result.request
    if request.world is not None and request.world.changes:
        change = np.datetime64(request.change)
        axis.axvline(change, color="#7a7a7a", linewidth=1, linestyle=":", label="edge changes")
    earned = measures.signed_percent(replayed.production.figures.total_return)
    counts = f"{replayed.promotions} promotions, {replayed.rollbacks} rollbacks and halts"
    axis.set_title(f"{request.kind} on {request.market}: {counts}, {earned}", fontsize=10)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    axis.set_ylabel("equity, 1 at the start", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def draw_events(axis: Axes, replayed: PolicyReplay, named: bool) -> None:
    for place, (_, kind, outcomes, colour) in enumerate(reversed(ROWS)):
        times = [each.at for each in replayed.events if each.kind is kind and each.outcome in outcomes]
        axis.scatter(times, [place] * len(times), color=colour, s=12)
    names = [name for name, *_ in reversed(ROWS)]
    axis.set_yticks(range(len(names)), names if named else [""] * len(names), fontsize=8)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(locator := AutoDateLocator())
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))


if __name__ == "__main__":
    main(sys.argv[1:])
