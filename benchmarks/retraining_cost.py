"""Cost of five rules of retraining in four worlds: rewrites the table of docs/decisions/0102.

    python -m benchmarks.retraining_cost [--days 182] [--seeds 2] [--prices 5 20] [--results FOLDER]
    python -m benchmarks.retraining_cost --half-life 3650    prints the tables of another half-life

Each world is replayed under each rule by `lifecycle.replay`, with the clock put forward from week to week:
retrains, shadow, watch and protection come once a week under every rule alike. The world knows the expected
return of every bar, so the net return of a rule is without the luck of the prices; costs of trading are
subtracted, those of a switch of versions included. A rule is judged by this return less the compute, in basis
points of the capital, in the mean over the seeds.

    never         the first version for ever
    weekly        every week
    drift         on drift that the watch reports
    CARA          weekly, once losses of the newest version since the training reach the price of a retrain
    cost-aware    weekly and at the requests of the watch, where `[triggers.cost_aware]` accepts the request

CARA is the cumulative threshold of Mahadevan & Mathioudakis, "Cost-Effective Retraining of Machine Learning
Models" (arXiv 2310.04216): retrain once the cost of staleness since the last training exceeds a threshold.
Staleness there is an error on labelled queries, and here the sum of the losing weeks. The paper fits the
threshold to a history of retrains, which a new market does not have; here it is the price of a retrain.

The table is made for each price of a retrain; the other rules retrain alike at every price.

With `--results` the folder keeps the results of each rule and the trainings: an interrupted run goes on, and
rules that are there are not replayed again. Results of other code need another folder.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.power import table
from clm_core.domain.progress import Announce
from clm_core.domain.replays import PolicyReplay, ReplayRequest
from clm_core.domain.trigger_policy import PeriodicRules, ReasonRules, RetrainCostRules, TriggerPolicy
from clm_core.domain.vocabulary import KnownWorld, ModelType
from clm_core.lifecycle import replay
from clm_core.market.bars import Floats
from clm_core.market.sources import MarketData
from clm_core.settings import Settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0102-a-level-that-stays-and-followed-days.md"
MARK = "<!-- below: python -m benchmarks.retraining_cost -->\n"
START = date(2020, 1, 1)
HALF_LIFE_DAYS = RetrainCostRules().half_life_days
CAPITAL = 10_000.0
HOURS = 5.0
PRICES = (5.0, 20.0)
"""Prices of a retrain, basis points of the capital: 5 hours of a processor, and of a rented GPU at four times
the price."""
WEEK = 168
"""Bars of a week."""
NEVER_AGAIN = 10_000.0
"""Days beyond every replay."""
OURS = "cost-aware"
RULES = ("never", "weekly", "drift", "CARA", OURS)
PRICED = ("CARA", OURS)
"""Rules that retrain more or less often with the price."""
WORLDS = (KnownWorld.PLANTED, KnownWorld.DYING, KnownWorld.TURNING, KnownWorld.NONE)
"""Worlds with an edge that lives, dies halfway or moves, and without one."""
MODEL = ModelType.LIGHTGBM
PARAMS: dict[str, object] = {}
"""Parameters other than the defaults."""
SPAN_DAYS: int | None = None
"""Days of bars of a training; None: those of a replay in a world."""
STEP = 7
"""Days between two passes of a replay."""
POLICY = """version = 1
preset = "benchmark"
[presets.benchmark.criteria]
min_sharpe_ratio = 0.5
min_win_rate = 0.3
min_trades = 10
[presets.benchmark.evidence]
min_deflated_sharpe = 0.8
fewest_trials = 1.0
min_timing_probability = 0.5
alpha_confidence = 0.5
[presets.benchmark.lifecycle]
confirm_days = 7.0
confirm_trades = 10
"""
"""Policy that promotes within weeks: half a year under the default policy has hardly a promotion."""


@dataclass(frozen=True)
class RuleCost:
    """A rule of retraining in a world with a seed."""

    rule: str
    price_bps: float
    retrains: int
    promotions: int
    endings: int
    """Rollbacks and halts."""
    expected_bps: float
    """Expected net return over the replay."""

    @property
    def compute_bps(self) -> float:
        return self.retrains * self.price_bps

    @property
    def net_bps(self) -> float:
        """Expected net return less the compute."""
        return self.expected_bps - self.compute_bps


def triggers_of(rule: str, price_bps: float, half_life_days: float = HALF_LIFE_DAYS) -> TriggerPolicy:
    """Admission of requests under a rule, which refuses all others."""
    off = ReasonRules(daily_budget_per_model=0)
    others = {
        "performance_degraded": off,
        "regime_change": off,
        "data_threshold": off,
        "strategy_evolution": off,
        # nor does the age of a version ask for a retrain
        "max_age_days": NEVER_AGAIN,
    }
    if rule == OURS:
        costs = RetrainCostRules(
            enabled=True,
            capital=CAPITAL,
            compute_price_per_hour=price_bps * 1e-4 * CAPITAL / HOURS,
            hours_per_retrain=HOURS,
            half_life_days=half_life_days,
        )
        return TriggerPolicy(cost_aware=costs)
    once = {} if every_days(rule) == 7.0 else {"periodic": PeriodicRules(cooldown_hours=8760)}
    drift = {} if rule == "drift" else {"drift_detected": off}
    return TriggerPolicy.model_validate(others | once | drift)


def every_days(rule: str) -> float:
    return NEVER_AGAIN if rule in ("never", "drift") else 7.0


def losses_bps(returns: Floats) -> float:
    """Sum of the losing weeks, each a loss of complete weeks of bars; weeks that gain count as 0."""
    weeks = len(returns) // WEEK
    sums = returns[: weeks * WEEK].reshape(weeks, WEEK).sum(axis=1)
    return float(np.maximum(-sums, 0.0).sum() * 1e4)


class WeeklyCourse(replay._Course):
    """A replay whose clock goes from week to week."""

    def run(self, announce: Announce) -> None:
        for day in range(0, self.request.days + 1, STEP):
            self.clock.now = replay._midnight(self.request, day) + replay.PASS_DELAY
            is_over = day >= self.request.days
            if not is_over and self._is_due(day):
                self._scheduled_retrain(is_first=day == 0)
            self._shadow()
            self._watch()
            if not is_over:
                self._train_waiting()
            self._tell_changes()

    def _is_due(self, day: int) -> bool:
        return day % (self._every() / timedelta(days=1)) == 0


class CaraCourse(WeeklyCourse):
    """A replay whose schedule retrains by CARA's cumulative threshold."""

    threshold_bps: float

    def _scheduled_retrain(self, is_first: bool) -> None:
        if is_first or losses_bps(self._returns_of_newest()) >= self.threshold_bps:
            super()._scheduled_retrain(is_first)

    def _returns_of_newest(self) -> Floats:
        newest = self.versions[-1]
        now = self.clock.now
        bars = self.services.market.bars(self.request.market, self.request.timeframe, closed_by=now)
        terms = self.services.version_terms(newest, bars.calendar)
        stint = (newest.version, newest.created_at, now)
        return self._backtest(terms, bars, [stint], bars.row_closed_after(newest.created_at)).returns


