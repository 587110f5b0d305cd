"""The promotion gate: measured results and criteria in, a verdict with every reason out."""

import math
from collections.abc import Callable

from clm_core.backtest.results import Metrics
from clm_core.domain.evaluations import Decision, Leg, Verdict
from clm_core.promotion.criteria import PromotionCriteria


def judge(metrics: Metrics, criteria: PromotionCriteria) -> Verdict:
    """PASS when every criterion holds on the out-of-sample results after costs, else FAIL with the reasons.

    A value that is missing, NaN or infinite refuses, whatever the limit is.
    """
    drawdown = abs(metrics.max_drawdown) if _is_number(metrics.max_drawdown) else metrics.max_drawdown
    legs = (
        _at_least("sharpe_ratio", metrics.sharpe_ratio, criteria.min_sharpe_ratio),
        _at_least("win_rate", metrics.win_rate, criteria.min_win_rate),
        _at_least("profit_factor", metrics.profit_factor, criteria.min_profit_factor),
        _at_most("max_drawdown", drawdown, criteria.max_drawdown),
        _at_least("trades", metrics.trades, criteria.min_trades),
    )
    reasons = tuple(_refusal(leg) for leg in legs if not leg.passed)
    return Verdict(
        decision=Decision.FAIL if reasons else Decision.PASS,
        score=promotion_score(metrics.sharpe_ratio, metrics.win_rate, metrics.profit_factor),
        legs=legs,
        reasons=reasons,
    )


def promotion_score(sharpe_ratio: float, win_rate: float, profit_factor: float) -> float:
    """Rank of a version, 0..100: half Sharpe (2.0 is full), 30 % win rate (from 50 % to 100 %),
    20 % profit factor (from 1.0 to 3.0); each part clamped, a value that is not finite counts 0.
    """
    return (
        0.5 * _part(sharpe_ratio, 0.0, 2.0)
        + 0.3 * _part(win_rate, 0.5, 1.0)
        + 0.2 * _part(profit_factor, 1.0, 3.0)
    )


def _part(value: float, zero: float, full: float) -> float:
    if not _is_finite_number(value):
        return 0.0
    return min(max((value - zero) / (full - zero), 0.0), 1.0) * 100.0


def _at_least(name: str, value: float, limit: float) -> Leg:
    return _leg(name, value, limit, ">=", lambda v: v >= limit, lambda v: v - limit)


def _at_most(name: str, value: float, limit: float) -> Leg:
    return _leg(name, value, limit, "<=", lambda v: v <= limit, lambda v: limit - v)


def _leg(
    name: str,
    value: float,
    limit: float,
    comparison: str,
    holds: Callable[[float], bool],
    margin: Callable[[float], float],
) -> Leg:
    usable = _is_finite_number(value)
    return Leg(
        name=name,
        value=float(value) if _is_number(value) else math.nan,
        limit=limit,
        comparison=comparison,
        passed=usable and holds(value),
        margin=margin(value) if usable else math.nan,
    )


def _is_number(value: object) -> bool:
    """Numpy's floats are Python floats; its integers and booleans are not, and neither is text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite_number(value: float) -> bool:
    return _is_number(value) and math.isfinite(value)


def _refusal(leg: Leg) -> str:
    if not math.isfinite(leg.value):
        return f"{leg.label} could not be measured"
    asked = "below the required" if leg.comparison == ">=" else "above the allowed"
    shown = f"{leg.value:.4g}"
    if shown == f"{leg.limit:.4g}":
        shown = repr(leg.value)  # refused by a hair: it must not read like its limit
    return f"{leg.label} {shown} is {asked} {leg.limit:g}"
