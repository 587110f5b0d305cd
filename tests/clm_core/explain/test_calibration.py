"""Calibration of forecasts with known answers."""

import math

import numpy as np
import pytest

from clm_core.explain.calibration import area_under_roc, calibration_of
from clm_core.explain.calibration_section import section_of
from clm_core.explain.forecasts import Outcomes
from clm_core.market.bars import Floats

RNG = np.random.default_rng(11)


def apart(probability: Floats, rise: Floats) -> Outcomes:
    """Forecasts without overlap."""
    rows = np.arange(len(rise))
    return Outcomes(probability, rise, np.sign(probability - 0.5), rows, rows + 1)


def logistic_stream(n: int, sharpness: float = 1.0) -> Outcomes:
    """Outcomes drawn with known probabilities, forecast with their log-odds times a factor."""
    score = RNG.normal(0, 0.8, n)
    rise = (RNG.random(n) < 1 / (1 + np.exp(-score))).astype(float)
    return apart(1 / (1 + np.exp(-sharpness * score)), rise)


def overlapping(n: int, horizon: int) -> Outcomes:
    """Forecasts without any knowledge of moves over a horizon."""
    steps = RNG.normal(size=n + horizon)
    total = np.convolve(steps, np.ones(horizon), mode="valid")[1 : n + 1]
    slow = np.convolve(RNG.normal(size=n + horizon), np.ones(horizon), mode="valid")[:n]
    rows = np.arange(n)
    probability = 0.5 + 0.02 * np.tanh(slow / math.sqrt(horizon))
    return Outcomes(probability, (total > 0).astype(float), np.zeros(n), rows, rows + horizon)


def test_forecasts_of_a_known_logistic_stream_are_calibrated_and_worth_something() -> None:
    calibration = calibration_of(logistic_stream(20_000))
    assert calibration.error < 2 * calibration.error_by_chance
    assert calibration.brier.skill.low > 0
    assert sum(each.rises.low <= each.mean <= each.rises.high for each in calibration.bins) >= 8
    assert len(calibration.bins) == 10
    # E[p (1 - p)] of the stream by numerical integration: 0.2190
    assert calibration.brier.score == pytest.approx(0.2190, abs=0.003)
    assert section_of(calibration).sentences[0].startswith("Its confidence is worth something")


def test_exaggerated_forecasts_have_a_calibration_error_beyond_chance() -> None:
    calibration = calibration_of(logistic_stream(20_000, sharpness=3.0))
    assert calibration.error > 5 * calibration.error_by_chance
    assert calibration.brier.reliability > 0.01
    assert calibration.auc.low > 0.5


def test_perfect_forecasts_leave_no_loss() -> None:
    rise = np.tile([1.0, 0.0, 0.0], 200)
    calibration = calibration_of(apart(rise.copy(), rise))
    assert (calibration.brier.score, calibration.error, calibration.auc.value) == (0.0, 0.0, 1.0)
    assert calibration.brier.skill.value == pytest.approx(1.0)
    assert calibration.brier.resolution == pytest.approx(calibration.brier.uncertainty)
    assert calibration.confusion == ((200, 0), (0, 0), (0, 400))
    assert [each.right.value for each in calibration.calls] == [1.0, 1.0, 1.0, 1.0]


def test_a_constant_forecast_at_the_base_rate_has_neither_skill_nor_ranking() -> None:
    rise = np.tile([1.0, 0.0, 0.0, 0.0], 100)
    calibration = calibration_of(apart(np.full(400, 0.25), rise))
    assert calibration.brier.skill.value == pytest.approx(0.0, abs=1e-12)
    assert (calibration.auc.value, calibration.brier.resolution, len(calibration.bins)) == (0.5, 0.0, 1)
    assert calibration.roc == ((0.0, 0.0), (1.0, 1.0))
    assert (
        section_of(calibration).sentences[0].startswith("Nothing shows that its confidence is worth anything")
    )


def test_inverted_forecasts_mislead() -> None:
    right = logistic_stream(5_000)
    calibration = calibration_of(apart(1 - right.probability, right.rise))
    assert calibration.brier.skill.high < 0
    assert calibration.auc.value == pytest.approx(1 - area_under_roc(right).value)
    assert section_of(calibration).sentences[0].startswith("Its confidence misleads")


@pytest.mark.parametrize("n", [60, 1_000, 7_777])
def test_the_parts_of_the_brier_score_add_up(n: int) -> None:
    brier = calibration_of(overlapping(n, 3)).brier
    parts = brier.reliability - brier.resolution + brier.uncertainty + brier.within_bins
    assert parts == pytest.approx(brier.score, abs=1e-12)


def test_overlapping_outcomes_of_ignorant_forecasts_rarely_show_skill() -> None:
    calibrations = [calibration_of(overlapping(2_400, 24)) for _ in range(60)]
    assert calibrations[0].independent == pytest.approx(100, rel=0.02)
    assert sum(each.brier.skill.low > 0 for each in calibrations) <= 4
    assert sum(each.auc.low > 0.5 or each.auc.high < 0.5 for each in calibrations) <= 7
    covered = [each.rises.low <= 0.5 <= each.rises.high for one in calibrations for each in one.bins]
    assert np.mean(covered) > 0.9


def test_outcomes_all_alike_are_not_measured() -> None:
    calibration = calibration_of(apart(RNG.random(50), np.ones(50)))
    assert math.isnan(calibration.auc.value)
    assert calibration.to_json()["auc"] == {"value": None, "low": None, "high": None}
    assert (
        section_of(calibration).sentences[0] == "Its confidence cannot be measured: all outcomes were alike."
    )


def test_a_threshold_leaves_forecasts_close_to_even_odds_uncalled() -> None:
    probability = np.array([0.7, 0.51, 0.49, 0.3])
    calibration = calibration_of(apart(probability, np.array([1.0, 1.0, 0.0, 1.0])), threshold=0.1)
    assert calibration.confusion == ((1, 0), (1, 1), (1, 0))


def test_the_standard_error_of_the_area_is_that_published() -> None:
    """Hanley & McNeil (1982), table II: area 0.893, standard error 0.032, 58 normal and 51 abnormal."""
    ratings = {"normal": (33, 6, 6, 11, 2), "abnormal": (3, 2, 2, 11, 33)}
    levels = np.arange(1, 6) / 10
    probability = np.concatenate([np.repeat(levels, ratings[each]) for each in ("normal", "abnormal")])
    area = area_under_roc(apart(probability, np.repeat([0.0, 1.0], (58, 51))))
    assert area.value == pytest.approx(0.893, abs=5e-4)
    assert (area.value - area.low) / 1.96 == pytest.approx(0.032, abs=1e-3)
