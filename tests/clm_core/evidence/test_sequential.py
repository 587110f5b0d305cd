"""The sequential test: known values, daily returns, and the declared rate of false alarms."""

import math

import numpy as np
import pytest

from clm_core.decisions import health
from clm_core.evidence.sequential import (
    FIRST_LOOK,
    daily_returns,
    days_per_year,
    log_odds_of_loss,
)
from clm_core.market.bars import Floats

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
YEAR = 365.25


def statistic(daily: Floats) -> Floats:
    return log_odds_of_loss(daily, health.HEALTHY_SHARPE, health.LOSING_SHARPE, YEAR)


def test_the_statistic_sums_log_likelihood_ratios_of_unit_returns() -> None:
    daily = np.full(30, -0.01)
    # u is -1 on every day, kappa is 0 for ratios of 2 and -2
    gain = 4 / math.sqrt(YEAR)
    expected = np.where(np.arange(1, 31) < FIRST_LOOK, 0.0, gain * np.arange(1, 31))
    assert statistic(daily) == pytest.approx(expected)


def test_gains_lower_the_statistic_to_zero_and_never_below() -> None:
    daily = np.r_[np.full(40, -0.01), np.full(400, 0.01), np.full(1, -0.01)]
    values = statistic(daily)
    assert values[39] > 5
    assert values[439] == 0.0
    assert values[440] == pytest.approx(4 / math.sqrt(YEAR), rel=0.01)


def test_the_size_of_positions_changes_nothing() -> None:
    daily = np.random.default_rng(1).standard_t(3, 500) * 0.01
    assert statistic(daily * 0.4) == pytest.approx(statistic(daily))


def test_later_days_change_no_earlier_statistic() -> None:
    daily = np.random.default_rng(2).standard_normal(300) * 0.01
    changed = np.r_[daily[:200], np.full(100, -0.5)]
    assert np.array_equal(statistic(daily)[:200], statistic(changed)[:200])


def test_days_without_returns_are_no_evidence() -> None:
    assert not statistic(np.zeros(400)).any()
    losses = np.full(40, -0.01)
    waited = statistic(np.r_[losses, np.zeros(10)])
    assert waited[49] == pytest.approx(waited[39])


@pytest.mark.parametrize(
    ("hours", "days"), [(48, 2), (47, 1), (49, 2)], ids=["whole", "an hour short", "more"]
)
def test_only_complete_days_count(hours: int, days: int) -> None:
    time = np.arange(hours, dtype=np.int64) * HOUR
    returns = np.full(hours, 0.001)
    assert daily_returns(time, returns, HOUR) == pytest.approx(np.full(days, 1.001**24 - 1))


def test_no_bars_are_no_days() -> None:
    assert len(daily_returns(np.zeros(0, dtype=np.int64), np.zeros(0), HOUR)) == 0


def test_days_of_a_year_are_those_with_bars() -> None:
    every = np.arange(700, dtype=np.int64) * DAY
    assert days_per_year(every) == pytest.approx(365.25)
    weekdays = every[np.arange(700) % 7 < 5]
    assert days_per_year(weekdays) == pytest.approx(365.25 * 5 / 7, rel=0.01)
    assert math.isnan(days_per_year(every[:1]))


@pytest.mark.parametrize(
    ("sharpe", "at_least", "at_most"),
    [(2.0, 0.0, 1.3), (0.0, 9.0, 14.0), (-5.0, 80.0, 105.0)],
    ids=["healthy", "dead", "losing"],
)
@pytest.mark.parametrize("tails", ["normal", "t(3)"])
def test_the_alarm_has_the_declared_rate(sharpe: float, at_least: float, at_most: float, tails: str) -> None:
    """Alarms in 100 quarters under watch; `benchmarks/watch_alarm.py` has the figures with their errors."""
    rng = np.random.default_rng(7)
    days = 3650 if sharpe > 0 else 2000
    shape = (300, days)
    noise = rng.standard_normal(shape) if tails == "normal" else rng.standard_t(3, shape) / math.sqrt(3)
    reached = statistic(noise + sharpe / math.sqrt(YEAR)) >= health.ALARM
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, days)
    rate = 100 * reached.any(axis=1).sum() / (first.sum() / 91)
    assert at_least <= rate <= at_most
