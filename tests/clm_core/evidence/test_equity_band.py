"""Band of the equity to expect from a record."""

import numpy as np
import pytest

from clm_core.evidence.equity_band import MIN_DAYS, daily_growth, equity_band

LEVEL = 0.9


def test_the_band_without_drift_is_the_quantile_of_a_random_walk() -> None:
    rng = np.random.default_rng(1)
    logs = rng.normal(0.0, 0.01, 100_000)
    logs = (logs - logs.mean()) / logs.std(ddof=1) * 0.01
    growth = daily_growth(np.expm1(logs))
    assert growth is not None
    band = equity_band(growth, np.array([0.0, 25.0]), LEVEL)
    assert band.low[0] == band.middle[0] == band.high[0] == 1.0
    # 5 % quantile of a normal distribution with deviation 0.01 * sqrt(25)
    assert np.log(band.low[1]) == pytest.approx(-1.6449 * 0.05, rel=1e-3)
    assert band.high[1] * band.low[1] == pytest.approx(1.0)


@pytest.mark.parametrize("record", [60, 400])
def test_nine_of_ten_continuations_of_a_record_end_inside(record: int) -> None:
    rng = np.random.default_rng(record)
    inside = 0
    runs = 2000
    ahead = 120
    for _ in range(runs):
        daily = rng.normal(0.001, 0.02, record + ahead)
        growth = daily_growth(daily[:record])
        assert growth is not None
        band = equity_band(growth, np.array([float(ahead)]), LEVEL)
        inside += int(band.low[0] <= np.prod(1.0 + daily[record:]) <= band.high[0])
    # three Monte-Carlo errors of 0.7 %
    assert inside / runs == pytest.approx(LEVEL, abs=0.021)


def test_days_without_bars_count_as_days_without_return() -> None:
    weekdays = np.tile([0.01, -0.01, 0.01, -0.01, 0.02, np.nan, np.nan], 20)
    assert daily_growth(weekdays) == daily_growth(np.nan_to_num(weekdays))


@pytest.mark.parametrize(
    "daily", [np.full(MIN_DAYS - 1, 0.01), np.zeros(MIN_DAYS), np.full(MIN_DAYS, np.nan)]
)
def test_few_days_and_returns_that_never_vary_give_no_band(daily: np.ndarray) -> None:
    assert daily_growth(daily) is None
