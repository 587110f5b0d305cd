"""Error rates of the watch's alarm, and the time to detect, by Monte Carlo.

    python -m benchmarks.watch_alarm [--paths 2000] [--years 10] [--seed 1]

Daily returns with a known true Sharpe ratio, normal, of Student's t with 3 degrees of freedom, and of a
GARCH(1, 1) process (0.08, 0.90), go through the test of `clm_core.decisions.health` at every day's end.
Printed are the alarms per 100 quarters under watch, the share of versions alarmed within the first quarter
and the first year, each with the Monte-Carlo standard error, and the median days to the alarm.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np

from clm_core.decisions import health
from clm_core.evidence.sequential import log_odds_of_loss
from clm_core.market.bars import Floats

DAYS = 365.25
QUARTER = 91
ALPHA = 0.08
BETA = 0.90
WARM_UP = 250
"""Days of a GARCH process before the first day used."""
Noise = Callable[[np.random.Generator, int, int], Floats]


def normal(rng: np.random.Generator, paths: int, days: int) -> Floats:
    return rng.standard_normal((paths, days))


def student(rng: np.random.Generator, paths: int, days: int) -> Floats:
    return np.asarray(rng.standard_t(3, (paths, days)) / math.sqrt(3))


def garch(rng: np.random.Generator, paths: int, days: int) -> Floats:
    shocks = rng.standard_normal((paths, days + WARM_UP))
    variance = np.ones(paths)
    noise = np.empty_like(shocks)
    for day in range(days + WARM_UP):
        noise[:, day] = np.sqrt(variance) * shocks[:, day]
        variance = 1 - ALPHA - BETA + ALPHA * noise[:, day] ** 2 + BETA * variance
    return noise[:, WARM_UP:]


NOISES: dict[str, Noise] = {"normal": normal, "t(3)": student, "GARCH": garch}


def first_alarms(noise: Floats, sharpe: float) -> Floats:
    """Days to the alarm, shape (n_paths,); inf without an alarm."""
    daily = 0.01 * (noise + sharpe / math.sqrt(DAYS))
    statistic = log_odds_of_loss(daily, health.HEALTHY_SHARPE, health.LOSING_SHARPE, DAYS)
    reached = statistic >= health.ALARM
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, math.inf)


def row(kind: str, sharpe: float, alarms: Floats, days: int) -> str:
    alarmed = np.isfinite(alarms)
    quarters = float(np.minimum(alarms, days).sum()) / QUARTER
    rate = 100 * float(alarmed.sum()) / quarters
    error = 100 * math.sqrt(max(1.0, float(alarmed.sum()))) / quarters
    within = [share((alarms <= limit).astype(float)) for limit in (QUARTER, 4 * QUARTER)]
    median = float(np.median(alarms))
    half = f"{median:,.0f} d" if math.isfinite(median) else f"over {days:,} d"
    return f"| {kind} | {sharpe:g} | {rate:.2f} ± {error:.2f} | {' | '.join(within)} | {half} |"


def share(chosen: Floats) -> str:
    mean = float(np.mean(chosen))
    return f"{mean:.1%} ± {math.sqrt(mean * (1 - mean) / len(chosen)):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=2000)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print("| returns | true Sharpe | alarms in 100 quarters | in the first quarter | in a year | median |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, make in NOISES.items():
        for sharpe in (2.0, 1.0, 0.5, 0.0, -2.0, -5.0):
            days = round(given.years * DAYS) if sharpe > 0 else round(6 * DAYS)
            noise = make(np.random.default_rng(given.seed), given.paths, days)
            print(row(kind, sharpe, first_alarms(noise, sharpe), days), flush=True)


if __name__ == "__main__":
    main()
