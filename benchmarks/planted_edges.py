"""Planted edges through `clm retrain`: rewrites the tables of docs/reference/planted-edges.md.

    python -m benchmarks.planted_edges --home FOLDER [--series 40]     continues where a former run stopped
    python -m benchmarks.planted_edges --measure 30                    net Sharpe ratios, on series so long
    python -m benchmarks.planted_edges --write                         the tables alone

Verdicts and measures are kept in benchmarks/planted_edges_results/; remove the files to begin anew. A series
takes half a minute.

Every series is a market of its own, five years of hourly bars in a home of the benchmark, retrained by the
function behind `clm retrain` with the settings, costs and parameters that the product has by default
(XGBoost).

**Turns**: buyers and sellers take turns, and the price drifts to the side whose turn it is. Moves to that
side have more volume, so that volume shows the side. Most turns are false starts, over after four days; after
four, six or eight false starts comes a turn of three weeks. The model changes sides some days late: a false
start is over by then and loses, a long turn pays for many. Successive long turns go to opposite sides, so
that a trend rule of 30 to 120 days earns little. Prices traded wobble about the price that drifts. With
shuffled labels the moves are shuffled among the bars; volume shows the side as before, and nothing follows.

**Drift**: the drift of the price is an autoregression with a half-life of 48 bars, seen in prices alone.
"""

import argparse
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks import trend_follower
from benchmarks.outcomes import keep, kept
from benchmarks.power import percent, table
from clm_core.market.bars import Bars, Floats
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe

if TYPE_CHECKING:
    from clm_core.retraining.results import RetrainResult

DOCUMENT = Path(__file__).parents[1] / "docs" / "reference" / "planted-edges.md"
RESULTS = Path(__file__).with_name("planted_edges_results")
MARK = "<!-- below: python -m benchmarks.planted_edges -->\n"
YEAR = 8_760
DAYS = 5 * 365
START = "2019-01-01"
BATCH = 5
"""Retrains under one Prefect server."""

HALF_LIFE = 48
"""Half-life of the drift that prices show, bars."""
DEVIATION = 0.5 / math.sqrt(YEAR)
"""Standard deviation of a bar's log return without drift: 50 % a year."""
FALSE_STARTS = (4, 6, 8)
"""Numbers of false starts between two long turns, equally likely; even, so that long turns alternate."""
FALSE_START_DAYS = 3.8
"""Mean length of a false start."""
LONG_TURN_DAYS = 20.0
"""Mean length of a long turn."""
SHAPE = 8.0
"""Shape of the gamma distribution of both lengths: their deviation is 35 % of the mean."""
WOBBLE = 0.7
"""Standard deviation of the prices traded about the price that drifts, in those of a bar's move."""
LOUDNESS = 0.4
"""Log volume of a bar that moves to the side in turn over that of other bars."""
VOLUME_NOISE = 0.25
"""Standard deviation of the log volume of bars alike."""


@dataclass(frozen=True)
class Turns:
    """Buyers and sellers in turn, seen in volume."""

    strength: float
    """Drift to the side in turn, in standard deviations of a bar's move without drift."""
    shuffled: bool = False
    """True to shuffle the moves of the bars among the bars."""

    def bars(self, symbol: str, n_bars: int, seed: int) -> Bars:
        rng = np.random.default_rng(seed)
        side = sides(n_bars, rng)
        moves = self.strength * side + rng.standard_normal(n_bars)
        if self.shuffled:
            moves = rng.permutation(moves)
        wobble = np.diff(WOBBLE * rng.standard_normal(n_bars + 1))
        log_volume = np.where(np.sign(moves) == side, LOUDNESS, 0.0)
        return _bars(symbol, DEVIATION * (moves + wobble), log_volume, rng)


def sides(n_bars: int, rng: np.random.Generator) -> Floats:
    """Side in turn at each bar, 1.0 for buyers and -1.0 for sellers, shape (n_bars,)."""
    lengths: list[int] = []
    while sum(lengths) < n_bars:
        means = [FALSE_START_DAYS] * rng.choice(FALSE_STARTS) + [LONG_TURN_DAYS]
        lengths += [math.ceil(24.0 * rng.gamma(SHAPE, mean / SHAPE)) for mean in means]
    turns = np.where(np.arange(len(lengths)) % 2, -1.0, 1.0)
    return np.repeat(rng.choice([-1.0, 1.0]) * turns, lengths)[:n_bars]


