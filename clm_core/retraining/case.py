"""Case of a version before the gate: out-of-sample results, trials counted, comparison with the champion."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from clm_core.backtest.baselines import Baseline
from clm_core.backtest.declared_rules import DeclaredRule
from clm_core.backtest.results import Backtest
from clm_core.decisions.cases import BaselineAlpha, Case, Comparison, RecipeRefresh, RecipeReplacement
from clm_core.decisions.explanation import Proof
from clm_core.decisions.timing_evidence import alpha_beyond_baselines, timing_of_positions
from clm_core.domain.evaluations import BaselineComparison, RuleResult, Verdict
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.trials import Trial, TrialSource
from clm_core.domain.versions import ModelVersion
from clm_core.evidence import paired
from clm_core.evidence.bootstrap import annual_sharpe_interval, sharpe_estimate
from clm_core.evidence.equal_volatility import compare
from clm_core.evidence.overfitting import SelectionRisk
from clm_core.evidence.regression import alpha_and_beta, excess_return
from clm_core.evidence.soundness import activity
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.evidence.trials import (
    TrialCount,
    record_of,
    statistics_of,
    trial_record,
)
from clm_core.ledger.executions import version_execution
from clm_core.ledger.store import Ledger
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.models.params import series_names
from clm_core.retraining.results import BacktestEvaluation, ChampionModel


def record_trials(
    ledger: Ledger,
    lease: Lease,
    job: TrainingJob,
    bars: Bars,
    backtests: Sequence[tuple[int, Backtest]],
    now: datetime,
) -> None:
    """Record a trial per seed on the out-of-sample bars, before any result is read.

    Args:
        bars: out-of-sample bars.
        backtests: difference from the job's seed, and the backtest with that seed; the judged seed last.
    """
    for number, (seed, result) in enumerate(backtests):
        # keeps the order given, however coarse the clock
        at = now + timedelta(microseconds=number)
        count_trial(ledger, lease, job, job.symbol, bars, seed, result, at)


def count_trial(
    ledger: Ledger,
    lease: Lease,
    job: TrainingJob,
    symbol: str,
    bars: Bars,
    seed: int,
    result: Backtest,
    at: datetime,
) -> None:
    """Count a backtest as a trial of a market or pool.

    Args:
        symbol: market or pool in which the trial counts.
        bars: out-of-sample bars of the backtest.
        seed: difference from the job's seed.
    """
    record = track_record(result.returns)
    trial = Trial(
        id=uuid.uuid4(),
        source=TrialSource.RETRAIN,
        model_id=job.model_id,
        symbol=symbol,
        timeframe=job.timeframe,
        job_id=job.id,
        params=job.training_params,
        seed=job.seed + seed,
        **statistics_of(record),
        period_start=bars.start.to_pydatetime(),
        period_end=bars.end.to_pydatetime(),
        at=at,
    )
    ledger.trials.count(trial, trial_record(bars.time, result.returns, record), lease)


def build_case(
    evaluation: BacktestEvaluation,
    trials: TrialCount,
    against: Comparison | None,
    selection: SelectionRisk | None = None,
    succession: RecipeRefresh | RecipeReplacement | None = None,
) -> Case:
    """The evidence about a version as the gate reads it.

    Args:
        trials: count of the trials of the version's market and of its searches.
        against: the comparison with the champion, if any.
        selection: risk of the search behind the parameters; None for parameters from no search.
        succession: kind of the change of the production version.
    """
    returns = evaluation.result.returns
    record = track_record(returns)
    periods_per_year = evaluation.bars.periods_per_year
    fitted = evaluation.fitted
    return Case(
        metrics=evaluation.metrics,
        activity=activity(evaluation.positions),
        record=record,
        trials=_with_forward_bars(trials, record, evaluation),
        periods_per_year=periods_per_year,
        comparison=against,
        returns=returns,
        trade_returns=evaluation.result.trade_returns,
        selection=selection,
        sharpe_interval=annual_sharpe_interval(returns, periods_per_year),
        succession=succession,
        timing=timing_of(evaluation),
        alpha=alpha_of(evaluation),
        bundle=None if fitted is None else fitted.activity,
        skill=None if fitted is None else fitted.skill,
    )


def timing_of(evaluation: BacktestEvaluation) -> float:
    """P(timing) of the positions asked for on the out-of-sample bars; of a pool, of all members shifted
    together."""
    members = [(each.market, each.bars, each.positions) for each in evaluation.members]
    alone = (evaluation.market, evaluation.bars, evaluation.positions)
    return timing_of_positions(evaluation.bars.time, members or [alone])


def alpha_of(evaluation: BacktestEvaluation) -> BaselineAlpha:
    """Alpha of the daily net returns on the three baselines together."""
    return alpha_beyond_baselines(evaluation.bars.time, evaluation.result.returns, evaluation.baselines)


def _with_forward_bars(count: TrialCount, record: TrackRecord, evaluation: BacktestEvaluation) -> TrialCount:
    """The count, with the forward bars of the recipe's record as independent bars."""
    facts = evaluation.record
    if facts is None or not record.measured:
        return count
    forward = record.effective_bars * min(facts.forward_bars / len(evaluation.bars), 1.0)
    return replace(count, forward_bars=forward, side_by_side=float(facts.side_by_side))


