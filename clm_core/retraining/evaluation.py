"""Backtests of out-of-sample positions, the same after a training and at a promotion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from clm_core.backtest.baselines import Sizer, run_baselines
from clm_core.backtest.declared_rules import run_declared_rules
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, Metrics
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.kind import DEFAULT_SIZING
from clm_core.models.sizing import size_positions
from clm_core.retraining import pools
from clm_core.retraining.results import BacktestEvaluation, MemberEvaluation
from clm_core.retraining.stored_evidence import OutOfSampleRuns

TermsBySymbol = Mapping[str, MarketTerms]
"""Terms of trading of each market, with the execution of the version."""


@dataclass(frozen=True, eq=False)
class SeedBacktests:
    """Backtests of every seed on the out-of-sample bars, before the baselines."""

    axis: Bars
    """Out-of-sample bars; of a pool, the common axis."""
    positions: tuple[Floats, ...]
    """Positions as traded by seed, shape (n_bars,); of a pool, the positions of all members in sequence."""
    results: tuple[Backtest, ...]
    metrics: tuple[Metrics, ...]
    members: tuple[tuple[MemberEvaluation, ...], ...]
    """Evaluated members of a pool by seed; an empty tuple for each seed of one market."""
    ranking: tuple[int, ...]
    """Seeds by Sharpe ratio, ascending."""
    judged: int
    """Index of the seed judged: 0 is the job's own seed."""


def backtest_seeds(
    bars: Bars | Panel, runs: OutOfSampleRuns, terms: TermsBySymbol, seed_quantile: float
) -> SeedBacktests:
    """Backtest the positions of every seed.

    Args:
        bars: all bars of the training.
        seed_quantile: quantile of the judged seed by Sharpe ratio.

    Raises:
        EvidenceChanged: the open times of bars and positions differ.
    """
    if isinstance(bars, Panel):
        return _backtest_pool(bars, runs, terms, seed_quantile)
    [market_runs] = runs.markets
    market = terms[bars.symbol]
    unseen = bars[market_runs.rows(bars)]
    positions = tuple(market.tradable(each) for each in market_runs.positions)
    results = tuple(market.backtest(unseen, targets) for targets in positions)
    metrics = tuple(summarise(result, unseen.periods_per_year) for result in results)
    ranking, judged = _ranked(metrics, seed_quantile)
    return SeedBacktests(unseen, positions, results, metrics, ((),) * runs.seeds, ranking, judged)


def _backtest_pool(
    panel: Panel, runs: OutOfSampleRuns, terms: TermsBySymbol, seed_quantile: float
) -> SeedBacktests:
    axis = panel.index_bars()
    first = min(int(each.time[0]) for each in runs.markets if len(each.time))
    axis = axis[int(np.searchsorted(axis.time, first)) :]
    members = tuple(pools.evaluate_members(panel, runs, seed, terms) for seed in range(runs.seeds))
    results = tuple(pools.portfolio_of(axis, each) for each in members)
    metrics = tuple(summarise(result, axis.periods_per_year) for result in results)
    ranking, judged = _ranked(metrics, seed_quantile)
    positions = tuple(pools.joined_positions(each) for each in members)
    return SeedBacktests(axis, positions, results, metrics, members, ranking, judged)


def evaluation_of(
    backtests: SeedBacktests,
    bars: Bars | Panel,
    runs: OutOfSampleRuns,
    terms: TermsBySymbol,
    size: Sizer,
    plan: WalkForwardPlan,
) -> BacktestEvaluation:
    """Evaluation of the judged seed, beside the baselines and the rule strategies at their defaults.

    Args:
        size: sizing of the baselines.
        plan: plan of the walk-forward behind the positions.
    """
    judged = backtests.judged
    members = backtests.members[judged]
    if isinstance(bars, Panel):
        baselines = pools.pool_baselines(backtests.axis, bars, runs, terms, size)
        rules = pools.pool_rules(backtests.axis, bars, runs, terms)
        market = MarketTerms(pools.dearest([each.terms for each in terms.values()]))
    else:
        market = terms[bars.symbol]
        rows = runs.markets[0].rows(bars)
        baselines = run_baselines(market, bars, rows, size)
        rules = run_declared_rules(market, bars, rows)
    return BacktestEvaluation(
        bars=backtests.axis,
        positions=backtests.positions[judged],
        judged_seed=judged,
        seed_sharpes=tuple(backtests.metrics[seed].sharpe_ratio for seed in backtests.ranking),
        result=backtests.results[judged],
        metrics=backtests.metrics[judged],
        baselines=baselines,
        rules=rules,
        market=market,
        members=members,
        runs=runs,
        plan=plan,
    )


def baseline_sizer(params: Mapping[str, Any]) -> Sizer:
    """Sizing of a version with the parameters, or the default for a version without sizing."""
    return partial(size_positions, sizing=catalog.version_sizing(params) or DEFAULT_SIZING)


def _ranked(metrics: Sequence[Metrics], quantile: float) -> tuple[tuple[int, ...], int]:
    """Seeds by Sharpe ratio, ascending, and the seed at the quantile."""
    ranking = sorted(range(len(metrics)), key=lambda seed: _finite_or_lowest(metrics[seed].sharpe_ratio))
    return tuple(ranking), ranking[int(quantile * (len(ranking) - 1))]


def _finite_or_lowest(ratio: float) -> float:
    return ratio if math.isfinite(ratio) else -math.inf
