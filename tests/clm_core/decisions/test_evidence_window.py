"""The Sharpe ratio that a window of bars can prove, told before a training."""

import pytest

from clm_core.decisions import evidence_window as windows
from clm_core.decisions.evidence_window import evidence_window
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.domain.evidence_window import EvidenceWindow, ShortTraining
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.trials import TrialCount
from clm_core.market.timeframes import Timeframe

POLICY_MINIMUM = TrialCount(0, EvidenceLevels().fewest_trials, 0.0)


def window(days: int, requested: int = 1825, trials: TrialCount = POLICY_MINIMUM) -> EvidenceWindow:
    return evidence_window(days, requested, 1825, 24.0, 0.6, trials, EvidenceLevels())


def test_a_year_of_hours_names_the_ratio_to_show_and_that_of_five_years():
    assert window(365, 365).sentence == (
        "60 % of 365 days out of sample: a version must show a Sharpe ratio of 4.2 to pass; "
        "with 1,825 days 1.9"
    )


def test_a_series_shorter_than_requested_is_said():
    assert window(400).sentence.startswith("The series has 400 of the 1,825 days requested. 60 % of 400 days")


def test_a_window_of_full_length_names_no_longer_one():
    full = window(1825)
    assert full.longer_days is None
    assert full.sentence.endswith("a Sharpe ratio of 1.9 to pass")


def test_more_trials_raise_the_ratio():
    many = window(1825, trials=TrialCount(500, 300.0, 0.0))
    assert many.required_sharpe > window(1825).required_sharpe + 0.5


def test_a_recipe_with_a_record_needs_the_less_the_longer_it_was_followed():
    def continued(days: int, forward: int) -> EvidenceWindow:
        record = (days, forward)
        return evidence_window(365, 365, 1825, 24.0, 0.6, POLICY_MINIMUM, EvidenceLevels(), record)

    followed = continued(419, 200)
    assert followed.sentence.startswith("The recipe has a record of 419 days out of sample: a version must")
    assert followed.longer_days is None
    # as many days without forward bars are deflated by all trials
    assert followed.required_sharpe < continued(419, 0).required_sharpe < window(365, 365).required_sharpe


def test_a_window_too_short_for_any_ratio_is_said():
    tiny = evidence_window(2, 2, 2, 1.0, 0.6, POLICY_MINIMUM, EvidenceLevels())
    assert tiny.required_sharpe is None
    assert "no Sharpe ratio is enough" in tiny.sentence


@pytest.mark.parametrize(
    ("bars", "days", "sentence"),
    [
        (
            122,
            1222,
            "A fit of xgboost needs 455 bars, and the shortest fold trains on 122: pass --days 1222 "
            "(dataset_span_days), and import older bars where the series is shorter",
        ),
        (
            0,
            1222,
            "A fit of xgboost needs 455 bars, and no fold has a whole training span before it: pass "
            "--days 1222 (dataset_span_days), and import older bars where the series is shorter",
        ),
        (
            122,
            None,
            "A fit of xgboost needs 455 bars, and the shortest fold trains on 122: set "
            "walk_forward.train_bars to 455 or more",
        ),
    ],
)
def test_a_window_too_short_for_a_fit_says_what_to_do_in_place_of_a_ratio(
    bars: int, days: int | None, sentence: str
):
    short = ShortTraining(kind="xgboost", bars=bars, needed_bars=455, needed_days=days)
    stated = evidence_window(365, 365, 1825, 1.0, 0.6, POLICY_MINIMUM, EvidenceLevels(), too_short=short)
    assert stated.sentence == sentence


def test_the_stated_ratio_is_never_below_the_required_one():
    for days in (90, 365, 700, 1825, 3000):
        stated = float(window(days, days).sentence.split("ratio of ")[1].split(" ")[0])
        assert 0 <= stated - window(days, days).required_sharpe < 0.1


@pytest.mark.parametrize("days", [365, 1825])
def test_the_launch_form_states_the_ratios_of_the_default_policy(days):
    text = RetrainRequest.model_fields["dataset_span_days"].description
    # folds begin at dates, so the share depends on the day
    stated = evidence_window(days, days, days, 24.0, 0.58, POLICY_MINIMUM, EvidenceLevels())
    assert f"{stated.sentence.split('ratio of ')[1].split(' ')[0]}" in text


@pytest.mark.parametrize(("days", "low", "high"), [(365, 0.51, 0.60), (1825, 0.55, 0.60)])
def test_the_share_out_of_sample_of_a_window_depends_on_the_day_it_ends(days, low, high):
    plan = WalkForwardPlan().for_request(days, days)
    hours = (windows.open_times(days, Timeframe.H1, end) for end in windows.ENDS)
    shares = [windows.tested_share(time, plan) for time in hours]
    assert low <= min(shares) < max(shares) <= high
    assert windows.mean_tested_days(days, Timeframe.H1) == pytest.approx(days * sum(shares) / len(shares))
