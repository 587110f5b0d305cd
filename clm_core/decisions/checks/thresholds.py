"""Threshold checks: limits on the out-of-sample results after costs.

Win rate and profit factor are judged as a whole: where the lower bound of the expectancy of a trade is above
0, the expectancy carries a missed one, since trend payoffs win a third of the time. The drawdown is judged on
returns scaled to a stated weekly volatility, as size is the trader's choice. Neither holds for a limit that
binds as it stands (`GatePolicy.binds`).
"""

import math

from clm_core.decisions.cases import Case
from clm_core.decisions.checks import limits
from clm_core.decisions.checks.limits import Reasoned
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain import measures
from clm_core.domain.evaluations import Check
from clm_core.evidence.expectancy import MIN_TRADES, Expectancy, expectancy
from clm_core.evidence.scaling import bars_a_week, bars_summed, scaled_drawdown

SEED = 0
"""Seed of the resampling of trades: the same evidence always gets the same verdict."""


def threshold_checks(case: Case, policy: GatePolicy) -> tuple[Reasoned, ...]:
    metrics = case.metrics
    criteria = policy.criteria
    sharpe = limits.at_least("sharpe_ratio", metrics.sharpe_ratio, criteria.min_sharpe_ratio)
    if case.sharpe_interval is not None:
        interval = {"low": case.sharpe_interval.low, "high": case.sharpe_interval.high}
        sharpe = sharpe.model_copy(update=interval)
    win_rate = limits.at_least("win_rate", metrics.win_rate, criteria.min_win_rate)
    profit_factor = limits.at_least("profit_factor", metrics.profit_factor, criteria.min_profit_factor)
    carrier = _expectancy(case, policy)
    payoff = (
        _payoff(win_rate, carrier, policy.binds("min_win_rate")),
        _payoff(profit_factor, carrier, policy.binds("min_profit_factor")),
    )
    checks = (
        _reasoned(sharpe),
        *payoff,
        _reasoned(_drawdown(case, policy)),
        _reasoned(limits.at_least("trades", metrics.trades, criteria.min_trades)),
    )
    if carrier is None:
        return checks
    carries = any(check.carried_by for check, _ in payoff)
    return (*checks, _reasoned(carrier.model_copy(update={"decides": carries})))


def _reasoned(check: Check) -> Reasoned:
    return check, limits.refusal(check)


def _drawdown(case: Case, policy: GatePolicy) -> Check:
    traded = case.metrics.max_drawdown
    raw = abs(traded) if limits.is_number(traded) else traded
    limit = policy.criteria.max_drawdown
    if policy.binds("max_drawdown"):
        return limits.at_most("max_drawdown", raw, limit)
    volatility = policy.criteria.drawdown_volatility
    scaled = raw
    if limits.is_finite_number(raw):
        scaled = _scaled(case, volatility)
    check = limits.at_most("max_drawdown", scaled, limit)
    if case.returns is None or not math.isfinite(check.value):
        return check
    note = (
        f"at a volatility of {_span(len(case.returns), case.periods_per_year)} returns of "
        f"{100 * volatility:g}% a year; {measures.percent(raw)} as traded"
    )
    return check.model_copy(update={"note": note})


def _scaled(case: Case, volatility: float) -> float:
    if case.returns is None:
        return math.nan
    return scaled_drawdown(case.returns, case.periods_per_year, volatility)


def _span(n_bars: int, periods_per_year: float) -> str:
    """Adjective for the returns whose volatility is measured: weekly, except on a short record."""
    bars = bars_summed(n_bars, periods_per_year)
    return "weekly" if bars == bars_a_week(periods_per_year) else f"{bars:,}-bar"


def _expectancy(case: Case, policy: GatePolicy) -> Check | None:
    """Check of the lower bound of the expectancy; None if both limits bind as they stand."""
    if policy.binds("min_win_rate") and policy.binds("min_profit_factor"):
        return None
    confidence = policy.criteria.expectancy_confidence
    measured = Expectancy(0, math.nan, math.nan)
    if case.trade_returns is not None:
        measured = expectancy(case.trade_returns, confidence, SEED)
    check = limits.above("expectancy", measured.low, 0.0)
    return check.model_copy(update={"note": _basis(case, measured, confidence)})


def _basis(case: Case, measured: Expectancy, confidence: float) -> str:
    if case.trade_returns is None:
        return "the evaluation carries no trades"
    if measured.trades < MIN_TRADES:
        return f"{measured.trades:,} trades are too few, {MIN_TRADES} needed"
    return (
        f"lower bound of {100 * confidence:g}% over {measured.trades:,} trades, "
        f"mean {measures.fine_percent(measured.mean)}"
    )


def _payoff(check: Check, carrier: Check | None, binds: bool) -> Reasoned:
    """Check of a payoff limit, carried by a positive expectancy unless the limit binds as it stands.

    A value without a measurement is never carried.
    """
    reason = limits.refusal(check)
    if binds or carrier is None or check.passed or not math.isfinite(check.value):
        return check, reason
    if carrier.passed:
        return check.model_copy(update={"carried_by": carrier.name}), reason
    shortfall = carrier.measured if math.isfinite(carrier.value) else carrier.note
    return check, f"{reason}, and the expectancy of a trade does not carry it: {shortfall}"
