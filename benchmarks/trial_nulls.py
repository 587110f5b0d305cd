"""Size, power and poisoning of three nulls for the best of many trials: rewrites the tables of
docs/decisions/0052-trial-luck-is-chance.md.

python -m benchmarks.trial_nulls     about five minutes on one core; the same seed gives the same tables
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.power import error, percent, table
from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence.track_record import (
    NORMAL,
    expected_maximum_sharpe,
    probabilistic_sharpe_ratio,
    track_record,
)
from clm_core.evidence.trials import DAY, TrialRecord, chance_statistics, effective_counts, trial_record
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0052-trial-luck-is-chance.md"
MARK = "<!-- below: python -m benchmarks.trial_nulls -->\n"
SEED = 20_251_204
CONFIDENCE = 0.95
PRESUMED = 10
YEAR = 365
RETRAINS = 52
Judge = Callable[[Sequence[TrialRecord], Sequence[Floats]], list[bool]]
"""Function from trials, oldest first, and their returns to the pass of each at its turn."""


def before(records: Sequence[TrialRecord], returns: Sequence[Floats]) -> list[bool]:
    """The null of release 0.1: chance plus the dispersion of the trials' results (DerSimonian & Laird 1986),
    trials counted by Galwey (2009)."""
    passes = []
    for stop in range(1, len(records) + 1):
        record = track_record(returns[stop - 1])
        passes.append(
            probabilistic_sharpe_ratio(
                record, expected_maximum_sharpe(*variance_and_count(records[:stop], record.effective_bars))
            )
            >= CONFIDENCE
        )
    return passes


def variance_and_count(records: Sequence[TrialRecord], effective_bars: float) -> tuple[float, float]:
    if len(records) == 1:
        return 1.0 / (effective_bars - 1.0), float(PRESUMED)
    first = min(record.first_day for record in records)
    days = max(record.first_day + len(record.daily) for record in records) - first
    returns = np.full((days, len(records)), np.nan)
    for column, record in enumerate(records):
        start = record.first_day - first
        returns[start : start + len(record.daily), column] = record.daily
    correlations = np.ma.filled(np.ma.corrcoef(np.ma.masked_invalid(returns), rowvar=False), 0.0)
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0.0)
    count = max(float(np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum()), PRESUMED)
    sharpes = [record.sharpe for record in records]
    chance = float(np.mean([1.0 / (record.effective_bars - 1.0) for record in records]))
    spread = max(float(np.var(sharpes, ddof=1)) - chance, 0.0)
    return 1.0 / (effective_bars - 1.0) + spread, count


def chance(records: Sequence[TrialRecord], returns: Sequence[Floats]) -> list[bool]:
    """The gate's null: chance alone, as many independent trials as have the same expected maximum."""
    counts = np.maximum(effective_counts(records), PRESUMED)
    return [
        probabilistic_sharpe_ratio(
            record, expected_maximum_sharpe(1.0 / (record.effective_bars - 1.0), float(count))
        )
        >= CONFIDENCE
        for record, count in zip(map(track_record, returns), counts, strict=True)
    ]


def maximum(records: Sequence[TrialRecord], returns: Sequence[Floats]) -> list[bool]:
    """The distribution of the maximum itself: 95 % of the draws of the largest statistic lie below."""
    drawn = chance_statistics(records)
    highest = np.random.default_rng(SEED).standard_normal((PRESUMED, drawn.shape[1])).max(axis=0)
    passes = []
    for row, values in zip(drawn, returns, strict=True):
        highest = np.maximum(highest, row)
        record = track_record(values)
        score = NORMAL.inv_cdf(min(max(probabilistic_sharpe_ratio(record), 1e-12), 1.0 - 1e-12))
        passes.append(score >= float(np.quantile(highest, CONFIDENCE)))
    return passes


NULLS: dict[str, Judge] = {
    "dispersion of the trials (before)": before,
    "chance, effective trials (the gate's)": chance,
    "maximum statistic": maximum,
}