def replayed(
    home: Path, world: KnownWorld, seed: int, rule: str, price_bps: float, days: int, half_life_days: float
) -> PolicyReplay:
    policy = home / f"benchmark-{os.getpid()}.toml"
    policy.write_text(POLICY, encoding="utf-8")
    request = ReplayRequest(
        model_type=MODEL,
        world=world,
        world_seed=seed,
        start=START,
        end=START + timedelta(days=days),
        policy=str(policy),
        every_days=every_days(rule),
        dataset_span_days=SPAN_DAYS,
        training_params=PARAMS,
    )
    settings = Settings(home=home, database_url=None, triggers=triggers_of(rule, price_bps, half_life_days))
    cara = type("CaraAtAPrice", (CaraCourse,), {"threshold_bps": price_bps})
    with mock.patch.object(replay, "_Course", cara if rule == "CARA" else WeeklyCourse):
        result = replay.run(settings, MarketData(home), request, lambda step, share: None)
    return result.policies[0]


def costs(
    folder: Path,
    world: KnownWorld,
    seed: int,
    days: int,
    prices: Sequence[float],
    half_life_days: float = HALF_LIFE_DAYS,
) -> list[list[RuleCost]]:
    """Every rule in a world, for each price; results kept in the folder are taken over."""
    return [
        [_kept_cost(folder, world, seed, days, rule, price, half_life_days) for rule in RULES]
        for price in prices
    ]


def _kept_cost(
    folder: Path,
    world: KnownWorld,
    seed: int,
    days: int,
    rule: str,
    price_bps: float,
    half_life_days: float,
) -> RuleCost:
    at_price = f"-{price_bps:g}" if rule in PRICED else ""
    believed = f"-{half_life_days:g}d" if rule == OURS else ""
    kept = folder / f"{world}-{seed}-{days}-{rule}{at_price}{believed}.json"
    if not kept.exists():
        cost = _cost(folder, world, seed, days, rule, price_bps, half_life_days)
        kept.write_text(json.dumps(asdict(cost)))
    cost = replace(RuleCost(**json.loads(kept.read_text())), price_bps=price_bps)
    print(world, seed, cost, flush=True)
    return cost


def _cost(
    folder: Path,
    world: KnownWorld,
    seed: int,
    days: int,
    rule: str,
    price_bps: float,
    half_life_days: float,
) -> RuleCost:
    course = replayed(folder, world, seed, rule, price_bps, days, half_life_days)
    assert course.known is not None
    expected_bps = course.known.expected_return * 1e4
    return RuleCost(rule, price_bps, course.retrains, course.promotions, course.rollbacks, expected_bps)


