"""Volatility of a series with flat models in some folds.

    python -m benchmarks.flat_folds

Signals without skill (Ornstein-Uhlenbeck, of a known half-life) stand for the networks on the daily BTC bars
of docs/reference/recipes.md: sized fold by fold as networks are, in the folds of their plan, with no
position in folds drawn at random. The spread between the draws is due to the measurement alone. The
volatility is measured on the bars with a position, years weighted by the number of such bars.
"""

import argparse
from itertools import product

import numpy as np

from benchmarks.known_signal import ornstein_uhlenbeck
from benchmarks.recipes import (
    REPORTED,
    VOLATILITY,
    bars_of,
    default_plan,
    market_of,
    series_volatility,
    years_of,
)
from clm_core.backtest.walk_forward import fold_rows, history_start
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import EQUAL_FOLDS
from clm_core.models.networks import forecasting
from clm_core.models.sizing import size_positions

[WINDOW] = (window for window in REPORTED if window.file == "BTCUSDT_1d")
HALF_LIVES = (20.0, 48.0)
"""Half-lives of the signal, bars."""
DRAWS = 100


def volatility(active: int, half_life: float, folds: int | None, seed: int) -> float:
    """Volatility of the bars with a position, of a draw.

    Args:
        active: folds with positions.
        folds: number of equal folds; None for folds at fixed dates.
    """
    rng = np.random.default_rng(seed)
    bars = bars_of(WINDOW)
    plan = default_plan(ModelType.PATCHTST, bars, folds)
    every = fold_rows(bars.time, plan)
    positions = np.zeros(len(bars))
    for number in rng.permutation(len(every))[:active]:
        train, test = every[number]
        begin = history_start(plan, train)
        signal = np.clip(0.5 * ornstein_uhlenbeck(half_life, test.stop - begin, rng), -1.0, 1.0)
        sized = size_positions(bars[begin : test.stop], signal, forecasting.SIZING)
        positions[test] = sized[test.start - begin :]
    tested = slice(every[0][1].start, len(bars))
    result = market_of(bars).under(NEW_VERSIONS).backtest(bars[tested], positions[tested])
    return series_volatility(years_of(WINDOW, bars[tested], result, result))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print("| folds | with positions | half-life, bars | volatility | 5 to 95 % of draws | below 7 % |")
    print("| --- | --- | --- | --- | --- | --- |")
    cases = ((EQUAL_FOLDS, 5), (EQUAL_FOLDS, 2), (None, 6), (None, 3), (None, 2))
    for (folds, active), half_life in product(cases, HALF_LIVES):
        drawn = np.array([volatility(active, half_life, folds, seed) for seed in range(DRAWS)])
        low, high = np.quantile(drawn, (0.05, 0.95))
        name = "at fixed dates" if folds is None else f"{folds} equal"
        below = np.mean(drawn < VOLATILITY[0])
        figures = f"{drawn.mean():.1%} | {low:.1%} to {high:.1%} | {below:.0%}"
        print(f"| {name} | {active} | {half_life:g} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
