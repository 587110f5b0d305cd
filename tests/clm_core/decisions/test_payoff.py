"""A payoff is judged as a whole, and a drawdown at a stated volatility."""

import re
from dataclasses import replace

import numpy as np
import pytest
from gate_cases import STRICT, case_of, check_of, trend_like
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.decisions import gate
from clm_core.decisions.gate_policy import load_document
from clm_core.domain.evaluations import CheckStatus, Decision
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import track_record

CLASSIC = load_document(preset="classic").policy("any model", "any market")


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
    assert "at a volatility of weekly returns of 10% a year" in drawdown.measured


def test_the_drawdown_of_a_short_record_names_the_sums_it_was_measured_on() -> None:
    case = trend_like(bars=1500)
    case = replace(case, periods_per_year=8760.0)
    drawdown = check_of(gate.judge(case, STRICT), "max_drawdown")
    assert "at a volatility of 57-bar returns of 10% a year" in drawdown.measured


def test_a_path_of_equity_has_the_same_drawdown_where_its_bars_are_smooth() -> None:
    case = trend_like()
    assert case.returns is not None
    assert case.trade_returns is not None
    # the volatility of the bars falls to a fifth, that of weeks by a tenth
    smooth = case_of(np.convolve(case.returns, np.ones(24) / 24, mode="same"), case.trade_returns)
    drawdowns = [check_of(gate.judge(each, STRICT), "max_drawdown").value for each in (case, smooth)]
    assert drawdowns[1] == pytest.approx(drawdowns[0], rel=0.4)


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
    trades = np.resize([0.03, -0.001, -0.001], 49)
    verdict = gate.judge(replace(trend_like(), trade_returns=trades), STRICT)
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


ANY = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([np.nan, np.inf, -np.inf]))


@settings(max_examples=100, deadline=None)
@given(ANY, ANY, ANY, ANY, ANY, st.sampled_from([0, 5, 300]))
def test_no_number_is_shown_as_nan_and_each_missed_check_has_one_reason(
    sharpe: float, win_rate: float, profit_factor: float, drawdown: float, share: float, bars: int
) -> None:
    case = trend_like()
    metrics = replace(
        case.metrics,
        sharpe_ratio=sharpe,
        win_rate=win_rate,
        profit_factor=profit_factor,
        max_drawdown=drawdown,
    )
    returns = np.resize([0.01, np.nan], bars)
    unmeasured = replace(
        case,
        metrics=metrics,
        activity=Activity("flat", share, share),
        record=track_record(returns),
        returns=returns,
        trade_returns=returns[:60],
    )
    with np.errstate(all="ignore"):
        verdict = gate.judge(unmeasured, STRICT)
    texts = [*verdict.reasons, verdict.headline, *(cell for check in verdict.checks for cell in check.cells)]
    assert not [text for text in texts if re.search(r"\b(nan|inf)\b", text)]
    assert len(verdict.reasons) == len(verdict.missed)
