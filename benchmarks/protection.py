"""Error rates and delays of the protection: rewrites the tables of docs/decisions/0065-protection.md.

    python -m benchmarks.protection [--paths 400] [--streams 200]     some minutes on an idle core

**Mean.** Daily returns of a version with a true Sharpe ratio of 2 until its promotion, and of 2 less a drop D
from then on, go through the test of `decisions.health`. The mean time to the alarm stands beside the shortest
that any test can reach with 25 years between false alarms (Moustakides 1986): (h - 1 + e^-h) / (D^2 / 2)
years with e^h - h - 1 = 25 D^2 / 2.

**Tail.** Hourly returns of three years are the backtest, the next quarter is watched by `evidence.tail_risk`:
unchanged; of a market whose volatility doubles after half of it; and with the worst tenth of the bars, in
units of the trailing volatility, twice as deep.

**Hard stop.** Mean years until a drawdown of 20 %, by formula.

**First trades.** Share of versions with a true Sharpe ratio of 2 that show less than 0.5 over their first
trades.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks import watch_alarm
from benchmarks.power import error, percent, table
from clm_core.decisions.protection import years_to_hard_stop
from clm_core.decisions.protection_rules import ProtectionRules
from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence.tail_risk import reference_of, standardised, tail_test

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0065-protection.md"
MARK = "<!-- below: python -m benchmarks.protection -->\n"
SEED = 3
YEARS_BETWEEN_FALSE_ALARMS = 25.0
"""One false alarm in 100 quarters."""
DROPS = (3.0, 6.0)
QUARTER = 2_184
"""Hourly bars."""
BACKTEST = 12 * QUARTER
HOURLY_SHARPE = 0.02
HOURLY_DEVIATION = 0.001
WITHIN = 1_000
SHAPES = (Shape.NORMAL, Shape.STUDENT, Shape.AUTOREGRESSIVE, Shape.GARCH, Shape.SKEWED)
VOLATILITIES = (0.10, 0.15, 0.35)
DAYS_OF_FIRST_TRADES = (30, 90, 365)


def shortest_delay(drop: float) -> float:
    """Mean years to an alarm of the best test for a known drop of the Sharpe ratio."""
    half = drop * drop / 2
    level = brentq(lambda h: math.expm1(h) - h - YEARS_BETWEEN_FALSE_ALARMS * half, 1e-6, 50.0)
    return float((level - 1 + math.exp(-level)) / half)


def mean_rows(paths: int) -> Iterator[list[str]]:
    days = round(8 * watch_alarm.DAYS)
    for name, make in watch_alarm.NOISES.items():
        for drop in DROPS:
            noise = make(np.random.default_rng(SEED), paths, days)
            delays = np.minimum(watch_alarm.first_alarms(noise, 2.0 - drop), days) / watch_alarm.DAYS
            error = float(delays.std()) / math.sqrt(paths)
            best = shortest_delay(drop)
            mean = float(delays.mean())
            yield [name, f"{drop:g}", f"{mean:.2f} ± {error:.2f}", f"{best:.2f}", f"{mean / best:.2f}"]


def tail_rows(streams: int) -> Iterator[list[str]]:
    for shape in SHAPES:
        rng = np.random.default_rng(SEED)
        drawn = HOURLY_DEVIATION * draw_returns(shape, HOURLY_SHARPE, (BACKTEST + QUARTER, streams), rng).T
        raised = np.zeros((streams, 3), dtype=bool)
        delays = np.full(streams, math.inf)
        for number, stream in enumerate(drawn):
            backtest = stream[:BACKTEST]
            after = stream[BACKTEST:]
            reference = reference_of(backtest, QUARTER, np.random.default_rng(0))
            assert reference is not None
            wilder = np.where(np.arange(QUARTER) < QUARTER // 2, after, 2 * after)
            units = standardised(after, backtest)
            deeper = np.where(units <= -reference.tail_from, 2 * units, units)
            cases = (units, standardised(wilder, backtest), deeper[:WITHIN])
            tests = [tail_test(case, reference) for case in cases]
            raised[number] = [test.raised_at is not None for test in tests]
            delays[number] = tests[2].raised_at or math.inf
        shares = [percent(float(share)) for share in raised.mean(axis=0)]
        yield [shape.value, *shares, f"{np.median(delays):.0f}"]


def hard_stop_rows() -> Iterator[list[str]]:
    limit = ProtectionRules().max_drawdown
    for volatility in VOLATILITIES:
        years = [years_to_hard_stop(sharpe, volatility, limit) for sharpe in (0.0, 1.0, 2.0)]
        yield [f"{volatility:.0%}", *(f"{each:,.1f}" for each in years)]


def first_trades_rows() -> Iterator[list[str]]:
    for days in DAYS_OF_FIRST_TRADES:
        miss = norm.cdf((ProtectionRules().min_sharpe - 2.0) * math.sqrt(days / 365))
        yield [f"{days}", f"{miss:.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=400)
    parser.add_argument("--streams", type=int, default=200)
    given = parser.parse_args()
    parts = [
        table(
            "Time to the alarm on the mean",
            f"Daily returns, {given.paths} paths a row, with the standard error.",
            ["returns", "drop of the Sharpe ratio from 2", "mean years", "best possible", "ratio"],
            list(mean_rows(given.paths)),
        ),
        table(
            "Alarm on the tail",
            f"Hourly returns, {given.streams} streams a row; {error(0.01, given.streams)} at 1 %.",
            [
                "returns",
                "alarms in a quarter, nothing changed",
                "volatility doubles",
                f"worst tenth twice as deep: found within {WITHIN:,} bars",
                "median bars",
            ],
            list(tail_rows(given.streams)),
        ),
        table(
            "Mean years to a hard stop",
            f"Drawdown of {ProtectionRules().max_drawdown:.0%}, true figures constant, by formula.",
            ["volatility", "true Sharpe ratio 0", "1", "2"],
            list(hard_stop_rows()),
        ),
        table(
            "The plain rule on the first trades",
            "Share of versions with a true Sharpe ratio of 2 that show less than 0.5, normal returns.",
            ["days that the trades take", "taken back"],
            list(first_trades_rows()),
        ),
    ]
    text = "\n".join(parts)
    print(text)
    head = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    DOCUMENT.write_text(f"{head}{MARK}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
