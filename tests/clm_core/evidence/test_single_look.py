"""Usual tests of a lead against hand-worked cases and scipy, and what repeated looks do to them."""

import numpy as np
import pytest
from scipy import stats

from clm_core.domain.shadow_decisions import SINGLE_LOOK, TTest
from clm_core.evidence.bootstrap import difference_interval
from clm_core.evidence.single_look import paired_t_test, single_look_tests, welch_t_test
from clm_core.market.bars import Floats

BPS = 1e-4
T_OF_TWO = 4.302652729696142
"""Quantile 0.975 of Student's t with two degrees of freedom."""


def days(seed: int = 1, n: int = 80) -> tuple[Floats, Floats]:
    common, noise = np.random.default_rng(seed).normal(0.0, 0.006, (2, n))
    return common + 0.3 * noise + 0.001, 0.8 * common


def test_the_paired_t_test_of_the_differences_1_2_3_by_hand() -> None:
    theirs = np.array([4.0, -2.0, 7.0])
    test = paired_t_test((theirs + np.arange(1.0, 4.0)) * BPS, theirs * BPS)
    assert test is not None
    # mean 2, deviation 1, standard error 1 / sqrt(3); with two degrees of freedom p = 1 - t / sqrt(t² + 2)
    statistic = 2.0 * np.sqrt(3.0)
    half = T_OF_TWO / np.sqrt(3.0)
    assert (test.statistic, test.degrees_of_freedom) == pytest.approx((statistic, 2.0))
    assert test.p_value == pytest.approx(1.0 - statistic / np.sqrt(statistic**2 + 2.0))
    assert (test.low_bps, test.high_bps) == pytest.approx((2.0 - half, 2.0 + half))


def test_welch_s_t_test_of_unequal_variances_by_hand() -> None:
    # means 2 and 1, variances 1 and 3: squared standard errors 1/3 and 1
    test = welch_t_test(np.array([1.0, 2.0, 3.0]) * BPS, np.array([0.0, 0.0, 3.0]) * BPS)
    assert test is not None
    assert test.statistic == pytest.approx(1.0 / np.sqrt(4.0 / 3.0))
    # Satterthwaite: (4/3)² / ((1/3)² / 2 + 1² / 2)
    assert test.degrees_of_freedom == pytest.approx(3.2)
    half = stats.t.ppf(0.975, 3.2) * np.sqrt(4.0 / 3.0)
    assert (test.low_bps, test.high_bps) == pytest.approx((1.0 - half, 1.0 + half))


def test_all_tests_describe_the_same_days() -> None:
    ours, theirs = days()
    tests = single_look_tests(ours, theirs, 365.25, 50)
    assert tests is not None
    difference = ours - theirs
    assert (tests.days, tests.lead_bps) == (80, pytest.approx(difference.mean() * 1e4))
    assert tests.paired.p_value == pytest.approx(stats.ttest_1samp(difference, 0.0).pvalue)
    assert tests.welch is not None
    # with equal numbers Welch's statistic is Student's of two samples
    assert tests.welch.statistic == pytest.approx(stats.ttest_ind(ours, theirs).statistic)
    # the common movement hides the lead from the test that takes the samples as independent
    assert tests.paired.p_value < 0.05 < tests.welch.p_value
    assert tests.sharpe_difference is not None
    interval = difference_interval(ours, theirs, 0.95, 2000, np.random.default_rng(0))
    assert tests.sharpe_difference.low == pytest.approx(interval.low * np.sqrt(365.25))
    assert tests.sentence.startswith(f"{SINGLE_LOOK}: lead +")
    assert "Welch's t-test p = " in tests.sentence
    assert tests.sentence.endswith(", on 80 days")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(np.zeros(0), np.zeros(0), id="no-day"),
        pytest.param(np.ones(49), np.zeros(49), id="few-days"),
        pytest.param(np.zeros(60), np.zeros(60), id="flat"),
        pytest.param(*(2 * [days()[0]]), id="equal-returns"),
        pytest.param(days()[0], np.full(80, np.nan), id="not-measured"),
    ],
)
def test_days_without_information_have_no_test(ours: Floats, theirs: Floats) -> None:
    assert single_look_tests(ours, theirs, 365.25, 50) is None


def test_a_flat_champion_leaves_the_bootstrap_alone_without_a_result() -> None:
    tests = single_look_tests(days()[0], np.zeros(80), 365.25, 50)
    assert tests is not None
    assert isinstance(tests.welch, TTest)
    assert tests.sharpe_difference is None


def test_daily_looks_at_the_paired_test_are_wrong_in_a_fifth_of_the_records() -> None:
    differences = np.random.default_rng(0).normal(size=(4000, 180))
    n = np.arange(2, 181)
    means = differences.cumsum(1)[:, 1:] / n
    variance = ((differences**2).cumsum(1)[:, 1:] - n * means**2) / (n - 1)
    statistic = means / np.sqrt(variance / n)
    at_the_end = paired_t_test(differences[0], np.zeros(180))
    assert at_the_end is not None
    assert statistic[0, -1] == pytest.approx(at_the_end.statistic)
    called = np.abs(statistic) > stats.t.ppf(0.975, n - 1)
    assert called[:, -1].mean() == pytest.approx(0.05, abs=0.01)
    # 22 % with a standard error of 0.7 points
    assert called[:, 48:].any(1).mean() == pytest.approx(0.22, abs=0.02)
