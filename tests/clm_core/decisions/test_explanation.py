"""Verdict explanations: the named changes do change the decision."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from records import an_evaluation

from clm_core.backtest.results import Metrics
from clm_core.decisions import gate
from clm_core.decisions.cases import BaselineAlpha, Case
from clm_core.decisions.explanation import Proof, changes_to_pass, page, textbook_lengths
from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy
from clm_core.domain.evaluations import Decision, EvaluationResult, FoldSummary, Verdict
from clm_core.evidence.regression import JointAlpha
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.evidence.trials import TrialCount

HOUR = timedelta(hours=1)
YEAR = 8760.0
STRICT = GatePolicy(name="strict")
CERTAIN = BaselineAlpha(JointAlpha(0.10, 0.02))
METRICS = Metrics(0.4, 0.3, 0.2, 1.5, 2.0, 3.0, -0.1, 1.65, 0.58, 120, 0.5, 40.0)


RETURNS = np.resize([0.01, -0.009], 500)


def record_of(sharpe: float, bars: int) -> TrackRecord:
    swing = np.resize([1.0, -1.0], bars)
    return track_record(0.01 * (swing / swing.std(ddof=1) + sharpe / np.sqrt(YEAR)))


def judged(
    record: TrackRecord, trials: float = 20.0, metrics: Metrics = METRICS, forward: float = 0.0
) -> Verdict:
    count = TrialCount(int(trials), trials, 0.0, forward)
    activity = Activity("long", 0.5, 0.9)
    case = Case(metrics, activity, record, count, YEAR, None, RETURNS, timing=1.0, alpha=CERTAIN)
    return gate.judge(case, STRICT)


def proof_of(record: TrackRecord, verdict: Verdict) -> Proof:
    assert verdict.luck is not None
    return Proof(record, verdict.luck, EvidenceLevels())


def evaluation(verdict: Verdict) -> EvaluationResult:
    return an_evaluation(
        "xgboost_btcusd_1h",
        "v20260102_000000",
        sharpe_ratio=1.5,
        passed=verdict.passed,
        promotion_score=verdict.score,
    )


@pytest.fixture
def undecided() -> tuple[TrackRecord, Verdict]:
    record = record_of(1.5, 9000)
    verdict = judged(record)
    assert verdict.decision is Decision.INCONCLUSIVE
    return record, verdict


def test_the_stated_number_of_bars_would_pass(undecided: tuple[TrackRecord, Verdict]) -> None:
    record, verdict = undecided
    needed = int(proof_of(record, verdict).needed_bars)
    longer = [(record_of(1.5, needed + off), float(needed + off - record.bars)) for off in (-200, 200)]
    assert [judged(each, forward=forward).passed for each, forward in longer] == [False, True]


def test_the_stated_sharpe_ratio_would_pass(undecided: tuple[TrackRecord, Verdict]) -> None:
    record, verdict = undecided
    needed = proof_of(record, verdict).needed_sharpe
    assert [judged(record_of(needed + off, 9000)).passed for off in (-0.02, 0.02)] == [False, True]


def test_the_stated_number_of_trials_would_pass() -> None:
    record = record_of(2.5, 9000)
    max_trials = proof_of(record, judged(record)).max_trials
    assert [judged(record, max_trials + off).passed for off in (-0.1, 0.1)] == [True, False]


def test_a_verdict_of_a_wider_luck_is_explained_as_it_stood() -> None:
    """An earlier release took the dispersion of losing trials for luck: its verdicts stay as given."""
    record = record_of(2.5, 9000)
    verdict = judged(record)
    assert verdict.luck is not None
    wider = verdict.luck.model_copy(update={"deviation": 3.0 * verdict.luck.deviation})
    old, new = (Proof(record, luck, EvidenceLevels()) for luck in (wider, verdict.luck))
    assert new.trials.dispersion == 0.0
    assert old.trials.variance(record.effective_bars) == pytest.approx(
        9.0 * new.trials.variance(record.effective_bars)
    )
    assert old.needed_sharpe > new.needed_sharpe


def test_changes_name_each_failed_threshold_and_then_the_evidence() -> None:
    record = record_of(1.5, 9000)
    verdict = judged(record, metrics=replace(METRICS, win_rate=0.5, trades=20))
    changes = changes_to_pass(verdict, proof_of(record, verdict), HOUR)
    assert changes[:2] == ["win rate: ≥ 52.0% instead of 50.0%", "trades: ≥ 50 instead of 20"]
    assert "more bars at this rate" in changes[2]


def test_a_version_that_passed_lacks_nothing() -> None:
    record = record_of(5.0, 9000)
    verdict = judged(record)
    assert verdict.passed
    assert changes_to_pass(verdict, proof_of(record, verdict), HOUR) == []


def test_a_loss_is_not_mended_by_waiting() -> None:
    record = record_of(-1.0, 9000)
    changes = changes_to_pass(verdict := judged(record), proof_of(record, verdict), HOUR)
    assert changes[0] == "No number of bars at this rate would rule out luck"
    assert len(changes) == 2


def test_the_page_shows_checks_trial_luck_and_changes_to_pass(
    undecided: tuple[TrackRecord, Verdict],
) -> None:
    record, verdict = undecided
    html = page("xgboost <v1>", verdict, evaluation(verdict), proof_of(record, verdict), HOUR)
    assert "xgboost &lt;v1&gt;" in html
    assert html.count("<svg") == 2
    assert all(check.label in html for check in verdict.checks)
    assert verdict.policy_hash[:12] in html
    assert not re.search(r"(src|href)=.?https?:", html)


def test_the_page_states_the_textbook_lengths_of_a_record() -> None:
    record = record_of(3.0, 9000)
    verdict = judged(record)
    sentences = textbook_lengths(proof_of(record, verdict))
    # Bailey & Lopez de Prado 2012: 1 + (1 + SR ** 2 / 2) (1.645 / SR) ** 2 bars, about 0.30 years at 3 a year
    assert "0.30 years at this rate" in sentences[0]
    assert "Sharpe ratio of 3.00" in sentences[1]
    html = page("m v", verdict, evaluation(verdict), proof_of(record, verdict), HOUR)
    assert all(sentence in html for sentence in sentences)


def test_a_loss_has_no_textbook_length() -> None:
    record = record_of(-1.0, 9000)
    assert textbook_lengths(proof_of(record, judged(record))) == []


def test_a_page_without_evidence_has_no_pictures() -> None:
    case = Case(METRICS, Activity("long", 0.5, 0.9), record_of(1.5, 100), TrialCount(1, 1, 0), YEAR, None)
    verdict = gate.judge(case, GatePolicy(name="thresholds-only", evidence=None))
    html = page("m v", verdict, evaluation(verdict), None, HOUR)
    assert "<svg" not in html
    assert gate.THRESHOLDS_ALONE in html


def test_the_page_has_a_row_a_fold(undecided: tuple[TrackRecord, Verdict]) -> None:
    record, verdict = undecided
    day = datetime(2025, 1, 1, tzinfo=UTC)
    fold = FoldSummary(
        start=day,
        end=day,
        rounds=1.0,
        loss=0.694,
        loss_of_constant=0.693,
        sharpe_ratio=-0.2,
        exposure=0.0,
        trades=0,
        remarks=("flat on every bar",),
    )
    with_fold = verdict.model_copy(update={"folds": (fold,)})
    html = page("m v", with_fold, evaluation(verdict), proof_of(record, verdict), HOUR)
    assert all(f">{cell}</td>" in html for cell in fold.cells)
    assert "by fold" not in page("m v", verdict, evaluation(verdict), proof_of(record, verdict), HOUR)
