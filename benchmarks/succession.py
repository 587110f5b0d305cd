"""Refreshes that agree with the champion, as shipped: rewrites the table of
docs/decisions/0056-refresh-or-replacement.md. Replacements are in `benchmarks.shadow_decisions`.

python -m benchmarks.succession     takes some minutes; the same seed gives the same tables
"""

from math import sqrt
from pathlib import Path

import numpy as np

from benchmarks.power import error, percent, table
from clm_core.backtest.agreement import rank_correlation
from clm_core.decisions.checks.succession import TOLERANCE
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0056-refresh-or-replacement.md"
MARK = "<!-- below: python -m benchmarks.succession -->\n"
SEED = 20_261_129
DAY = 24
STREAMS = 200
FOLDS = 12
FOLD_BARS = 91 * DAY


def main() -> None:
    agreeing = refreshes(np.random.default_rng(SEED))
    print(agreeing)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + agreeing)


def refreshes(rng: np.random.Generator) -> str:
    """Share of the refreshes that agree, by the true correlation of the positions."""
    rows = []
    for recipe in (0.9, 0.6, 0.3):
        agreed = {}
        for actual in (recipe, recipe - 0.2, recipe - 0.4, 0.0, -recipe):
            passed = [agrees(recipe, actual, rng) for _ in range(STREAMS)]
            agreed[actual] = percent(np.mean(passed))
        rows.append([f"{recipe:g}", *agreed.values()])
    return table(
        "Refreshes that agree with the champion",
        "Positions held for days (AR(1), half-life 24 h) with a correlation between consecutive fits; "
        f"{FOLDS} folds of a quarter of hourly bars, {STREAMS} recipes, {error(0.05, STREAMS)} at 5 %. A "
        "refresh like its recipe should pass.",
        [
            "correlation of consecutive folds",
            "like the recipe",
            "0.2 less",
            "0.4 less",
            "unrelated",
            "reversed",
        ],
        rows,
    )


def agrees(recipe: float, actual: float, rng: np.random.Generator) -> bool:
    of_folds = [rank_correlation(*positions(recipe, rng)) for _ in range(FOLDS - 1)]
    return rank_correlation(*positions(actual, rng)) >= min(of_folds) - TOLERANCE


def positions(correlation: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    from scipy.signal import lfilter

    decay = 0.5 ** (1 / 24)
    shocks = rng.normal(size=(2, FOLD_BARS))
    shocks[0] = correlation * shocks[1] + sqrt(1 - correlation**2) * shocks[0]
    ours, theirs = (np.tanh(lfilter([sqrt(1 - decay**2)], [1, -decay], each)) for each in shocks)
    return ours, theirs


if __name__ == "__main__":
    main()