@dataclass(frozen=True)
class Drift:
    """Drift to be seen in prices."""

    strength: float
    """Standard deviation of the drift, in standard deviations of a bar's return without drift."""

    def bars(self, symbol: str, n_bars: int, seed: int) -> Bars:
        rng = np.random.default_rng(seed)
        drift = self.strength * _remembered(rng.standard_normal(n_bars), HALF_LIFE)
        returns = DEVIATION * (drift + rng.standard_normal(n_bars))
        return _bars(symbol, returns, np.zeros(n_bars), rng)


def _remembered(moves: Floats, half_life: float) -> Floats:
    """Exponential average, scaled to a standard deviation of 1, shape (n_bars,).

    Args:
        half_life: in bars.
    """
    from scipy.signal import lfilter

    keep = 0.5 ** (1.0 / half_life)
    average = np.asarray(lfilter([1.0 - keep], [1.0, -keep], moves))
    return average / average.std()


def _bars(symbol: str, returns: Floats, log_volume: Floats, rng: np.random.Generator) -> Bars:
    """Hourly bars of log returns, each opening at the close before.

    Args:
        log_volume: mean log volume of each bar, shape (n_bars,).
    """
    n_bars = len(returns)
    # without half the variance a holder would gain on average
    closes = np.cumsum(returns - returns.var() / 2.0)
    opens = np.concatenate([[0.0], closes[:-1]])
    beyond = DEVIATION * np.abs(rng.standard_normal((2, n_bars))) / 2.0
    volume = 1000.0 * np.exp(log_volume + VOLUME_NOISE * rng.standard_normal(n_bars))
    logs = (opens, np.maximum(opens, closes) + beyond[0], np.minimum(opens, closes) - beyond[1], closes)
    time = pd.Timestamp(START, tz="UTC").value + np.arange(n_bars) * Timeframe.H1.nanoseconds
    opened, high, low, close = (100.0 * np.exp(each) for each in logs)
    return Bars(symbol, Timeframe.H1, Calendar.ALWAYS, time, opened, high, low, close, volume)


@dataclass(frozen=True)
class Group:
    """Series of one kind, retrained alike."""

    edge: Turns | Drift
    required: str
    """Verdicts asked for."""
    plugin: str | None = None
    """Name of the plug-in to retrain; None for XGBoost."""
    few: bool = False
    """True for a handful of series."""


GROUPS = {
    "turns, net Sharpe ratio 2.5": Group(Turns(0.156), "PASS in 30 of 40"),
    "turns, net Sharpe ratio 2": Group(Turns(0.131), "PASS in 16 of 40"),
    "turns, shuffled labels": Group(Turns(0.156, shuffled=True), "PASS in none"),
    "drift, net Sharpe ratio 6": Group(Drift(0.3), "PASS", few=True),
    "drift, followed by the trend rule": Group(
        Drift(0.3), "a trend rule does as well", trend_follower.NAME, few=True
    ),
}
FEW = 4


@dataclass(frozen=True)
class Outcome:
    """Verdict on one series."""

    group: str
    number: int
    decision: str
    sharpe_ratio: float
    """Net, of the record out of sample, a year."""
    trend: float
    """The same of the trend rule."""
    win_rate: float
    trades: int
    days: float
    """Days out of sample."""
    missed: tuple[str, ...]
    """Names of the missed checks."""
    reasons: tuple[str, ...]


def retrained(home: Path, todo: Sequence[tuple[str, int]]) -> Iterator[Outcome]:
    """Import the series and retrain, as the command does."""
    from clm_core.cli.retrain import retrain_all
    from clm_core.domain.jobs import RetrainRequest
    from clm_core.domain.vocabulary import ModelType

    store = SeriesStore(home / "data")
    requests = []
    for name, number in todo:
        group = GROUPS[name]
        place = list(GROUPS).index(name)
        symbol = f"EDGE{place}{number:03}USD"
        # no two series share noise: copies would share their trials
        bars = group.edge.bars(symbol, DAYS * 24, seed=1_000 * (place + 1) + number)
        store.add(bars, "planted", datetime.now(UTC))
        requests.append(
            RetrainRequest(
                model_type=ModelType.OTHER if group.plugin else ModelType.XGBOOST,
                plugin=group.plugin,
                symbol=symbol,
                requested_by="benchmark",
            )
        )
    for (name, number), result in zip(todo, retrain_all(requests), strict=True):
        yield _outcome(name, number, result)


