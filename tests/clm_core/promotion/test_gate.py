"""The gate promotes only what it could measure and found good enough."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backtest.results import Metrics
from clm_core.promotion import gate
from clm_core.promotion.criteria import PromotionCriteria

GOOD = Metrics(
    total_return=0.4,
    cagr=0.3,
    volatility=0.2,
    sharpe_ratio=1.45,
    sortino_ratio=2.0,
    calmar_ratio=3.0,
    max_drawdown=-0.10,
    profit_factor=1.65,
    win_rate=0.58,
    trades=120,
    exposure=0.5,
    turnover=40.0,
)
CRITERIA = PromotionCriteria()
JUDGED = ("sharpe_ratio", "win_rate", "profit_factor", "max_drawdown", "trades")


def judged(**changes: Any) -> gate.Verdict:
    return gate.judge(replace(GOOD, **changes), CRITERIA)


def test_a_version_that_meets_every_criterion_passes_without_reasons() -> None:
    verdict = judged()
    assert verdict.passed
    assert verdict.reasons == ()
    assert [leg.name for leg in verdict.legs] == list(JUDGED)


def test_the_score_is_half_sharpe_three_tenths_win_rate_two_tenths_profit_factor() -> None:
    assert judged().score == pytest.approx(47.55, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ((2.0, 1.0, 3.0), 100.0),
        ((9.0, 1.0, 99.0), 100.0),
        ((-3.0, 0.1, 0.2), 0.0),
        ((math.nan, math.inf, 2.0), 10.0),
    ],
    ids=["full", "clamped above", "clamped below", "what cannot be measured counts nothing"],
)
def test_the_score_is_clamped(values: tuple[float, float, float], score: float) -> None:
    assert gate.promotion_score(*values) == pytest.approx(score)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sharpe_ratio": 0.99}, "Sharpe ratio 0.99 is below the required 1"),
        ({"win_rate": 0.51}, "win rate 0.51 is below the required 0.52"),
        ({"profit_factor": 1.2}, "profit factor 1.2 is below the required 1.3"),
        ({"max_drawdown": -0.16}, "max drawdown 0.16 is above the allowed 0.15"),
        ({"trades": 49}, "trades 49 is below the required 50"),
        (
            {"sharpe_ratio": math.nextafter(1.0, 0.0)},
            "Sharpe ratio 0.9999999999999999 is below the required 1",
        ),
    ],
    ids=str,
)
def test_a_missed_criterion_is_the_reason(changes: dict[str, Any], reason: str) -> None:
    verdict = judged(**changes)
    assert not verdict.passed
    assert verdict.reasons == (reason,)


def test_every_limit_is_met_at_its_very_value() -> None:
    verdict = judged(sharpe_ratio=1.0, win_rate=0.52, profit_factor=1.3, max_drawdown=-0.15, trades=50)
    assert verdict.passed
    assert [leg.margin for leg in verdict.legs] == pytest.approx([0.0] * 5)


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "1.5", True], ids=repr)
def test_what_cannot_be_measured_never_passes(name: str, value: object) -> None:
    verdict = judged(**{name: value})
    assert not verdict.passed
    assert any("could not be measured" in reason for reason in verdict.reasons)


@given(st.fixed_dictionaries({name: st.floats(width=32) for name in JUDGED if name != "trades"}))
def test_the_verdict_agrees_with_the_criteria_read_literally(values: dict[str, float]) -> None:
    expected = (
        all(math.isfinite(value) for value in values.values())
        and values["sharpe_ratio"] >= 1.0
        and values["win_rate"] >= 0.52
        and values["profit_factor"] >= 1.3
        and abs(values["max_drawdown"]) <= 0.15
    )
    assert judged(**values).passed == expected
