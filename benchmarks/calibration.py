"""Coverage of the intervals about forecasts by simulation: rewrites the tables of
docs/decisions/0082-calibration-counts-outcomes-without-overlap.md.

    python -m benchmarks.calibration [--series 200] [--long 400000] [--seed 1]

First table: forecasts of a rise over the next 24 bars with the right probabilities, by a score with a
half-life. Printed is the share of series whose intervals of 95 % hold the true skill, by the uniqueness of
the outcomes and by Newey & West, the true area under the ROC curve, and the probabilities of the bins.

Second table: adaptive conformal intervals of 90 % of sums over a horizon. Printed are the largest distance
of the coverage from 90 % in a tenth as many series, and the share of infinite intervals.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from benchmarks.pages import markdown_table, replace_part
from clm_core.explain import conformal
from clm_core.explain.calibration import calibration_of
from clm_core.explain.estimates import Z
from clm_core.explain.forecasts import Outcomes
from clm_core.market.bars import Floats
from clm_core.models.trees.calibration import logistic

DOCUMENT = (
    Path(__file__).parents[1] / "docs" / "decisions" / "0082-calibration-counts-outcomes-without-overlap.md"
)
HORIZON = 24
EDGES = {0: 0.15, 8: 0.05, 48: 0.03, 400: 0.03}
"""Drift of a bar for a score of 1, in standard deviations of a bar's return, by half-life of the score."""
WARM_UP = 400
BARS = 5_000
"""Bars of a series with conformal intervals."""


def outcomes_of(rng: np.random.Generator, bars: int, half_life: int) -> Outcomes:
    """Right forecasts of moves over `HORIZON` bars."""
    keep = 0.5 ** (1 / half_life) if half_life else 0.0
    shocks = rng.normal(size=bars + WARM_UP) * math.sqrt(1 - keep**2)
    score = np.array(list(accumulate(shocks.tolist(), lambda before, shock: keep * before + shock)))[-bars:]
    edge = EDGES[half_life]
    moves = edge * np.append(0.0, score[:-1]) + rng.normal(size=bars)
    path = np.append(0.0, np.cumsum(moves))
    row = np.arange(bars - HORIZON)
    rise = path[row + 1 + HORIZON] > path[row + 1]
    drift = edge * score[row] * sum(keep**step for step in range(HORIZON))
    # 1.702: the logistic curve closest to the normal one
    probability = logistic(1.702 * drift / math.sqrt(HORIZON))
    return Outcomes(probability, rise.astype(float), np.zeros(len(row)), row, row + HORIZON)


def skill_rows(series: int, long: int, seed: int) -> Iterator[tuple[str, ...]]:
    for half_life in EDGES:
        rng = np.random.default_rng(seed)
        true = calibration_of(outcomes_of(rng, long, half_life))
        for bars in (2_400, 4_800):
            held = np.array(
                [
                    _held(outcomes_of(rng, bars, half_life), true.brier.skill.value, true.auc.value)
                    for _ in range(series)
                ]
            )
            yield (f"{bars:,}", str(half_life), *(f"{share:.0%}" for share in held.mean(axis=0)))


def _held(outcomes: Outcomes, skill: float, area: float) -> tuple[float, ...]:
    calibration = calibration_of(outcomes)
    brier = calibration.brier.skill
    gains = (outcomes.rise.mean() - outcomes.rise) ** 2 - (outcomes.probability - outcomes.rise) ** 2
    half = Z * math.sqrt(newey_west(gains, 2 * HORIZON)) / calibration.brier.uncertainty
    return (
        float(brier.low <= skill <= brier.high),
        float(abs(brier.value - skill) <= half),
        float(calibration.auc.low <= area <= calibration.auc.high),
        float(np.mean([each.rises.low <= each.mean <= each.rises.high for each in calibration.bins])),
    )


def newey_west(values: Floats, lags: int) -> float:
    """Variance of the mean by Newey & West (1987)."""
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * len(values))
    covariances = np.fft.irfft(spectrum * np.conj(spectrum))[: lags + 1] / len(values)
    weights = 2 * (1 - np.arange(1, lags + 1) / (lags + 1))
    return float(max(covariances[0] + weights @ covariances[1:], 0.0)) / len(values)


def garch(rng: np.random.Generator) -> Floats:
    """Moves of a GARCH(1, 1) with persistence 0.98."""
    moves = np.empty(BARS)
    variance = 1.0
    for row, shock in enumerate(rng.normal(size=BARS).tolist()):
        moves[row] = math.sqrt(variance) * shock
        variance = 0.02 + 0.1 * moves[row] ** 2 + 0.88 * variance
    return moves


def threefold(rng: np.random.Generator) -> Floats:
    """Moves three times as large from the middle on."""
    return np.where(np.arange(BARS) > BARS // 2, 3.0, 1.0) * rng.normal(size=BARS)


def interval_rows(series: int, seed: int) -> Iterator[tuple[str, ...]]:
    streams = {"GARCH(1, 1)": garch, "volatility threefold from the middle on": threefold}
    for horizon in (6, 24, 72):
        for name, stream in streams.items():
            # by the horizon given, the step is divided by its root
            cells = [_coverage(stream, series, seed, horizon, given) for given in (1, horizon, horizon**2)]
            yield (str(horizon), name, *cells)


def _coverage(
    stream: Callable[[np.random.Generator], Floats], series: int, seed: int, horizon: int, given: int
) -> str:
    rng = np.random.default_rng(seed)
    distance = []
    infinite = []
    for _ in range(series):
        moves = stream(rng)
        totals = np.append(0.0, np.cumsum(moves))
        errors = np.abs(totals[horizon:] - totals[:-horizon])
        widths = conformal.half_widths(errors, np.arange(len(errors)) + horizon + 1, given)
        known = ~np.isnan(widths)
        distance.append(abs(np.mean(errors[known] <= widths[known]) - conformal.COVERAGE))
        infinite.append(np.isinf(widths[known]).mean())
    return f"{100 * max(distance):.1f} points, {np.mean(infinite):.1%} infinite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--long", type=int, default=400_000, help="bars of the series of the true values")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    skill = markdown_table(
        (
            "bars",
            "half-life of the score, bars",
            "skill, uniqueness",
            "skill, Newey-West with 48 lags",
            "area under the curve",
            "bins",
        ),
        list(skill_rows(given.series, given.long, given.seed)),
    )
    step = f"step {conformal.RATE:g}"
    intervals = markdown_table(
        ("horizon", "stream", step, "divided by the root of the horizon", "divided by the horizon"),
        list(interval_rows(max(given.series // 10, 1), given.seed)),
    )
    for part, text in (("skill", skill), ("intervals", intervals)):
        print(text)
        replace_part(DOCUMENT, f"python -m benchmarks.calibration, {part}", text)


if __name__ == "__main__":
    main()
