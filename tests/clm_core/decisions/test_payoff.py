"""A payoff is judged as a whole, and a drawdown at a stated volatility."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.backtest.metrics import measure
from clm_core.decisions import gate
from clm_core.decisions.cases import Case
from clm_core.decisions.gate_policy import GatePolicy, load_document
from clm_core.domain.evaluations import Check, CheckStatus, Decision, Verdict
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialCount
from clm_core.market.bars import Floats

STRICT = GatePolicy(name="strict")
CLASSIC = load_document(preset="classic").policy("any model", "any market")
YEAR = 2190.0
"""Bars of four hours in a year."""


def trend_like(bars: int = 6570, held: int = 15, volatility: float = 0.4, seed: int = 3) -> Case:
    """Three years of a trend payoff: 43 % of the trades win, Sharpe ratio about 3, deep falls as traded."""
    rng = np.random.default_rng(seed)
    trades = bars // held
    wins = rng.permutation(trades) < 0.43 * trades
    size = rng.standard_exponential(trades)
    payoff = np.where(wins, 0.5 + 1.9 * size, -0.4 - 0.45 * size)
    noise = rng.standard_normal((trades, held))
    noise -= noise.mean(axis=1, keepdims=True)
    returns = (payoff[:, None] / held + 0.45 * noise).ravel()
    returns *= volatility / (returns.std() * np.sqrt(YEAR))
    return case_of(returns, returns.reshape(trades, held).sum(axis=1))


def case_of(returns: Floats, trade_returns: Floats) -> Case:
    empty = np.zeros(0)
    return Case(
        metrics=measure(returns, empty, empty, trade_returns, YEAR),
        activity=Activity("long", 0.5, 0.9),
        record=track_record(returns),
        trials=TrialCount(10, 10.0, 0.0),
        periods_per_year=YEAR,
        comparison=None,
        returns=returns,
        trade_returns=trade_returns,
    )


def check_of(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


def test_a_trend_payoff_with_a_sharpe_ratio_of_3_passes_at_a_win_rate_of_43_percent() -> None:
    case = trend_like()
    assert case.metrics.win_rate == pytest.approx(0.43, abs=0.005)
    assert case.metrics.sharpe_ratio == pytest.approx(3.0, abs=0.5)
    assert abs(case.metrics.max_drawdown) > 0.15
    verdict = gate.judge(case, STRICT)
    assert verdict.decision is Decision.PASS
    assert verdict.reasons == ()
    win_rate = check_of(verdict, "win_rate")
    assert (win_rate.passed, win_rate.status, win_rate.carried_by) == (
        False,
        CheckStatus.CARRIED,
        "expectancy",
    )
    assert win_rate.outcome == "✗ missed, carried by expectancy of a trade"
    assert check_of(verdict, "expectancy").status is CheckStatus.MET
    assert "1 missed but carried" in verdict.headline


def test_the_traded_drawdown_stands_beside_the_judged_one() -> None:
    case = trend_like()
    drawdown = check_of(gate.judge(case, STRICT), "max_drawdown")
    assert drawdown.value < 0.15
    assert f"{100 * abs(case.metrics.max_drawdown):.1f}% as traded" in drawdown.measured
    assert "at a volatility of 10% a year" in drawdown.measured


def test_classic_refuses_the_same_payoff_for_win_rate_and_traded_drawdown() -> None:
    verdict = gate.judge(trend_like(), CLASSIC)
    assert verdict.decision is Decision.FAIL
    assert [check.name for check in verdict.missed] == ["win_rate", "max_drawdown"]
    assert len(verdict.reasons) == 2


@pytest.mark.parametrize(
    ("binding", "missed"),
    [
        (("min_win_rate",), ["win_rate"]),
        (("max_drawdown",), ["max_drawdown"]),
        (("min_profit_factor",), []),
    ],
    ids=["win rate", "drawdown", "profit factor"],
)
def test_a_binding_limit_binds_as_it_stands(binding: tuple[str, ...], missed: list[str]) -> None:
    verdict = gate.judge(trend_like(), STRICT.model_copy(update={"binding": binding}))
    assert [check.name for check in verdict.missed] == missed


def test_without_trades_nothing_carries_a_missed_win_rate() -> None:
    verdict = gate.judge(replace(trend_like(), trade_returns=None), STRICT)
    assert verdict.decision is Decision.FAIL
    assert [check.name for check in verdict.missed] == ["win_rate"]
    assert "carries no trades" in verdict.reasons[0]


def test_an_expectancy_of_few_trades_carries_nothing() -> None:
    case = trend_like()
    assert case.trade_returns is not None
    verdict = gate.judge(replace(case, trade_returns=case.trade_returns[:49]), STRICT)
    assert verdict.decision is Decision.FAIL
    assert "49 trades are too few" in verdict.reasons[0]


def test_a_win_rate_that_cannot_be_measured_is_never_carried() -> None:
    case = trend_like()
    metrics = replace(case.metrics, win_rate=float("nan"))
    assert gate.judge(replace(case, metrics=metrics), STRICT).decision is Decision.FAIL


def test_a_weak_version_is_refused_for_sharpe_ratio_and_win_rate_by_name() -> None:
    case = trend_like()
    assert case.trade_returns is not None
    weak = replace(
        case,
        metrics=replace(case.metrics, sharpe_ratio=0.6, win_rate=0.48),
        trade_returns=case.trade_returns - case.trade_returns.mean(),
    )
    verdict = gate.judge(weak, STRICT)
    assert verdict.decision is Decision.FAIL
    assert verdict.reasons[0] == "Sharpe ratio 0.60 is below the required 1.00"
    assert verdict.reasons[1].startswith("win rate 48.0% is below the required 52.0%, and the expectancy")
    assert len(verdict.reasons) == len(verdict.missed) == 2


def test_each_missed_check_has_one_reason_also_beside_a_refusal() -> None:
    case = trend_like()
    weak = replace(
        case,
        metrics=replace(case.metrics, trades=10, sharpe_ratio=0.1),
        record=track_record(0.01 * np.resize([1.0, -0.99], 200)),
    )
    verdict = gate.judge(weak, STRICT)
    assert verdict.decision is Decision.FAIL
    assert [check.name for check in verdict.missed] == ["sharpe_ratio", "trades", "deflated_sharpe_ratio"]
    assert len(verdict.reasons) == 3
    assert verdict.headline.startswith("FAIL: 3 of ")


def test_the_length_of_the_track_record_informs_and_decides_nothing() -> None:
    length = check_of(gate.judge(trend_like(), STRICT), "track_record_bars")
    assert length.status is CheckStatus.INFORMATION
    assert length.outcome == "for information"


@settings(max_examples=30, deadline=None)
@given(
    scale=st.sampled_from([0.4, 0.1, 2.0]),
    volatility=st.floats(0.05, 0.6),
    seed=st.integers(0, 50),
    bars=st.sampled_from([1500, 3000, 6570]),
)
def test_a_constant_scale_of_the_returns_changes_no_check(
    scale: float, volatility: float, seed: int, bars: int
) -> None:
    case = trend_like(bars=bars, volatility=volatility, seed=seed)
    assert case.returns is not None
    assert case.trade_returns is not None
    scaled = case_of(scale * case.returns, scale * case.trade_returns)
    before, after = (gate.judge(each, STRICT) for each in (case, scaled))
    assert before.decision is after.decision
    assert [check.status for check in before.checks] == [check.status for check in after.checks]
    drawdowns = [check_of(each, "max_drawdown").value for each in (before, after)]
    assert drawdowns[0] == pytest.approx(drawdowns[1])
