"""Judgement of the recorded numbers of an evaluation whose positions an earlier release did not store.

The numbers hold under the costs they were measured at alone: under other costs, with other funding rates or
dividends in the judged period, against another champion, or where the policy in force asks for evidence that
the numbers lack, the version has to be trained again.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from clm_core.backtest.results import Metrics
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions import gate
from clm_core.decisions.cases import Case
from clm_core.decisions.checks.evidence import LEAD
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.costs import Costs
from clm_core.domain.errors import EvidenceMissing, UnknownSeries
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.terms import EvaluationTerms, TradingTerms, cost_sentence
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.soundness import Activity
from clm_core.evidence.trials import record_of
from clm_core.ledger.executions import version_execution
from clm_core.market.carry import Carry, Payments
from clm_core.market.timeframes import Timeframe
from clm_core.retraining import pools
from clm_core.retraining.counted_trials import counted_trials
from clm_core.services import Services

SECONDS_A_YEAR = 365.25 * 86_400


def judge_recorded_numbers(
    services: Services, version: ModelVersion, job: TrainingJob, result: EvaluationResult, recorded: Verdict
) -> Verdict:
    """Verdict on recorded numbers under the policy in force.

    Raises:
        EvidenceMissing: the costs, the stored payments of the judged period or the champion in force differ
            from those of the evaluation.
    """
    _require_equal_costs(services, version, job, result)
    policy = services.policy(version.model_id, version.symbol)
    champion = services.ledger.promotions.champion(version.model_id)
    if policy.evidence is not None and champion is not None:
        _require_compared(version, recorded, champion)
    return gate.judge(_case(services, version, job, result, recorded, policy), policy)


def calendar_of(result: EvaluationResult) -> str:
    """Calendar of the evaluation; release 0.1.0 knew 24x7 alone and recorded no calendar."""
    return "24x7" if result.terms is None else result.terms.calendar


def _require_equal_costs(
    services: Services, version: ModelVersion, job: TrainingJob, result: EvaluationResult
) -> None:
    symbols = job.symbols or (job.symbol,)
    each = [services.home_terms(symbol, calendar_of(result)) for symbol in symbols]
    in_force = pools.dearest([market.terms for market in each]) if job.symbols else each[0].terms
    recorded = _recorded_terms(result)
    if _costs(recorded) != _costs(in_force):
        raise EvidenceMissing(
            f"the verdict was given at {result.costs_in_words}, in force are {cost_sentence(in_force)}, and "
            "no positions are stored to judge again: retrain"
        )
    if job.symbols:
        rules = version_execution(services.ledger, version, services.settings.execution.rules)
        equal = _members_unchanged(result, [market.under(rules) for market in each], symbols)
    else:
        equal = _payments_unchanged(services, job.symbol, result, each[0].carry)
    if not equal:
        raise EvidenceMissing(
            "the stored funding rates or dividends of the judged period were changed after the verdict, and "
            "no positions are stored to judge again: retrain"
        )


def _recorded_terms(result: EvaluationResult) -> TradingTerms | EvaluationTerms:
    """Terms of the evaluation; release 0.1.0 knew fee and slippage alone."""
    if result.terms is not None:
        return result.terms
    return TradingTerms(costs=Costs(fee_bps=result.fee_bps, slippage_bps=result.slippage_bps))


def _costs(terms: TradingTerms | EvaluationTerms) -> tuple[object, ...]:
    return terms.costs, terms.holding, terms.long_only, terms.adjusted


def _payments_unchanged(services: Services, symbol: str, result: EvaluationResult, in_force: Carry) -> bool:
    """True if the payments within the judged period are those of the verdict; later payments do not count."""
    recorded = _recorded_terms(result)
    try:
        before = services.market.recorded_carry(symbol, recorded.funding_hash, recorded.dividends_hash)
    except UnknownSeries:
        return False
    pairs = ((before.funding, in_force.funding), (before.dividends, in_force.dividends))
    return all(_within(old, result) == _within(new, result) for old, new in pairs)


def _within(payments: Payments | None, result: EvaluationResult) -> list[tuple[int, float]]:
    """Moments and values of the payments of the judged period."""
    if payments is None:
        return []
    first, last = (pd.Timestamp(each).value for each in (result.period_start, result.period_end))
    rows = slice(*np.searchsorted(payments.time, [first, last + 1]).tolist())
    return list(zip(payments.time[rows].tolist(), payments.value[rows].tolist(), strict=True))


def _members_unchanged(
    result: EvaluationResult, in_force: Sequence[MarketTerms], symbols: Sequence[str]
) -> bool:
    """True if the terms of every member of a pool are those of the verdict, payments included."""
    if result.terms is None:
        return False
    terms = result.terms
    now = {
        symbol: EvaluationTerms.of(market.terms, terms.walk_forward, terms.calendar, terms.gap_rules).digest
        for symbol, market in zip(symbols, in_force, strict=True)
    }
    return now == terms.members


def _require_compared(version: ModelVersion, recorded: Verdict, champion: str) -> None:
    compared = any(check.name == LEAD and check.passed for check in recorded.checks)
    if not (compared and champion == version.parent_version):
        raise EvidenceMissing(
            f"the verdict did not compare the version with {champion}, which is in production, and no "
            "positions are stored to compare now: retrain"
        )


def _case(
    services: Services,
    version: ModelVersion,
    job: TrainingJob,
    result: EvaluationResult,
    recorded: Verdict,
    policy: GatePolicy,
) -> Case:
    """Case of the recorded numbers, without measurements of later releases."""
    values = {check.name: check.value for check in recorded.checks}
    share, deviation = (values.get(name, math.nan) for name in ("share_of_one_side", "position_deviation"))
    counted = counted_trials(
        services.ledger,
        services.market,
        version.symbol,
        version.timeframe,
        job.symbols,
        now=services.clock(),
        until=result.created_at,
    )
    trials = services.ledger.trials.of_job(job.id)
    bars_a_year = SECONDS_A_YEAR / Timeframe(version.timeframe).seconds
    return Case(
        metrics=_metrics(result),
        activity=Activity("on one side", share, deviation),
        record=record_of(trials[-1] if trials else None),
        trials=counted.count(policy.fewest_trials),
        periods_per_year=recorded.luck.bars_per_year if recorded.luck else bars_a_year,
        comparison=None,
    )


def _metrics(result: EvaluationResult) -> Metrics:
    return Metrics(
        total_return=result.total_pnl,
        cagr=math.nan,
        volatility=math.nan,
        sharpe_ratio=result.sharpe_ratio,
        sortino_ratio=result.sortino_ratio,
        calmar_ratio=result.calmar_ratio,
        max_drawdown=result.max_drawdown,
        profit_factor=result.profit_factor,
        win_rate=result.win_rate,
        trades=result.trades,
        exposure=math.nan,
        turnover=math.nan,
    )