def recorded(returns: Sequence[Floats], first_days: Sequence[int]) -> list[TrialRecord]:
    return [
        trial_record((first + np.arange(len(values))) * DAY, values, track_record(values))
        for values, first in zip(returns, first_days, strict=True)
    ]


def size(rng: np.random.Generator) -> str:
    years = 200
    rows = []
    for shape in (Shape.NORMAL, Shape.GARCH):
        for correlation in (0.0, 0.5, 0.9):
            promoted = np.array([lucky_year(shape, correlation, rng) for _ in range(years)])
            rows.append([shape, f"{correlation:g}", *(percent(share) for share in promoted.mean(axis=0))])
    return table(
        "A year of 52 weekly retrains without any edge",
        f"Share of {years} years in which at least one passes, each judged at its turn on the last 365 days "
        f"by all trials until then, at least {PRESUMED} presumed; {error(0.05, years)} at 5 %.",
        ["daily returns", "correlation of retrains", *NULLS],
        rows,
    )


def lucky_year(shape: Shape, correlation: float, rng: np.random.Generator) -> list[bool]:
    days = 2 * YEAR
    common = draw_returns(shape, 0.0, (days, 1), rng)
    own = draw_returns(shape, 0.0, (days, RETRAINS), rng)
    mixed = math.sqrt(correlation) * common + math.sqrt(1.0 - correlation) * own
    starts = [7 * week for week in range(RETRAINS)]
    returns = [mixed[start : start + YEAR, week] for week, start in enumerate(starts)]
    records = recorded(returns, starts)
    return [any(judge(records, returns)) for judge in NULLS.values()]


def power(rng: np.random.Generator) -> str:
    streams = 300
    rows = []
    for sharpe in (2.0, 2.5, 3.0):
        for name, others in COMPANY.items():
            passed = np.array([edge_passes(sharpe, others, rng) for _ in range(streams)])
            rows.append([f"{sharpe:g}", name, *(percent(share) for share in passed.mean(axis=0))])
    return table(
        "A true edge beside other trials",
        f"Share of {streams} records of three years of daily returns that pass, judged last; "
        f"{error(0.5, streams)} at 50 %.",
        ["true Sharpe ratio a year", "other trials", *NULLS],
        rows,
    )


COMPANY = {
    "9 without an edge, correlation 0.5": ((9, 0.5, 0.0),),
    "1 with a fee typo, Sharpe -7.35, correlation 0.9": ((1, 0.9, -7.35),),
    "5 of Sharpe -6, independent": ((5, 0.0, -6.0),),
    "40 that lose to costs, Sharpe -1 to -8, correlation 0.3": tuple(
        (1, 0.3, -1.0 - 7.0 * k / 39) for k in range(40)
    ),
    "100 near copies, correlation 0.99": ((100, 0.99, 0.0),),
}
"""Other trials: number, correlation with the judged trial, and annual Sharpe ratio."""


def edge_passes(
    sharpe: float, others: Sequence[tuple[int, float, float]], rng: np.random.Generator
) -> list[bool]:
    days = 3 * YEAR
    own = rng.standard_normal(days)
    returns = [
        correlation * own
        + math.sqrt(1.0 - correlation**2) * rng.standard_normal(days)
        + annual / math.sqrt(YEAR)
        for count, correlation, annual in others
        for _ in range(count)
    ]
    returns.append(own + sharpe / math.sqrt(YEAR))
    records = recorded(returns, [0] * len(returns))
    return [last_pass(judge, records, returns) for judge in NULLS.values()]


def last_pass(judge: Judge, records: Sequence[TrialRecord], returns: Sequence[Floats]) -> bool:
    if judge is before:
        record = track_record(returns[-1])
        return (
            probabilistic_sharpe_ratio(
                record, expected_maximum_sharpe(*variance_and_count(records, record.effective_bars))
            )
            >= CONFIDENCE
        )
    return judge(records, returns)[-1]


def main() -> None:
    tables = "\n".join(section(np.random.default_rng(SEED)) for section in (size, power))
    print(tables)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + tables)


if __name__ == "__main__":
    main()