def _outcome(name: str, number: int, result: "RetrainResult") -> Outcome:
    verdict = result.verdict
    assert verdict.record is not None
    return Outcome(
        group=name,
        number=number,
        decision=verdict.decision.value,
        sharpe_ratio=result.metrics.sharpe_ratio,
        trend=next(each.sharpe_ratio for each in verdict.baselines if each.name == "trend"),
        win_rate=result.metrics.win_rate,
        trades=result.metrics.trades,
        days=(verdict.record.walk_forward_until - verdict.record.begun) / timedelta(days=1),
        missed=tuple(check.name for check in verdict.missed),
        reasons=verdict.reasons,
    )


@dataclass(frozen=True)
class Measured:
    """Result of a walk-forward over one long series."""

    group: str
    years: float
    """Years out of sample."""
    sharpe_ratio: float
    """Net, a year."""
    win_rate: float
    days_a_trade: float
    trend: float
    """Net Sharpe ratio of the trend rule."""


def measure(name: str, years: int) -> Measured:
    """Walk-forward of the default recipe, with the folds and the costs of a retrain, on a long series."""
    from clm_core.backtest.baselines import run_baselines
    from clm_core.backtest.metrics import summarise
    from clm_core.backtest.terms import MarketTerms
    from clm_core.backtest.walk_forward import walk_forward
    from clm_core.domain.costs import Costs
    from clm_core.domain.execution import NEW_VERSIONS
    from clm_core.domain.terms import TradingTerms
    from clm_core.domain.vocabulary import ModelType
    from clm_core.domain.walk_forward import WalkForwardPlan
    from clm_core.models import catalog
    from clm_core.retraining.evaluation import baseline_sizer

    group = GROUPS[name]
    bars = group.edge.bars("LONG", (years + 2) * YEAR, seed=list(GROUPS).index(name) + 1)
    model_type = ModelType.OTHER if group.plugin else ModelType.XGBOOST
    recipe = catalog.recipe(model_type, {}, Costs(), group.plugin)
    walked = walk_forward(recipe, bars, WalkForwardPlan().for_request(DAYS, DAYS), 0)
    market = MarketTerms(TradingTerms()).under(NEW_VERSIONS)
    result = market.backtest(bars[walked.rows], walked.positions[walked.rows])
    metrics = summarise(result, bars.periods_per_year)
    baselines = run_baselines(market, bars, walked.rows, baseline_sizer(recipe.describe()))
    return Measured(
        group=name,
        years=len(result.returns) / YEAR,
        sharpe_ratio=metrics.sharpe_ratio,
        win_rate=metrics.win_rate,
        days_a_trade=float(result.trades.bars.mean()) / 24,
        trend=next(each.metrics.sharpe_ratio for each in baselines if each.name == "trend"),
    )


def todo(series: int, done: Sequence[Outcome]) -> list[tuple[str, int]]:
    """Series to retrain, the groups in turn."""
    known = {(each.group, each.number) for each in done}
    places = [
        (name, number)
        for number in range(series)
        for name, group in GROUPS.items()
        if not group.few or number < FEW
    ]
    return [place for place in places if place not in known]


def run(home: Path, series: int) -> None:
    """Retrain missing series in batches, each stored before the next begins."""
    os.environ["CLM_HOME"] = str(home)
    # a process of its own for each training is for time limits alone
    os.environ["CLM_TRAINING__ISOLATED"] = "false"
    missing = todo(series, kept(RESULTS, "outcomes", Outcome))
    for first in range(0, len(missing), BATCH):
        keep(RESULTS, "outcomes", list(retrained(home, missing[first : first + BATCH])))
        write()


def measure_all(years: int) -> None:
    done = {each.group for each in kept(RESULTS, "measured", Measured)}
    for name, group in GROUPS.items():
        if name not in done and not getattr(group.edge, "shuffled", False):
            keep(RESULTS, "measured", [measure(name, years)])


def write() -> None:
    """Rewrite the tables of the document."""
    outcomes = kept(RESULTS, "outcomes", Outcome)
    by_group = {name: [each for each in outcomes if each.group == name] for name in GROUPS}
    parts = [verdicts(by_group, kept(RESULTS, "measured", Measured)), reasons(by_group)]
    tables = "\n".join(parts)
    print(tables, flush=True)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + tables)


