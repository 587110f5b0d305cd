"""Error rates and power of the two ways into production, as shipped: rewrites the tables of
docs/decisions/0056-refresh-or-replacement.md.

python -m benchmarks.succession     takes some minutes; the same seed gives the same tables
"""

from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from benchmarks.power import error, percent, table
from clm_core.backtest.agreement import rank_correlation
from clm_core.decisions.checks.succession import TOLERANCE
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.evidence.equal_volatility import at_equal_volatility
from clm_core.evidence.paired import PairedRecord, bounds
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0056-refresh-or-replacement.md"
MARK = "<!-- below: python -m benchmarks.succession -->\n"
SEED = 20_261_129
LEVELS = EvidenceLevels()
DAY = 24
YEAR = 365 * DAY
MONTHS = (1, 3, 6, 12, 24)
STREAMS = 200
FOLDS = 12
FOLD_BARS = 91 * DAY


def main() -> None:
    tables = "\n".join(section(np.random.default_rng(SEED)) for section in (replacements, refreshes))
    print(tables)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + tables)


def replacements(rng: np.random.Generator) -> str:
    """Share of the replacements shown to be better, by Sharpe ratio and time in shadow."""
    rows = []
    for correlation in (0.3, 0.8):
        for gap in (-1.0, 0.0, 1.0, 2.0, 4.0):
            days = np.array([first_day(*pair) for pair in streams(gap, correlation, rng)])
            shown = [percent(np.mean(days <= 30 * months)) for months in MONTHS]
            rows.append([f"{correlation:g}", f"{gap:+g}", *shown])
    return table(
        "Replacements shown to be better in shadow",
        "Hourly returns with GARCH(1,1) volatility, three times the champion's size, a champion with a true "
        f"Sharpe ratio of 1, looked at every day; {STREAMS} streams, {error(0.05, STREAMS)} at 5 %.",
        ["correlation", "Sharpe ratio above the champion's", *(f"{months} months" for months in MONTHS)],
        rows,
    )


def streams(gap: float, correlation: float, rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Returns of challenger and champion at equal volatility, shape (n_bars,) each."""
    shape = (max(MONTHS) * 30 * DAY, STREAMS)
    theirs = rng.normal(size=shape)
    ours = correlation * theirs + sqrt(1 - correlation**2) * rng.normal(size=shape)
    volatility = garch(rng, shape)
    ours = 0.003 * volatility * (ours + (1.0 + gap) / sqrt(YEAR))
    theirs = 0.001 * volatility * (theirs + 1.0 / sqrt(YEAR))
    for pair in zip(ours.T, theirs.T, strict=True):
        yield at_equal_volatility(pair[0], YEAR), at_equal_volatility(pair[1], YEAR)


def garch(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Volatility of both strategies, which share a market, shape (n_bars, n_streams)."""
    volatility = np.empty(shape)
    variance = np.ones(shape[1])
    for bar, shock in enumerate(rng.normal(size=shape)):
        volatility[bar] = np.sqrt(variance)
        variance = 0.02 + 0.06 * variance * shock * shock + 0.92 * variance
    return volatility


def first_day(ours: Floats, theirs: Floats) -> float:
    """Day on which the challenger is first shown to be better; inf: not within the time.

    The sums of `paired.PairedRecord` at the end of each day, instead of bar by bar.
    """
    warm = int(np.argmax(np.isfinite(ours - theirs)))
    difference = (ours - theirs)[warm:]
    steps = difference - difference[0]
    sums = [np.cumsum(each) for each in (steps, steps**2, steps**3, steps * np.append(0.0, steps[:-1]))]
    for last in range(DAY - warm % DAY - 1, len(steps), DAY):
        total, squares, cubes, products = (float(each[last]) for each in sums)
        record = PairedRecord(
            last + 1, float(difference[0]), float(steps[last]), total, squares, cubes, products
        )
        if bounds(record, LEVELS.champion_alpha, LEVELS.champion_bars).low > 0.0:
            return (warm + last + 1) / DAY
    return np.inf


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
    decay = 0.5 ** (1 / 24)
    shocks = rng.normal(size=(2, FOLD_BARS))
    shocks[0] = correlation * shocks[1] + sqrt(1 - correlation**2) * shocks[0]
    ours, theirs = (np.tanh(lfilter([sqrt(1 - decay**2)], [1, -decay], each)) for each in shocks)
    return ours, theirs


if __name__ == "__main__":
    main()
