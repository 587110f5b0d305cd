"""False-discovery rate over features and days."""

from datetime import date, timedelta

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from clm_core.decisions.drift_discoveries import FALSE_DISCOVERIES, discoveries
from clm_core.domain.drift_history import DriftMeasurement

TODAY = date(2026, 3, 4)
NAMES = [f"feature_{number}" for number in range(30)]


def measured(day: date, p_values: dict[str, float]) -> list[DriftMeasurement]:
    return [DriftMeasurement(day=day, name=name, score=1.0, p_value=p) for name, p in p_values.items()]


def test_nothing_is_reported_of_a_day_without_measurements() -> None:
    assert discoveries([], TODAY) == ()
    assert discoveries(measured(TODAY - timedelta(days=1), {"atr_14": 0.0}), TODAY) == ()


def test_the_smallest_p_values_of_the_day_are_reported_by_the_rule_of_benjamini_and_yekutieli() -> None:
    rng = np.random.default_rng(1)
    values = dict(zip(NAMES, rng.uniform(size=len(NAMES)), strict=True)) | {"b": 1e-5, "a": 1e-6, "c": 0.04}
    adjusted = false_discovery_control(list(values.values()), method="by")
    expected = [name for name, p in zip(values, adjusted, strict=True) if p <= FALSE_DISCOVERIES]
    assert discoveries(measured(TODAY, values), TODAY) == ("a", "b")
    assert sorted(expected) == ["a", "b"]


@pytest.mark.parametrize(("days", "expected"), [(29, ()), (30, ("a",))], ids=["in the family", "too old"])
def test_measurements_of_the_last_thirty_days_count(days: int, expected: tuple[str, ...]) -> None:
    quiet = measured(TODAY - timedelta(days=days), dict.fromkeys(NAMES, 0.5))
    # adjusted: 0.01 alone, 0.01 * 31 * 4.03 among the thirty-one of the family
    assert discoveries([*quiet, *measured(TODAY, {"a": 0.01})], TODAY) == expected


def test_without_drift_features_of_many_days_give_no_discovery_in_nineteen_of_twenty_months() -> None:
    rng = np.random.default_rng(2)
    months = 200
    wrong = 0
    for _ in range(months):
        # neighbouring days share most of their bars
        days = [TODAY - timedelta(days=days) for days in range(30)]
        values = rng.uniform(size=(10, len(NAMES))).repeat(3, axis=0)
        kept = [
            each
            for day, row in zip(days, values, strict=True)
            for each in measured(day, dict(zip(NAMES, row.tolist(), strict=True)))
        ]
        wrong += bool(discoveries(kept, TODAY))
    assert wrong <= 0.05 * months


def test_large_p_values_are_needed_by_their_number_alone() -> None:
    rng = np.random.default_rng(3)
    for power in (1, 3, 9):
        kept = [
            each
            for days in range(30)
            for each in measured(
                TODAY - timedelta(days=days),
                dict(zip(NAMES, (rng.uniform(size=len(NAMES)) ** power).tolist(), strict=True)),
            )
        ]
        small = [each for each in kept if each.p_value <= FALSE_DISCOVERIES]
        assert discoveries(small, TODAY, len(kept)) == discoveries(kept, TODAY)
    assert discoveries(small, TODAY, len(kept)) != ()
