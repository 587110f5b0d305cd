"""Error rates and power of the evidence tests: rewrites the tables of
docs/decisions/0001-evidence.md.

python -m benchmarks.power     takes a few minutes; the same seed gives the same tables
"""

from dataclasses import replace
from math import inf, sqrt
from pathlib import Path

import numpy as np

from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence.bootstrap import difference_interval, sharpe_interval
from clm_core.evidence.paired import PairedRecord, Standing, stand, update
from clm_core.evidence.track_record import (
    TrackRecord,
    expected_maximum_sharpe,
    probabilistic_sharpe_ratio,
    track_record,
)
from clm_core.evidence.trials import DAY, TrialCount, count_trials, trial_record
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0001-evidence.md"
MARK = "<!-- below: python -m benchmarks.power -->\n"
ALPHA = 0.05
SEED = 20_251_204

Cells = list[str]


def main() -> None:
    sections = (
        size_and_power,
        coverage,
        expected_maximum_table,
        retrained_years,
        false_decisions,
        decision_times,
    )
    tables = "\n".join(section(np.random.default_rng(SEED)) for section in sections)
    print(tables)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + tables)


def size_and_power(rng: np.random.Generator) -> str:
    streams = 3000
    rows = []
    for shape in Shape:
        for bars in (100, 250, 1000):
            none = [track_record(x) for x in draw_returns(shape, 0.0, (bars, streams), rng).T]
            edge = [track_record(x) for x in draw_returns(shape, 0.1, (bars, streams), rng).T]
            every = [replace(record, effective_bars=float(bars)) for record in none]
            rows.append([shape, f"{bars:,}", passed(none), passed(every), passed(edge)])
    return table(
        "Probabilistic Sharpe ratio of at least 0.95",
        f"Share of {streams:,} streams that pass. Without an edge it should be 5 %; {error(ALPHA, streams)}.",
        ["returns", "bars", "no edge", "no edge, every bar counted as independent", "Sharpe 0.1 a bar"],
        rows,
    )


def passed(records: list[TrackRecord]) -> str:
    return percent(np.mean([probabilistic_sharpe_ratio(record) >= 1 - ALPHA for record in records]))


def coverage(rng: np.random.Generator) -> str:
    streams = 1000
    bars = 500
    resamples = 500
    rows = []
    for shape in Shape:
        champion, other = (draw_returns(shape, 0.1, (bars, streams), rng).T for _ in range(2))
        challenger = 0.1 + 0.9 * (champion - 0.1) + sqrt(1 - 0.9**2) * (other - 0.1)
        alone = [sharpe_interval(x, 0.95, resamples, rng) for x in champion]
        intervals = [
            difference_interval(x, y, 0.95, resamples, rng) for x, y in zip(challenger, champion, strict=True)
        ]
        rows.append(
            [
                shape,
                percent(np.mean([i.low <= 0.1 <= i.high for i in alone])),
                percent(np.mean([i.low <= 0.0 <= i.high for i in intervals])),
                f"{np.mean([i.high - i.low for i in alone]):.3f}",
                f"{np.mean([i.high - i.low for i in intervals]):.3f}",
            ]
        )
    return table(
        "Stationary-bootstrap intervals of 95 %",
        f"Share of {streams:,} intervals that hold the true value: a Sharpe ratio of 0.1 a bar, and a "
        f"difference of 0 at a correlation of 0.9; {bars} bars, {resamples} resamples; "
        f"{error(0.05, streams)}.",
        ["returns", "Sharpe ratio", "difference", "width", "width of the difference"],
        rows,
    )


