"""Picture of two replays side by side, for README.md and docs/how-to/replay.md:

    clm replay --model xgboost --world dying --world-seed 2 --from 2020-01-01 --to 2021-07-01 \\
        --change 2020-10-01 --every 28 --json > dying.json
    clm replay --model xgboost --symbol BTCUSD --from 2018-10-01 --to 2019-10-01 --json > btcusd.json
    python scripts/replay_picture.py dying.json btcusd.json

The curves of the first policy, with promotions, rollbacks and halts on the production, and below them the
verdicts of the retrains.
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

from clm_core.domain.replays import PolicyReplay, ReplayEventKind, ReplayResult
from clm_core.explain.replay_sections import COLOURS, TIME_LINE

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "replay.png"
VERDICTS = ("retrain PASS", "retrain INCONCLUSIVE", "retrain FAIL")
CHANGES = {"promotion": ("^", "#2f6fed"), "rollback": ("v", "#c0392b"), "halt": ("v", "#c0392b")}


def main(files: Sequence[str]) -> None:
    results = [_result(Path(each)) for each in files]
    figure, axes = plt.subplots(
        2,
        len(results),
        figsize=(11, 4.6),
        sharex="col",
        squeeze=False,
        layout="constrained",
        height_ratios=(4, 1),
    )
    for column, result in enumerate(results):
        draw_curves(axes[0][column], result, result.policies[0])
        draw_verdicts(axes[1][column], result.policies[0], named=column == 0)
    figure.savefig(PICTURE, dpi=100)


def _result(file: Path) -> ReplayResult:
    content = json.loads(file.read_text())
    del content["digest"]
    return ReplayResult.model_validate(content)


def draw_curves(axis: Axes, result: ReplayResult, replayed: PolicyReplay) -> None:
    days = np.array(result.days)
    for curve in replayed.curves:
        width = 2.2 if curve.name == "production" else 1.0
        axis.plot(days, curve.equity, color=COLOURS[curve.name], linewidth=width, label=curve.name)
    for kind, (mark, colour) in CHANGES.items():
        told = [each for each in replayed.events if each.kind is ReplayEventKind.PRODUCTION]
        times = [each.at for each in told if each.outcome == kind]
        if times:
            rows = np.clip(np.searchsorted(days, np.array(times)) - 1, 0, None)
            heights = np.array(replayed.production.equity)[rows]
            axis.scatter(times, heights, marker=mark, color=colour, s=55, zorder=5, label=kind)
    request = result.request
    if request.world is not None and request.world.changes:
        axis.axvline(np.datetime64(request.change), color="#7a7a7a", linewidth=1, linestyle=":")
    known = replayed.known
    false = (
        ""
        if known is None
        else f"\nfalse promotions {known.false_promotions}, false halts {known.false_endings}"
    )
    axis.set_title(
        f"{request.kind} on {request.market}: {replayed.promotions} promotions{false}", fontsize=10
    )
    axis.legend(fontsize=8, frameon=False, loc="best")
    axis.set_ylabel("equity, 1 at the start", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def draw_verdicts(axis: Axes, replayed: PolicyReplay, named: bool) -> None:
    for place, name in enumerate(reversed(VERDICTS)):
        decision = name.split()[-1].lower()
        retrains = [each for each in replayed.events if each.kind is ReplayEventKind.RETRAIN]
        times = [each.at for each in retrains if each.outcome == decision]
        axis.scatter(times, [place] * len(times), color=TIME_LINE[name], s=14)
    names = [each.split()[-1] for each in reversed(VERDICTS)]
    axis.set_yticks(range(len(names)), names if named else [""] * len(names), fontsize=8)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(locator := AutoDateLocator())
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))


if __name__ == "__main__":
    main(sys.argv[1:])
