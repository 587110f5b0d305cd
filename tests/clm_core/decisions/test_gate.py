"""The gate passes only measured results above the thresholds and beyond trial luck."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backtest.results import Metrics
from clm_core.decisions import gate
from clm_core.decisions.cases import BaselineAlpha, Case, Comparison
from clm_core.decisions.checks.evidence import LEAD
from clm_core.decisions.checks.soundness import RUINED
from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy, load_document
from clm_core.domain.evaluations import CheckKind, Decision, Verdict
from clm_core.evidence import paired
from clm_core.evidence.regression import NOT_REGRESSED, JointAlpha
from clm_core.evidence.soundness import Activity, Skill, activity, skill_of
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import DAY, TrialCount, count_trials, trial_record
from clm_core.market.bars import Floats
from clm_core.models.activity import activity_of

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
THRESHOLDS = ("sharpe_ratio", "win_rate", "profit_factor", "max_drawdown", "trades")
STRICT = GatePolicy(name="strict")
CLASSIC = load_document(preset="classic").policy("any model", "any market")
ALONE = GatePolicy(name="thresholds-only", evidence=None)
CERTAIN = BaselineAlpha(JointAlpha(0.10, 0.02))
ALIVE = Activity("long", 0.5, 0.9)


def returns_of(sharpe: float, bars: int) -> Floats:
    """Two alternating values with exactly the given Sharpe ratio of a bar (n - 1)."""
    swing = np.resize([1.0, -1.0], bars)
    return np.asarray(0.01 * (swing / swing.std(ddof=1) + sharpe))


def case(
    sharpe: float = 0.2,
    bars: int = 2000,
    trials: float = 10.0,
    comparison: Comparison | None = None,
    forward: float = 0.0,
) -> Case:
    """A case with returns beyond doubt by default, without trades."""
    returns = returns_of(sharpe, bars)
    return Case(
        GOOD,
        ALIVE,
        track_record(returns),
        TrialCount(max(1, int(trials)), trials, 0.0, forward),
        365.0,
        comparison,
        returns,
        timing=1.0,
        alpha=CERTAIN,
    )


def judged(policy: GatePolicy = STRICT, **changes: Any) -> Verdict:
    return gate.judge(replace(case(), metrics=replace(GOOD, **changes)), policy)


def compared(lead: float, bars: int) -> Comparison:
    """With a champion whose returns are as good on the bar, a steady lead and noise apart."""
    noise = np.resize([0.001, -0.001], bars)
    record = paired.extend(paired.PairedRecord(), noise + lead, np.zeros(bars))
    return Comparison("v20250101_000000", record)


def test_a_version_that_meets_every_condition_passes_without_reasons() -> None:
    verdict = judged()
    assert verdict.decision is Decision.PASS
    assert verdict.reasons == verdict.warnings == ()
    assert verdict.more_bars is None
    names = [check.name for check in verdict.checks]
    first = names.index(THRESHOLDS[0])
    assert tuple(names[first : first + 5]) == THRESHOLDS
    assert verdict.headline.startswith("PASS: ")


def test_a_version_that_lost_all_the_capital_fails_as_ruined_whatever_the_limits() -> None:
    lenient = STRICT.criteria.model_copy(update={"max_drawdown": 1.0})
    verdict = judged(STRICT.model_copy(update={"criteria": lenient}), max_drawdown=-1.0)
    assert verdict.decision is Decision.FAIL
    assert verdict.reasons[0] == RUINED
    check = verdict.checks[0]
    assert (check.name, check.kind, check.value, check.passed) == ("ruined", CheckKind.SOUNDNESS, 1.0, False)


def test_a_loss_of_nearly_all_the_capital_is_no_ruin() -> None:
    verdict = judged(max_drawdown=-0.999)
    assert verdict.checks[0].passed
    assert not any("ruined" in reason for reason in verdict.reasons)


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
        ({"sharpe_ratio": 0.99}, "Sharpe ratio 0.99 is below the required 1.00"),
        ({"win_rate": 0.51}, "win rate 51.0% is below the required 52.0%"),
        ({"profit_factor": 1.2}, "profit factor 1.20 is below the required 1.30"),
        ({"max_drawdown": -0.16}, "max drawdown 16.0% is above the allowed 15.0%"),
        ({"trades": 49}, "trades 49 is below the required 50"),
        (
            {"sharpe_ratio": math.nextafter(1.0, 0.0)},
            "Sharpe ratio 0.9999999999999999 is below the required 1.00",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("policy", [CLASSIC, ALONE], ids=lambda policy: policy.name)
def test_a_missed_threshold_fails_whatever_the_evidence(
    changes: dict[str, Any], reason: str, policy: GatePolicy
) -> None:
    verdict = judged(policy, **changes)
    assert verdict.decision is Decision.FAIL
    assert verdict.reasons == (reason,)


def test_every_limit_is_met_at_its_very_value() -> None:
    verdict = judged(
        CLASSIC, sharpe_ratio=1.0, win_rate=0.52, profit_factor=1.3, max_drawdown=-0.15, trades=50
    )
    assert verdict.passed
    margins = [check.margin for check in verdict.checks if check.name in THRESHOLDS]
    assert margins == pytest.approx([0.0] * 5)


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "1.5", True], ids=repr)
def test_a_value_that_cannot_be_measured_never_passes(name: str, value: object) -> None:
    verdict = judged(**{name: value})
    assert verdict.decision is Decision.FAIL
    assert any("could not be measured" in reason for reason in verdict.reasons)


EDGES = [
    near
    for limit in (1.0, 0.52, 1.3, 0.15, -0.15)
    for near in (limit, math.nextafter(limit, -9), math.nextafter(limit, 9))
]
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(EDGES), st.floats(), st.none(), st.text(max_size=3), st.booleans()
)
TRADES: st.SearchStrategy[Any] = st.one_of(st.sampled_from([49, 50, 51]), st.integers(), ANYTHING)


@given(
    st.fixed_dictionaries({name: TRADES if name == "trades" else ANYTHING for name in THRESHOLDS}),
    st.sampled_from([CLASSIC, ALONE]),
)
def test_the_verdict_agrees_with_the_thresholds_read_literally(
    values: dict[str, Any], policy: GatePolicy
) -> None:
    def number(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value)

    expected = (
        all(map(number, values.values()))
        and values["sharpe_ratio"] >= 1.0
        and values["win_rate"] >= 0.52
        and values["profit_factor"] >= 1.3
        and abs(values["max_drawdown"]) <= 0.15
        and values["trades"] >= 50
    )
    assert judged(policy, **values).passed == expected


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (np.zeros(500), "100.0% of its positions are flat"),
        (np.ones(500), "100.0% of its positions are long"),
        (np.append(-np.ones(481), np.ones(19)), "96.2% of its positions are short"),
        (np.resize([1e-6, -1e-6], 500), "vary by 0, hardly at all"),
        (np.append(np.resize([1.0, -1.0], 499), np.nan), "bars on one side could not be measured"),
    ],
    ids=["never trades", "always long", "one side", "too small to matter", "not finite"],
)
def test_a_collapsed_model_fails_by_name(positions: Floats, reason: str) -> None:
    verdict = gate.judge(replace(case(), activity=activity(positions)), STRICT)
    assert verdict.decision is Decision.FAIL
    assert any("collapsed" in given and reason in given for given in verdict.reasons)


def test_a_model_that_is_on_one_side_just_often_enough_has_not_collapsed() -> None:
    positions = np.append(np.ones(475), -np.ones(25))
    assert gate.judge(replace(case(), activity=activity(positions)), STRICT).passed


def test_a_result_within_trial_luck_is_inconclusive_and_names_the_missing_bars() -> None:
    verdict = gate.judge(case(sharpe=0.1, bars=500), STRICT)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.more_bars is not None
    # the bars to come are bars on which the registered version is followed
    longer = [int(verdict.more_bars) + off for off in (25, -25)]
    later, sooner = (
        gate.judge(case(sharpe=0.1, bars=500 + more, forward=float(more)), STRICT) for more in longer
    )
    assert (later.decision, sooner.decision) == (Decision.PASS, Decision.INCONCLUSIVE)
    assert any(f"{verdict.more_bars:,.0f} more at this rate" in reason for reason in verdict.reasons)


def test_a_record_that_no_number_of_bars_would_prove_fails() -> None:
    level = replace(case(sharpe=0.0, bars=500), metrics=GOOD)
    verdict = gate.judge(level, STRICT)
    assert verdict.decision is Decision.FAIL
    assert verdict.more_bars is None
    assert any("no number of bars at this rate would decide" in reason for reason in verdict.reasons)


def test_the_more_was_tried_the_more_a_version_must_show() -> None:
    few, many = (gate.judge(case(sharpe=0.1, bars=1200, trials=count), STRICT) for count in (2.0, 2000.0))
    assert (few.decision, many.decision) == (Decision.PASS, Decision.INCONCLUSIVE)
    assert few.luck is not None
    assert many.luck is not None
    assert few.luck.sharpe_ratio < many.luck.sharpe_ratio


def test_losing_trials_raise_the_bar_by_their_number_alone() -> None:
    days = np.arange(1095) * DAY
    noise = np.random.default_rng(1).standard_normal((1095, 12))
    honest = noise[:, :1] + 3.0 / math.sqrt(365.0)
    losers = noise[:, 1:] - 6.0 / math.sqrt(365.0)
    bars = []
    for others in (losers, losers + 6.0 / math.sqrt(365.0)):
        counted = [trial_record(days, each, track_record(each)) for each in np.hstack([others, honest]).T]
        verdict = gate.judge(replace(case(), trials=count_trials(counted, 10.0)), STRICT)
        assert verdict.luck is not None
        bars.append(verdict.luck.sharpe_ratio)
    assert bars[0] == pytest.approx(bars[1], rel=1e-3)


@pytest.mark.parametrize(
    "returns",
    [np.zeros(2000), returns_of(0.2, 19), np.append(returns_of(0.2, 500), np.nan), np.full(500, np.inf)],
    ids=["never vary", "too few", "nan", "infinite"],
)
def test_a_record_that_cannot_be_measured_proves_nothing(returns: Floats) -> None:
    with np.errstate(all="ignore"):
        verdict = gate.judge(replace(case(), record=track_record(returns)), STRICT)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.more_bars == math.inf


@pytest.mark.parametrize(
    ("changes", "decision", "reason"),
    [
        ({"timing": 0.94}, Decision.FAIL, "earn less than this at 94.0% of all shifts, and 95% are required"),
        ({"timing": 0.0}, Decision.FAIL, "the positions have no timing: they never vary"),
        ({"timing": math.nan}, Decision.INCONCLUSIVE, "timing could not be measured"),
        ({"alpha": BaselineAlpha(NOT_REGRESSED)}, Decision.INCONCLUSIVE, "alpha could not be measured"),
        (
            {"alpha": BaselineAlpha(JointAlpha(0.10, 0.08), "trend")},
            Decision.FAIL,
            "a trend rule does as well: the alpha beyond the three baselines together is 10.0% a year, and "
            "not above zero with a confidence of 95% (at least -3.2%)",
        ),
        (
            {"alpha": BaselineAlpha(JointAlpha(0.10, 0.08), "buy_and_hold")},
            Decision.FAIL,
            "buying and holding does as well",
        ),
        (
            {"alpha": BaselineAlpha(JointAlpha(0.10, 0.08))},
            Decision.FAIL,
            "the three baselines together do as well",
        ),
    ],
    ids=["shifted", "constant", "unmeasured", "no alpha", "trend", "holding", "together"],
)
def test_a_version_must_earn_by_its_timing_and_beyond_the_baselines(
    changes: dict[str, Any], decision: Decision, reason: str
) -> None:
    verdict = gate.judge(replace(case(), **changes), STRICT)
    assert verdict.decision is decision
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
    assert gate.judge(replace(case(), **changes), ALONE).passed


@pytest.mark.parametrize(
    ("comparison", "decision", "reason"),
    [
        (compared(0.001, 400), Decision.PASS, ""),
        (compared(0.0, 400), Decision.PASS, ""),
        (
            compared(-0.0005, 400),
            Decision.FAIL,
            "earns less than champion v20250101_000000: at best -",
        ),
        (compared(-0.0005, 30), Decision.INCONCLUSIVE, "only 30 bars are new to both"),
        (compared(0.001, 0), Decision.INCONCLUSIVE, "only 0 bars are new to both"),
        (
            Comparison("v20250101_000000", paired.extend(paired.PairedRecord(), np.zeros(60), np.zeros(60))),
            Decision.PASS,
            "",
        ),
    ],
    ids=["better", "as good", "worse", "too few to tell", "no common bar", "the same on every bar"],
)
def test_a_challenger_must_not_be_worse_than_the_champion(
    comparison: Comparison, decision: Decision, reason: str
) -> None:
    verdict = gate.judge(case(comparison=comparison), STRICT)
    assert verdict.decision is decision
    assert any(reason in given for given in verdict.reasons) or not reason
    assert verdict.checks[-1].name == LEAD


def test_too_few_common_bars_say_how_many_are_missing() -> None:
    assert gate.judge(case(comparison=compared(0.0, 30)), STRICT).more_bars == 20


def test_thresholds_alone_ask_for_no_evidence_and_warn() -> None:
    verdict = gate.judge(case(sharpe=0.0, bars=20, comparison=compared(-0.01, 400)), ALONE)
    assert verdict.decision is Decision.PASS
    assert verdict.warnings == (gate.THRESHOLDS_ALONE,)
    assert verdict.luck is None


def test_a_verdict_names_the_policy_it_was_reached_by() -> None:
    harder = GatePolicy(name="strict", evidence=EvidenceLevels(min_deflated_sharpe=0.99))
    verdicts = [judged(policy) for policy in (STRICT, STRICT, harder, ALONE)]
    assert verdicts[0].policy_hash == verdicts[1].policy_hash == STRICT.digest
    assert len({verdict.policy_hash for verdict in verdicts}) == 3


NEVER_TRADES = activity_of(np.zeros(100))
WORSE = Skill(-0.03, 0.01)


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        (
            {"bundle": NEVER_TRADES},
            "bundle_activity",
            "collapsed: the fitted model is flat on 100.0% of the newest 100 training bars",
        ),
        (
            {"skill": WORSE},
            "skill",
            "the registered model's forecast is worse than a constant: skill -3.00%, 3.0 standard errors "
            "below zero",
        ),
    ],
    ids=["activity", "skill"],
)
def test_a_registered_model_that_collapsed_fails_whatever_its_folds_did(
    changes: dict[str, Any], name: str, reason: str
) -> None:
    verdict = gate.judge(replace(case(), **changes), STRICT)
    [check] = [each for each in verdict.checks if each.name == name]
    assert (check.kind, check.passed) == (CheckKind.SOUNDNESS, False)
    assert (verdict.decision, verdict.reasons) == (Decision.FAIL, (reason,))


def test_a_model_that_collapsed_has_no_score() -> None:
    assert gate.judge(replace(case(), bundle=NEVER_TRADES), STRICT).score == 0.0
    assert gate.judge(replace(case(), activity=Activity("long", 1.0, 0.0)), STRICT).score == 0.0
    assert judged(sharpe_ratio=0.6, win_rate=0.48).score > 0.0


@pytest.mark.parametrize(
    "skill",
    [Skill(0.002, 0.01), Skill(-0.016, 0.01), Skill(0.0, 0.0), None, Skill(-0.5, math.nan)],
    ids=["some", "within chance of zero", "a constant", "no forecast", "no error measured"],
)
def test_a_skill_not_proven_below_zero_refuses_nothing(skill: Skill | None) -> None:
    active = activity_of(np.resize([0.5, -0.5], 100))
    assert gate.judge(replace(case(), bundle=active, skill=skill), STRICT).decision is Decision.PASS


def test_a_skill_is_read_from_the_losses_of_an_earlier_release() -> None:
    skill = skill_of({"validation_log_loss": 0.70, "validation_log_loss_of_constant": 0.69})
    assert skill is not None
    assert skill.value == pytest.approx(1 - 0.70 / 0.69)
    assert math.isnan(skill.error)
    assert skill_of({"out_of_fold_sharpe.x": 1.0}) is None
