"""False discoveries of drifted features over a month of days, and the share found, by Monte Carlo: rewrites
the table of docs/explanation/monitoring.md.

    python -m benchmarks.feature_drift [--markets 24] [--seed 1]

Hourly markets, normal and GARCH(1, 1) (0.06, 0.92), with a year of training and 30 daily looks at the
fortnight before. From the end of the training on the moves are as before, or larger by a factor. Printed are
the share of markets with a feature reported on any of the days, at a false-discovery rate of 5 %, the mean
number of features reported on the last day, of all, and the share of looks above the watch's own limit, which
requests a retrain.
"""

import argparse
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from benchmarks.pages import replace_part
from clm_core.decisions.drift_discoveries import discoveries
from clm_core.domain.drift_history import DriftMeasurement
from clm_core.domain.watch_rules import WatchRules
from clm_core.market.bars import Bars
from clm_core.market.drift import CALENDAR, Drift, drift
from clm_core.market.features import FEATURES, LOOK_BACK, compute_features
from clm_core.market.timeframes import Calendar, Timeframe

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "monitoring.md"
TRAINING = 365
LOOKS = 30
COMPARED = WatchRules().drift_days
"""Days of the training, number of daily looks, days of a look."""
HOURS = 24
MOVE = 0.004
"""Standard deviation of an hour's return."""
FIRST_DAY = date(2026, 1, 1)


def market(rng: np.random.Generator, garch: bool, factor: float) -> Bars:
    """Bars whose moves are larger by a factor from the end of the training on."""
    first = LOOK_BACK + HOURS * TRAINING
    count = first + HOURS * (COMPARED + LOOKS)
    shocks = rng.standard_normal(count)
    moves = np.empty(count)
    variance = 1.0
    for row in range(count):
        moves[row] = np.sqrt(variance) * shocks[row]
        variance = 0.02 + 0.06 * moves[row] ** 2 + 0.92 * variance if garch else 1.0
    moves *= MOVE * np.where(np.arange(count) < first, 1.0, factor)
    close = 100 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    wicks = 1 + np.abs(rng.normal(0.0, MOVE / 4, (2, count)))
    high = np.maximum(opened, close) * wicks[0]
    low = np.minimum(opened, close) / wicks[1]
    time = 1_577_836_800 * 10**9 + np.arange(count, dtype=np.int64) * Timeframe.H1.nanoseconds
    volume = np.exp(rng.normal(0.0, 0.3, count))
    return Bars("MADEUP", Timeframe.H1, Calendar.ALWAYS, time, opened, high, low, close, volume)


def looks(bars: Bars) -> list[Drift]:
    """Drift of each daily look."""
    table = compute_features(bars, [name for name in FEATURES if name not in CALENDAR])
    values = table.values[table.complete]
    ends = (HOURS * (TRAINING + COMPARED + day) for day in range(LOOKS))
    trained = values[: HOURS * TRAINING]
    measured = (drift(trained, values[end - HOURS * COMPARED : end], table.names) for end in ends)
    return [each for each in measured if each is not None]


def discovered(measured: list[Drift]) -> list[int]:
    """Number of features reported on each day."""
    kept = [
        DriftMeasurement(
            day=FIRST_DAY + timedelta(days=day), name=each.name, score=each.score, p_value=each.p_value
        )
        for day, look in enumerate(measured)
        for each in look.by_feature
    ]
    days = (FIRST_DAY + timedelta(days=day) for day in range(len(measured)))
    return [len(discoveries([each for each in kept if each.day <= day], day)) for day in days]


def row(name: str, garch: bool, factor: float, markets: int, seed: int) -> str:
    measured = [looks(market(np.random.default_rng([seed, each]), garch, factor)) for each in range(markets)]
    drifted = [discovered(each) for each in measured]
    any_day = float(np.mean([any(each) for each in drifted]))
    error = (any_day * (1 - any_day) / markets) ** 0.5
    last = float(np.mean([each[-1] for each in drifted]))
    features = len(measured[0][-1].by_feature)
    above = float(np.mean([look.score > WatchRules().drift_score for each in measured for look in each]))
    cells = (name, f"{factor:g}", f"{any_day:.0%} ± {error:.0%}", f"{last:.1f} of {features}", f"{above:.0%}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markets", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines = [
        "| market | moves times | a feature reported | on the last day | looks above `drift_score` |",
        "| --- | --- | --- | --- | --- |",
        *(
            row(name, garch, factor, given.markets, given.seed)
            for name, garch in (("normal", False), ("GARCH", True))
            for factor in (1.0, 1.5, 2.0)
        ),
    ]
    text = "\n".join([*lines, ""])
    print(text)
    replace_part(DOCUMENT, "python -m benchmarks.feature_drift", text)


if __name__ == "__main__":
    main()