def verdicts(by_group: Mapping[str, Sequence[Outcome]], measured: Sequence[Measured]) -> str:
    rows = []
    for name, outcomes in by_group.items():
        if not outcomes:
            continue
        count = len(outcomes)
        decisions = Counter(each.decision for each in outcomes)
        passed = decisions["pass"] / count
        sharpes = np.array([each.sharpe_ratio for each in outcomes])
        trades = np.array([each.trades for each in outcomes])
        wins = np.average([each.win_rate for each in outcomes], weights=np.maximum(trades, 1))
        days = sum(each.days for each in outcomes) / max(int(trades.sum()), 1)
        trend = np.mean([each.trend for each in outcomes])
        rows.append(
            [
                name,
                next((on_long_series(each) for each in measured if each.group == name), "not measured"),
                f"{with_error(sharpes)}, trend rule {trend:.2f}",
                f"{100 * wins:.0f} %",
                f"{trades.mean():.0f}, {days:.0f} days",
                f"{decisions['pass']} of {count}, {percent(passed)} ± {proportion_error(passed, count)}",
                f"{decisions['inconclusive']}, {decisions['fail']}",
                GROUPS[name].required,
            ]
        )
    return table(
        "Verdicts",
        "Net Sharpe ratios a year, by walk-forward after costs: of one long series of the same kind, and the "
        "mean of the records judged, with its standard error. Behind ± of PASS stands one Monte-Carlo error.",
        [
            "series",
            "net Sharpe ratio on a long series",
            "of the records",
            "win rate",
            "trades of a record, length",
            "PASS",
            "INCONCLUSIVE, FAIL",
            "asked for",
        ],
        rows,
    )


def on_long_series(measured: Measured) -> str:
    error = math.sqrt((1.0 + measured.sharpe_ratio**2 / (2 * YEAR)) / measured.years)
    return (
        f"{measured.sharpe_ratio:.2f} ± {error:.2f} ({measured.years:.0f} years, win rate "
        f"{100 * measured.win_rate:.0f} %, {measured.days_a_trade:.0f} days a trade; trend rule "
        f"{measured.trend:.2f})"
    )


def with_error(values: Floats) -> str:
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean():.2f} ± {error:.2f}" if math.isfinite(error) else f"{values.mean():.2f}"


def proportion_error(share: float, count: int) -> str:
    return percent(math.sqrt(share * (1.0 - share) / count))


def reasons(by_group: Mapping[str, Sequence[Outcome]]) -> str:
    named = {name: outcomes for name, outcomes in by_group.items() if outcomes}
    counts = {
        name: Counter(check for each in outcomes for check in each.missed) for name, outcomes in named.items()
    }
    sole = {
        name: Counter(each.missed[0] for each in outcomes if len(each.missed) == 1)
        for name, outcomes in named.items()
    }
    checks = sorted({check for count in counts.values() for check in count})
    rows = [[check, *(cell(counts[name][check], sole[name][check]) for name in named)] for check in checks]
    simpler = [
        str(sum(any("a trend rule does as well" in reason for reason in each.reasons) for each in outcomes))
        for outcomes in named.values()
    ]
    rows.append(['"a trend rule does as well"', *simpler])
    return table(
        "Missed checks",
        "Number of series that miss a check; in brackets those that miss no other.",
        ["check", *(f"{name} ({len(outcomes)})" for name, outcomes in named.items())],
        rows,
    )


def cell(missed: int, alone: int) -> str:
    return f"{missed} ({alone})" if alone else str(missed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, help="home of the retrains, kept between runs")
    parser.add_argument("--series", type=int, default=40)
    parser.add_argument(
        "--measure", type=int, metavar="YEARS", help="measure long series in place of retrains"
    )
    parser.add_argument("--write", action="store_true", help="write the tables and do nothing else")
    given = parser.parse_args()
    if given.home is None and not given.measure and not given.write:
        parser.error("--home is missing")
    if given.measure:
        with TemporaryDirectory() as site:
            trend_follower.install(Path(site))
            measure_all(given.measure)
    elif given.home is not None:
        trend_follower.install(given.home.resolve() / "site")
        run(given.home.resolve(), given.series)
    write()


if __name__ == "__main__":
    main()
