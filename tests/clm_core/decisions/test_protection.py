"""Protection of a production version: triggers, and the action they lead to."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.health import Alarm
from clm_core.decisions.protection import (
    ProtectionAction,
    ProtectionFacts,
    ProtectionTrigger,
    RecipeFacts,
    protect,
    years_to_hard_stop,
)
from clm_core.decisions.protection_rules import ProtectionRules
from clm_core.evidence.tail_risk import TailTest

RAISED = Alarm(days=120, statistic=5.6, raised_on_day=118)
TAIL = TailTest(bars=900, statistic=300.0, threshold=200.0, raised_at=640, worst_tenth=3.4)
HEALTHY = ProtectionFacts(
    drawdown=0.04,
    trades=140,
    sharpe_of_first=1.1,
    alarm=Alarm(days=120, statistic=0.4),
    tail=replace(TAIL, statistic=3.0, raised_at=None),
    person_decided_days=30.0,
    hard_stop_off=False,
    rollbacks=0,
    target="v20260101_000000",
)
KEEP, ROLL_BACK, HALT, FREEZE = ProtectionAction


@pytest.mark.parametrize(
    ("changes", "mode", "action", "trigger"),
    [
        pytest.param({}, "auto", KEEP, None, id="healthy"),
        pytest.param({"drawdown": 0.21}, "auto", ROLL_BACK, "hard_stop", id="hard stop"),
        pytest.param({"drawdown": 0.20}, "auto", KEEP, None, id="at the limit"),
        pytest.param({"drawdown": 0.21, "hard_stop_off": True}, "auto", KEEP, None, id="switched off"),
        pytest.param({"drawdown": 0.21}, "off", KEEP, None, id="no protection"),
        pytest.param({"drawdown": math.nan}, "auto", KEEP, None, id="not measurable"),
        pytest.param({"alarm": RAISED}, "auto", ROLL_BACK, "mean", id="alarm on the mean"),
        pytest.param({"tail": TAIL}, "auto", ROLL_BACK, "tail", id="alarm on the tail"),
        pytest.param({"tail": None}, "auto", KEEP, None, id="no reference for the tail"),
        pytest.param(
            {"alarm": RAISED, "person_decided_days": 3.0}, "auto", KEEP, "mean", id="person decided"
        ),
        pytest.param(
            {"drawdown": 0.3, "person_decided_days": 3.0}, "auto", ROLL_BACK, "hard_stop", id="acts always"
        ),
        pytest.param({"alarm": RAISED, "target": None}, "auto", HALT, "mean", id="nothing before"),
        pytest.param(
            {"alarm": RAISED, "target_problem": "its files are gone"}, "auto", HALT, "mean", id="unusable"
        ),
        pytest.param({"alarm": RAISED, "rollbacks": 3}, "auto", FREEZE, "mean", id="third in a row"),
        pytest.param({"drawdown": 0.3, "rollbacks": 3}, "auto", HALT, "hard_stop", id="stop after three"),
        pytest.param({"sharpe_of_first": 0.4}, "auto", KEEP, None, id="the plain rule is not asked"),
        pytest.param({"sharpe_of_first": 0.4}, "classic", ROLL_BACK, "first_trades", id="classic"),
        pytest.param({"sharpe_of_first": 0.4, "trades": 99}, "classic", KEEP, None, id="too few trades"),
        pytest.param({"sharpe_of_first": math.nan}, "classic", KEEP, None, id="classic, not measurable"),
    ],
)
def test_the_action_follows_from_trigger_target_and_people(
    changes: dict[str, Any], mode: Any, action: ProtectionAction, trigger: str | None
) -> None:
    decision = protect(replace(HEALTHY, **changes), ProtectionRules(mode=mode))
    assert decision.action is action
    assert decision.trigger == (None if trigger is None else ProtectionTrigger(trigger))
    assert bool(decision.reasons) == (action is not KEEP or trigger is not None or mode == "off")


@pytest.mark.parametrize(
    ("changes", "action", "target"),
    [
        pytest.param({}, KEEP, None, id="healthy"),
        pytest.param({"alarm": RAISED}, ROLL_BACK, "v20250101_000000", id="alarm on the mean"),
        pytest.param({"drawdown": 0.21}, ROLL_BACK, "v20250101_000000", id="hard stop"),
        pytest.param({"drawdown": math.nan}, KEEP, None, id="not measurable"),
        pytest.param({"alarm": RAISED, "target": None}, HALT, None, id="no other recipe before"),
        pytest.param({"alarm": RAISED, "target_problem": "gone"}, HALT, None, id="unusable"),
    ],
)
def test_a_trigger_of_the_recipe_goes_back_behind_its_refreshes(
    changes: dict[str, Any], action: ProtectionAction, target: str | None
) -> None:
    recipe = RecipeFacts(
        versions=9, drawdown=0.1, alarm=Alarm(days=400, statistic=1.0), target="v20250101_000000"
    )
    facts = replace(HEALTHY, recipe=replace(recipe, **changes))
    decision = protect(facts, ProtectionRules())
    assert (decision.action, decision.target) == (action, target)
    assert all("9 versions ago" in reason for reason in decision.reasons[:1])
    # the newest version's own loss leads to the version before, as without refreshes
    own = protect(replace(facts, drawdown=0.3), ProtectionRules())
    assert (own.action, own.target) == (ROLL_BACK, HEALTHY.target)
    off = protect(replace(facts, hard_stop_off=True), ProtectionRules())
    assert off.trigger is not ProtectionTrigger.HARD_STOP


@given(
    drawdown=st.floats(0, 1) | st.just(math.nan),
    decided=st.none() | st.floats(0, 100),
    rollbacks=st.integers(0, 5),
    target=st.none() | st.just("v20260101_000000"),
)
def test_the_hard_stop_always_ends_the_serving_of_a_version_below_it(
    drawdown: float, decided: float | None, rollbacks: int, target: str | None
) -> None:
    facts = replace(
        HEALTHY, drawdown=drawdown, person_decided_days=decided, rollbacks=rollbacks, target=target
    )
    ended = protect(facts, ProtectionRules()).action in (ROLL_BACK, HALT)
    assert ended == (drawdown > 0.20)


@pytest.mark.parametrize(
    ("sharpe", "volatility", "years"), [(1.0, 0.35, 0.6), (1.0, 0.15, 7.0)], ids=["35 %", "15 %"]
)
def test_the_mean_time_to_a_hard_stop_is_that_of_a_brownian_motion(
    sharpe: float, volatility: float, years: float
) -> None:
    assert years_to_hard_stop(sharpe, volatility, 0.20) == pytest.approx(years, rel=0.02)


def test_the_mean_time_to_a_hard_stop_is_continuous_where_log_equity_has_no_drift() -> None:
    around = [years_to_hard_stop(0.05 + step, 0.10, 0.20) for step in (-1e-4, 0.0, 1e-4)]
    assert around == sorted(around)
    assert around[0] == pytest.approx(around[2], rel=0.01)
    assert math.isnan(years_to_hard_stop(1.0, 0.0, 0.20))


@pytest.mark.parametrize(
    ("age", "limit", "action"),
    [(99.0, None, KEEP), (30.0, 30.0, KEEP), (30.1, 30.0, HALT), (math.nan, 30.0, KEEP)],
    ids=["no limit", "at the limit", "older", "unknown"],
)
def test_a_version_beyond_its_days_is_halted_and_not_rolled_back(
    age: float, limit: float | None, action: ProtectionAction
) -> None:
    rules = ProtectionRules(max_serving_days=limit)
    decision = protect(replace(HEALTHY, age_days=age), rules)
    assert decision.action is action
    stopped = protect(replace(HEALTHY, age_days=99.0, drawdown=0.5), rules)
    assert stopped.trigger is ProtectionTrigger.HARD_STOP