def expected_maximum_table(rng: np.random.Generator) -> str:
    rows = []
    for name, correlations in PATTERNS.items():
        n = len(correlations)
        best = best_of(correlations, rng)
        mean = (correlations.sum() - n) / (n * (n - 1))
        ours = counted(correlated(correlations, 1000, rng)).effective
        rows.append(
            [
                name,
                f"{n}",
                f"{implied(best):.1f}",
                f"{ours:.1f}",
                galwey(correlations),
                f"{mean + (1 - mean) * n:.1f}",
            ]
        )
    return table(
        "Effective number of trials",
        "Implied: as many independent trials have the expected maximum of these, simulated 50,000 times. "
        "A count below it lets luck pass; one far above it costs power.",
        ["pattern", "trials", "implied", "ours, from 1,000 days", "Galwey", "mean correlation"],
        rows,
    )


def clusters(count: int, size: int, correlation: float) -> Floats:
    matrix = np.kron(np.eye(count), np.full((size, size), correlation))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def block_diagonal(first: Floats, second: Floats) -> Floats:
    matrix = np.zeros((len(first) + len(second),) * 2)
    matrix[: len(first), : len(first)] = first
    matrix[len(first) :, len(first) :] = second
    return matrix


PATTERNS = {
    "independent": clusters(52, 1, 0.0),
    "all 0.5": clusters(1, 52, 0.5),
    "all 0.9": clusters(1, 52, 0.9),
    "10 clusters of 10, 0.9": clusters(10, 10, 0.9),
    "25 clusters of 4, 0.7": clusters(25, 4, 0.7),
    "chain, 0.9 between neighbours": 0.9 ** np.abs(np.subtract.outer(np.arange(52), np.arange(52))),
    "chain, 0.99 between neighbours": 0.99 ** np.abs(np.subtract.outer(np.arange(52), np.arange(52))),
    "50 copies and 10 independent": block_diagonal(np.ones((50, 50)), np.eye(10)),
}


def correlated(correlations: Floats, bars: int, rng: np.random.Generator) -> Floats:
    """Normal returns with the given correlations, shape (bars, n_trials)."""
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(rng.standard_normal((bars, len(correlations))) @ root.T)


def counted(returns: Floats) -> TrialCount:
    """Count of trials with the given daily returns, shape (n_days, n_trials)."""
    days = np.arange(len(returns)) * DAY
    return count_trials([trial_record(days, column, track_record(column)) for column in returns.T])


def galwey(correlations: Floats) -> str:
    """(sum of the square roots of the eigenvalues) ** 2 / sum of the eigenvalues (Galwey 2009)."""
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0.0)
    return f"{np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum():.1f}"


def best_of(correlations: Floats, rng: np.random.Generator) -> float:
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return float((root @ rng.standard_normal((len(correlations), 50_000))).max(axis=0).mean())


def implied(best: float) -> float:
    counts = np.geomspace(1.0, 1000.0, 5000)
    return float(np.interp(best, [expected_maximum_sharpe(1.0, count) for count in counts], counts))


def retrained_years(rng: np.random.Generator) -> str:
    years = 300
    bars = 500
    retrains = 52
    rows = []
    for shape in (Shape.NORMAL, Shape.STUDENT, Shape.AUTOREGRESSIVE, Shape.GARCH):
        for correlation in (0.0, 0.5, 0.9):
            lucky = [lucky_year(shape, correlation, (bars, retrains), rng) for _ in range(years)]
            rows.append([shape, f"{correlation:g}", *(percent(share) for share in np.mean(lucky, axis=0))])
    return table(
        "A year of 52 retrains without any edge",
        f"Share of {years} years in which at least one passes, each judged by all trials of the year, "
        f"without the ten trials that the gate presumes; {bars} bars each; {error(ALPHA, years)}.",
        ["returns", "correlation of retrains", "DSR of at least 0.95", "PSR of at least 0.95"],
        rows,
    )