def rows(world: str, seeds: Sequence[Sequence[RuleCost]]) -> Iterator[list[str]]:
    """Cells of the rules in a world, means over the seeds; the distance to the best rule has the standard
    error of its mean."""
    by_rule = _by_rule(seeds)
    best = by_rule[max(by_rule, key=lambda rule: _net(by_rule[rule]))]
    for rule, by_seed in by_rule.items():
        behind = [one.net_bps - own.net_bps for one, own in zip(best, by_seed, strict=True)]
        yield [
            world,
            rule,
            f"{statistics.fmean(each.retrains for each in by_seed):.1f}",
            f"{statistics.fmean(each.promotions for each in by_seed):.1f}",
            f"{statistics.fmean(each.endings for each in by_seed):.1f}",
            f"{statistics.fmean(each.expected_bps for each in by_seed):,.0f}",
            f"{statistics.fmean(each.compute_bps for each in by_seed):,.0f}",
            f"{_net(by_seed):,.0f}",
            "best" if by_seed is best else f"{statistics.fmean(behind):,.0f}{_error(behind)}",
        ]


def _error(differences: Sequence[float]) -> str:
    """Standard error of a mean, in words; nothing for a single seed."""
    if len(differences) < 2:
        return ""
    return f" ± {statistics.stdev(differences) / math.sqrt(len(differences)):,.0f}"


def _by_rule(seeds: Sequence[Sequence[RuleCost]]) -> Mapping[str, list[RuleCost]]:
    """Results of each rule by seed."""
    return {by_seed[0].rule: list(by_seed) for by_seed in zip(*seeds, strict=True)}


def _net(by_seed: Sequence[RuleCost]) -> float:
    return statistics.fmean(each.net_bps for each in by_seed)


def is_best(seeds: Sequence[Sequence[RuleCost]]) -> bool:
    """True if no rule has a higher mean return less compute than the cost-aware rule."""
    by_rule = _by_rule(seeds)
    return _net(by_rule[OURS]) >= max(_net(by_seed) for by_seed in by_rule.values())


def means(measured: Sequence[Sequence[RuleCost]]) -> str:
    """Mean of each rule over worlds and seeds, in words, the best first."""
    by_rule = _by_rule(measured)
    return ", ".join(
        f"{rule} {_net(by_rule[rule]):,.0f}"
        for rule in sorted(by_rule, key=lambda rule: -_net(by_rule[rule]))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=182, help="days of a replay, a multiple of 7")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds, from 0")
    parser.add_argument(
        "--prices", type=float, nargs="+", default=PRICES, help="prices of a retrain, basis points"
    )
    parser.add_argument(
        "--half-life",
        type=float,
        default=HALF_LIFE_DAYS,
        help="half_life_days of the cost-aware rule; tables of another than the default are printed only",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, help="folder that keeps results and trainings")
    given = parser.parse_args()
    worlds = [(world, seed) for world in WORLDS for seed in range(given.seeds)]
    with contextlib.ExitStack() as stack:
        folder = given.results or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        pool = stack.enter_context(ProcessPoolExecutor(given.workers))
        calls = ((folder, *each, given.days, given.prices, given.half_life) for each in worlds)
        measured = list(pool.map(costs, *zip(*calls, strict=True)))
    text = "\n".join(
        table_of(price, [each[number] for each in measured], given.days, given.seeds)
        for number, price in enumerate(given.prices)
    )
    print(text)
    if given.half_life != HALF_LIFE_DAYS:
        return
    head = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    DOCUMENT.write_text(f"{head}{MARK}\n{text}", encoding="utf-8")


def table_of(price_bps: float, measured: Sequence[Sequence[RuleCost]], days: int, n_seeds: int) -> str:
    """Table of all worlds at a price.

    Args:
        measured: results of all rules, by world and within a world by seed.
    """
    cells = list[list[str]]()
    won = 0
    for number, world in enumerate(WORLDS):
        seeds = measured[number * n_seeds : (number + 1) * n_seeds]
        cells += rows(world.value, seeds)
        won += is_best(seeds)
    columns = [
        "world",
        "rule",
        "retrains",
        "promotions",
        "taken back",
        "expected net return",
        "compute",
        "net of compute",
        "behind the best",
    ]
    note = (
        f"Basis points of the capital over {days} days, means over seeds 0 to {n_seeds - 1}; a "
        f"retrain costs {price_bps:g} in compute. The distance to the best rule has its standard error. No "
        f"rule is better than the cost-aware rule in {won} of {len(WORLDS)} worlds. Net of compute, over all "
        f"worlds: {means(measured)}."
    )
    return table(f"Rules of retraining in worlds, {price_bps:g} basis points a retrain", note, columns, cells)


if __name__ == "__main__":
    main()