def compare_with_champion(
    ledger: Ledger,
    market_data: MarketData,
    champion: ChampionModel,
    evaluation: BacktestEvaluation,
    installation: ExecutionRules,
) -> Comparison:
    """Champion and challenger on the bars new to both.

    Both trade over all out-of-sample bars under the terms of the evaluation, each with the execution of its
    judgement. Training bars of the champion tell the volatility alone. The returns are compared at equal
    volatility: size is no lead.

    Args:
        installation: rules of the installation, for a champion of release 0.1.0.
    """
    production = champion.version
    model = champion.model
    label = production.version
    if model is None:
        return Comparison(label, paired.PairedRecord(), champion.problem)
    bars = evaluation.bars
    is_new = np.arange(len(bars)) >= bars.row_after(model.trained_on.end)
    if not is_new.any():
        return Comparison(label, paired.PairedRecord())
    # the champion may take series that the new version does not
    positions = model.positions(market_data.with_series(bars, series_names(production.params)))
    rules = version_execution(ledger, production, installation)
    other = evaluation.market.under(rules).backtest(bars, positions)
    record = compare(evaluation.result.returns, other.returns, bars.periods_per_year, is_new)
    return Comparison(label, record)


def compare_with_baselines(evaluation: BacktestEvaluation) -> tuple[BaselineComparison, ...]:
    """The version's returns against those of each baseline, on the out-of-sample bars."""
    return tuple(_compare(evaluation, baseline) for baseline in evaluation.baselines)


def results_of_rules(evaluation: BacktestEvaluation) -> tuple[RuleResult, ...]:
    """Results of the rule strategies at their defaults, for information."""
    return tuple(_result_of(evaluation, rule) for rule in evaluation.rules)


def _result_of(evaluation: BacktestEvaluation, rule: DeclaredRule) -> RuleResult:
    metrics = rule.metrics
    returns = [rule.result.returns]
    return RuleResult(
        name=rule.family.value,
        params=rule.params.model_dump(mode="json"),
        total_return=metrics.total_return,
        sharpe_ratio=metrics.sharpe_ratio,
        sharpe_interval=sharpe_estimate(metrics.sharpe_ratio, returns, evaluation.bars.periods_per_year),
        max_drawdown=metrics.max_drawdown,
        win_rate=metrics.win_rate if metrics.trades else None,
        trades=metrics.trades,
    )


def _compare(evaluation: BacktestEvaluation, baseline: Baseline) -> BaselineComparison:
    own = evaluation.result.returns
    periods_per_year = evaluation.bars.periods_per_year
    alpha, beta = alpha_and_beta(own, baseline.result.returns, periods_per_year)
    metrics = baseline.metrics
    return BaselineComparison(
        name=baseline.name,
        total_return=metrics.total_return,
        sharpe_ratio=metrics.sharpe_ratio,
        sharpe_interval=sharpe_estimate(metrics.sharpe_ratio, [baseline.result.returns], periods_per_year),
        volatility=metrics.volatility,
        max_drawdown=metrics.max_drawdown,
        turnover=metrics.turnover,
        exposure=metrics.exposure,
        excess_return=excess_return(own, baseline.result.returns, periods_per_year),
        alpha=alpha,
        beta=beta,
    )


def proof_of(ledger: Ledger, version: ModelVersion, verdict: Verdict) -> Proof | None:
    """Evidence behind a stored verdict, unchanged since; None if the policy required no evidence."""
    levels = ledger.policy_of(version.model_id, version.version).evidence
    trials = ledger.trials.of_job(version.training_job_id)
    if verdict.luck is None or levels is None or not trials:
        return None
    return Proof(record_of(trials[-1]), verdict.luck, levels)