def lucky_year(
    shape: Shape, correlation: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[bool, bool]:
    own = draw_returns(shape, 0.0, size, rng)
    common = draw_returns(shape, 0.0, (size[0], 1), rng)
    returns = sqrt(correlation) * common + sqrt(1.0 - correlation) * own
    records = [track_record(x) for x in returns.T]
    count = counted(returns)
    deflated = [
        probabilistic_sharpe_ratio(record, count.expected_maximum(record.effective_bars))
        for record in records
    ]
    plain = [probabilistic_sharpe_ratio(record) for record in records]
    return max(deflated) >= 1 - ALPHA, max(plain) >= 1 - ALPHA


def false_decisions(rng: np.random.Generator) -> str:
    streams = 1000
    differences = 1000
    rows = []
    for shape in Shape:
        values = draw_returns(shape, 0.0, (differences, streams), rng)
        decisions = [decision(x, 100)[0] for x in values.T]
        rows.append(
            [
                shape,
                percent(np.mean([made is Standing.BETTER for made in decisions])),
                percent(np.mean([made is Standing.WORSE for made in decisions])),
                percent(np.mean(peeked(values))),
            ]
        )
    return table(
        "Champion and challenger that are equals",
        f"Share of {streams:,} streams of {differences:,} differences ever called better, or worse, looking "
        f"after every one from the 50th on; it should be 5 % each at most; {error(ALPHA, streams)}. "
        "In the last column a t-test is looked at as often.",
        ["differences", "better", "worse", "better by repeated t-tests"],
        rows,
    )


def decision(values: Floats, tuned_for: int) -> tuple[Standing, float]:
    """First decision and the number of differences until then; inf without a decision."""
    record = PairedRecord()
    for value in values.tolist():
        record = update(record, value, 0.0)
        standing = stand(record, ALPHA, tuned_for)
        if standing is not Standing.UNDECIDED:
            return standing, record.n
    return Standing.UNDECIDED, inf


def peeked(values: Floats) -> Floats:
    from scipy import stats

    n = np.arange(1, len(values) + 1)[49:, None]
    means = np.cumsum(values, axis=0)[49:] / n
    deviations = np.sqrt((np.cumsum(values**2, axis=0)[49:] / n - means**2) * n / (n - 1))
    return np.any(means / deviations * np.sqrt(n) > stats.t.ppf(1 - ALPHA, n - 1), axis=0)


def decision_times(rng: np.random.Generator) -> str:
    from scipy import stats

    streams = 2000
    trades = 600
    champion = rng.standard_normal((trades, streams))
    challenger = 0.9 * champion + sqrt(1 - 0.9**2) * rng.standard_normal((trades, streams)) + 0.15
    decided = [decision(x, 100) for x in (challenger - champion).T]
    when = np.array([n if made is Standing.BETTER else inf for made, n in decided])
    rows = [
        [
            f"{n}",
            percent(np.mean(when <= n)),
            percent(
                np.mean(
                    stats.ttest_1samp(challenger[:n] - champion[:n], 0, alternative="greater").pvalue <= ALPHA
                )
            ),
            percent(
                np.mean(
                    stats.ttest_ind(
                        challenger[:n], champion[:n], equal_var=False, alternative="greater"
                    ).pvalue
                    <= ALPHA
                )
            ),
        ]
        for n in (50, 75, 100, 125, 150, 200, 300, 400, 500)
    ]
    return table(
        "Trades until a better challenger is known",
        f"Correlation 0.9, better by 0.15 standard deviations a trade, {streams:,} streams, one-sided, 5 %. "
        "The anytime-valid test may stop at any trade; a t-test is made once, at a number fixed beforehand. "
        f"Half are decided after {np.median(when):.0f} trades, nine of ten after "
        f"{np.quantile(when, 0.9):.0f}, 19 of 20 after {np.quantile(when, 0.95):.0f}.",
        ["trades", "anytime-valid, decided by then", "paired t-test", "unpaired t-test (Welch)"],
        rows,
    )


def percent(share: float | np.floating) -> str:
    return f"{100 * share:.1f} %"


def error(share: float, streams: int) -> str:
    return f"one Monte-Carlo error is {100 * sqrt(share * (1 - share) / streams):.1f} %"


def table(title: str, words: str, headings: Cells, rows: list[Cells]) -> str:
    lines = [headings, ["---" for _ in headings], *rows]
    return f"### {title}\n\n{words}\n\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
