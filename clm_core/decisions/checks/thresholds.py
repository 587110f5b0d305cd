"""Threshold checks: the five limits on the out-of-sample results after costs."""

from clm_core.decisions.cases import Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.gate_policy import PromotionCriteria


def threshold_checks(case: Case, criteria: PromotionCriteria) -> tuple[Reasoned, ...]:
    metrics = case.metrics
    drawdown = abs(metrics.max_drawdown) if limits.is_number(metrics.max_drawdown) else metrics.max_drawdown
    checks = (
        limits.at_least("sharpe_ratio", metrics.sharpe_ratio, criteria.min_sharpe_ratio),
        limits.at_least("win_rate", metrics.win_rate, criteria.min_win_rate),
        limits.at_least("profit_factor", metrics.profit_factor, criteria.min_profit_factor),
        limits.at_most("max_drawdown", drawdown, criteria.max_drawdown),
        limits.at_least("trades", metrics.trades, criteria.min_trades),
    )
    return tuple((check, limits.refusal(check)) for check in checks)
