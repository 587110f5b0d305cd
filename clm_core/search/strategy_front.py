"""Front of a search for strategies: results in sample and held out, deflated by the trials of the search."""

import json
import math
from collections.abc import Sequence
from uuid import UUID, uuid5

import numpy as np

from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.decisions.gate import promotion_score
from clm_core.domain.strategy_search import FoundStrategy, Objective, PeriodResult, StrategySearch
from clm_core.evidence.bootstrap import sharpe_estimate
from clm_core.evidence.track_record import probabilistic_sharpe_ratio, track_record
from clm_core.evidence.trials import TrialCount, TrialSketch
from clm_core.evolution.pareto import is_measured, pareto_ranks
from clm_core.evolution.strategies import Strategy

NAMESPACE = UUID("5d2f8a60-2f6e-4d0b-9a0e-6f0f4f6a7c11")


def candidate_id(definition: StrategySearch, strategy: Strategy) -> UUID:
    """Id of a strategy found by a search: the same however often the strategy is found."""
    facts = [definition.name, strategy.family.value, dict(strategy.params)]
    return uuid5(NAMESPACE, json.dumps(facts, sort_keys=True))


def period_result(result: Backtest, periods_per_year: float, is_unseen: bool = False) -> PeriodResult:
    """
    Args:
        is_unseen: True for bars outside the search, with an interval; no interval is valid for the best of
            many on the same bars.
    """
    metrics = summarise(result, periods_per_year)
    sharpe = metrics.sharpe_ratio
    return PeriodResult(
        sharpe_ratio=sharpe,
        sharpe_interval=sharpe_estimate(sharpe, [result.returns], periods_per_year) if is_unseen else None,
        total_return=metrics.total_return,
        max_drawdown=metrics.max_drawdown,
        win_rate=finite(metrics.win_rate) if metrics.trades else None,
        profit_factor=finite(metrics.profit_factor) if metrics.trades else None,
        trades=metrics.trades,
    )


def deflated_sharpe(result: Backtest, trials: TrialSketch) -> float | None:
    """Deflated Sharpe ratio at the effective number of trials of the whole search, 0..1."""
    record = track_record(result.returns)
    luck = TrialCount(trials.trials, trials.effective).expected_maximum(record.effective_bars)
    return finite(probabilistic_sharpe_ratio(record, luck))


def on_front(results: Sequence[PeriodResult], objectives: Sequence[Objective]) -> list[bool]:
    """True for measured results on the Pareto front of the results."""
    values = [[_objective(each, objective) for objective in objectives] for each in results]
    scores = np.array(values, np.float64).reshape(len(results), len(objectives))
    leads = (pareto_ranks(scores) == 0) & is_measured(scores)
    return [bool(each) for each in leads]


def shrinkage(front: Sequence[FoundStrategy]) -> float | None:
    """Share of the front's Sharpe ratio lost on the held-out bars: 1 less the ratio of the medians.

    More than 1 where the median on the held-out bars is below 0; None without held-out bars, or for a front
    that earned nothing.
    """
    later = [each.held_out.sharpe_ratio for each in front if each.held_out is not None]
    if not later:
        return None
    earlier = float(np.median([each.searched.sharpe_ratio for each in front]))
    return 1.0 - float(np.median(later)) / earlier if earlier > 0.0 else None


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _objective(result: PeriodResult, objective: Objective) -> float:
    numbers = {
        name: math.nan if value is None else float(value)
        for name, value in result.model_dump(exclude={"sharpe_interval"}).items()
    }
    if objective is Objective.SCORE:
        return promotion_score(numbers["sharpe_ratio"], numbers["win_rate"], numbers["profit_factor"])
    return numbers[objective.value]
