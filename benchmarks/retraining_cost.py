"""Cost of five rules of retraining in four worlds: rewrites the table of docs/decisions/0098.

    python -m benchmarks.retraining_cost [--days 84] [--seeds 1]     five minutes on two idle cores

Each world is replayed under each rule by `lifecycle.replay`. The world knows the expected return of every
bar, so the net return of a rule is without luck; costs of trading are subtracted, those of a switch of
versions included. The cost of a rule is the return it loses against the best rule of the world, plus
compute, in basis points of the capital.

    never         the first version for ever
    weekly        every week
    drift         on drift that the watch reports
    CARA          weekly, once losses of the newest version since the training reach the price of a retrain
    cost-aware    weekly and at the requests of the watch, where `[triggers.cost_aware]` accepts the request

CARA is the cumulative threshold of Mahadevan & Mathioudakis, "Cost-Effective Retraining of Machine Learning
Models" (arXiv 2310.04216): retrain once the cost of staleness since the last training exceeds a threshold.
Staleness there is an error on labelled queries, and here the sum of the losing weeks. The paper fits the
threshold to a history of retrains, which a new market does not have; here it is the price of a retrain.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from os import cpu_count
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.power import table
from clm_core.domain.replays import PolicyReplay, ReplayRequest
from clm_core.domain.trigger_policy import PeriodicRules, ReasonRules, RetrainCostRules, TriggerPolicy
from clm_core.domain.vocabulary import KnownWorld, ModelType
from clm_core.lifecycle import replay
from clm_core.market.bars import Floats
from clm_core.market.sources import MarketData
from clm_core.settings import Settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0098-cost-aware-retraining.md"
MARK = "<!-- below: python -m benchmarks.retraining_cost -->\n"
START = date(2020, 1, 1)
CAPITAL = 10_000.0
HOURS = 5.0
PRICE_PER_HOUR = 1.0
PRICE_BPS = HOURS * PRICE_PER_HOUR / CAPITAL * 1e4
"""Price of a retrain, basis points of the capital."""
WEEK = 168
"""Bars of a week."""
NEVER_AGAIN = 10_000.0
"""Days beyond every replay."""
OURS = "cost-aware"
RULES = ("never", "weekly", "drift", "CARA", OURS)
WORLDS = tuple(KnownWorld)
MODEL = ModelType.LIGHTGBM
PARAMS = {"rounds": 20}
SPAN_DAYS = 365
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
    """A rule of retraining in a world."""

    rule: str
    retrains: int
    promotions: int
    expected_bps: float
    """Expected net return over the replay."""

    @property
    def compute_bps(self) -> float:
        return self.retrains * PRICE_BPS

    def total_bps(self, best_bps: float) -> float:
        """Return lost against the best rule, plus compute."""
        return best_bps - self.expected_bps + self.compute_bps


def triggers_of(rule: str) -> TriggerPolicy:
    """Admission of requests under a rule: those that the rule does not make are refused."""
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
            enabled=True, capital=CAPITAL, compute_price_per_hour=PRICE_PER_HOUR, hours_per_retrain=HOURS
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


class CaraCourse(replay._Course):
    """A replay whose schedule retrains by CARA's cumulative threshold."""

    def _scheduled_retrain(self, is_first: bool) -> None:
        if is_first or losses_bps(self._returns_of_newest()) >= PRICE_BPS:
            super()._scheduled_retrain(is_first)

    def _returns_of_newest(self) -> Floats:
        newest, now = self.versions[-1], self.clock.now
        bars = self.services.market.bars(self.request.market, self.request.timeframe, closed_by=now)
        terms = self.services.version_terms(newest, bars.calendar)
        stint = (newest.version, newest.created_at, now)
        return self._backtest(terms, bars, [stint], bars.row_closed_after(newest.created_at)).returns


def replayed(home: Path, world: KnownWorld, seed: int, rule: str, days: int) -> PolicyReplay:
    policy = home / "benchmark.toml"
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
    settings = Settings(home=home, database_url=None, triggers=triggers_of(rule))
    course = mock.patch.object(replay, "_Course", CaraCourse) if rule == "CARA" else nullcontext()
    with course:
        result = replay.run(settings, MarketData(home), request, lambda step, share: None)
    return result.policies[0]


def costs(home: Path, world: KnownWorld, seed: int, days: int) -> list[RuleCost]:
    """Every rule in a world."""
    found = list[RuleCost]()
    for rule in RULES:
        course = replayed(home, world, seed, rule, days)
        assert course.known is not None
        cost = RuleCost(rule, course.retrains, course.promotions, course.known.expected_return * 1e4)
        print(world, seed, cost, flush=True)
        found.append(cost)
    return found


def rows(world: str, found: Sequence[RuleCost]) -> Iterator[list[str]]:
    """Cells of the rules in a world."""
    best = max(each.expected_bps for each in found)
    for each in found:
        yield [
            world,
            each.rule,
            f"{each.retrains}",
            f"{each.promotions}",
            f"{each.expected_bps:,.0f}",
            f"{best - each.expected_bps:,.0f}",
            f"{each.compute_bps:,.0f}",
            f"{each.total_bps(best):,.0f}",
        ]


def is_best(found: Sequence[RuleCost]) -> bool:
    """True if the total cost of the cost-aware rule is no higher than that of any other rule."""
    best = max(each.expected_bps for each in found)
    [ours] = (each.total_bps(best) for each in found if each.rule == OURS)
    return ours <= min(each.total_bps(best) for each in found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=84)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=cpu_count())
    given = parser.parse_args()
    cells = list[list[str]]()
    won = list[bool]()
    worlds = [(world, seed) for world in WORLDS for seed in range(given.seeds)]
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.workers) as pool:
        measured = pool.map(costs, *zip(*((Path(folder), *each, given.days) for each in worlds), strict=True))
        for (world, seed), found in zip(worlds, measured, strict=True):
            cells += rows(world.value if given.seeds == 1 else f"{world.value} {seed}", found)
            won.append(is_best(found))
    columns = [
        "world",
        "rule",
        "retrains",
        "promotions",
        "expected net return",
        "lost against the best rule",
        "compute",
        "total cost",
    ]
    note = (
        f"Basis points of the capital over {given.days} days; a retrain costs {PRICE_BPS:g} in compute. No "
        f"rule has a lower total cost than the cost-aware rule in {sum(won)} of {len(won)} worlds."
    )
    text = table("Total cost of rules of retraining", note, columns, cells)
    print(text)
    head = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    DOCUMENT.write_text(f"{head}{MARK}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
