"""Known answers come from the papers named beside the tests."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence import track_record
from clm_core.evidence.track_record import TrackRecord

YEAR = 250
DSR_EXAMPLE = TrackRecord(2.5 / math.sqrt(YEAR), -3.0, 10.0, 1250, 1250.0)
"""Bailey & Lopez de Prado (2014), "A numerical example": annual Sharpe ratio 2.5, five years of days."""
MONTHS = TrackRecord(0.458, -2.448, 10.164, 24, 24.0)
"""Bailey & Lopez de Prado (2012), numerical example: two years of months."""
NORMAL_MONTHS = replace(MONTHS, skewness=0.0, kurtosis=3.0)
GOOD = TrackRecord(0.1, -0.5, 5.0, 1000, 900.0)

finite_returns = st.lists(st.integers(-5000, 5000), min_size=20, max_size=80).map(
    lambda bps: np.array(bps) / 1e4
)


def random_returns(shape: Shape, sharpe: float, bars: int, seed: int = 0) -> np.ndarray:
    return draw_returns(shape, sharpe, (bars, 1), np.random.default_rng(seed))[:, 0]


def test_the_trial_luck_of_a_hundred_trials_is_the_published_expected_maximum() -> None:
    assert track_record.expected_maximum_sharpe(1.0, 100) == pytest.approx(2.5306028932, abs=1e-10)


def deflated(record: TrackRecord, variance: float, trials: float) -> float:
    """Deflated Sharpe ratio (Bailey & Lopez de Prado 2014, equation 2)."""
    benchmark = track_record.expected_maximum_sharpe(variance, trials)
    return track_record.probabilistic_sharpe_ratio(record, benchmark)


def test_the_deflated_sharpe_ratio_is_that_of_the_published_example() -> None:
    expected_maximum = track_record.expected_maximum_sharpe(0.5 / YEAR, 100)
    assert expected_maximum == pytest.approx(0.1131720, abs=1e-7)
    assert deflated(DSR_EXAMPLE, 0.5 / YEAR, 100) == pytest.approx(0.9003968344, abs=1e-10)


@pytest.mark.parametrize(
    ("record", "expected"), [(NORMAL_MONTHS, 0.982), (MONTHS, 0.913)], ids=["normal", "skewed"]
)
def test_the_probabilistic_sharpe_ratio_is_that_of_the_published_example(
    record: TrackRecord, expected: float
) -> None:
    assert track_record.probabilistic_sharpe_ratio(record) == pytest.approx(expected, abs=5e-4)


def test_five_years_bear_forty_five_trials_at_a_sharpe_ratio_of_one() -> None:
    """Bailey, Borwein, Lopez de Prado & Zhu (2014), section on the minimum backtest length."""
    assert (
        track_record.minimum_backtest_length(45, 1.0) <= 5.0 < track_record.minimum_backtest_length(46, 1.0)
    )


def test_a_record_of_the_minimum_length_has_exactly_the_requested_confidence() -> None:
    length = track_record.minimum_track_record_length(MONTHS, 0.95, benchmark=0.1)
    long_enough = replace(MONTHS, effective_bars=length)
    assert track_record.probabilistic_sharpe_ratio(long_enough, 0.1) == pytest.approx(0.95, abs=1e-12)


def test_bars_worth_half_an_independent_one_must_be_twice_as_many() -> None:
    independent = track_record.minimum_track_record_length(replace(GOOD, effective_bars=1000.0), 0.95)
    assert (
        track_record.minimum_track_record_length(replace(GOOD, effective_bars=500.0), 0.95) == 2 * independent
    )


def test_no_length_proves_a_sharpe_ratio_that_is_not_above_the_benchmark() -> None:
    assert track_record.minimum_track_record_length(GOOD, 0.95, benchmark=0.1) == math.inf


def test_kurtosis_is_pearsons_and_moments_are_those_of_scipy() -> None:
    from scipy import stats

    returns = random_returns(Shape.SKEWED, 0.1, 500)
    record = track_record.track_record(returns)
    assert record.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1))
    assert record.skewness == pytest.approx(stats.skew(returns))
    assert record.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False))


@given(finite_returns, st.floats(1e-250, 1e250))
def test_a_record_does_not_depend_on_the_size_of_the_bets(returns: np.ndarray, factor: float) -> None:
    record = track_record.track_record(returns)
    scaled = track_record.track_record(returns * factor)
    assert scaled.sharpe == pytest.approx(record.sharpe, rel=1e-6, nan_ok=True)
    assert scaled.effective_bars == pytest.approx(record.effective_bars, rel=1e-6, nan_ok=True)


@given(finite_returns)
def test_effective_bars_are_never_more_than_there_are(returns: np.ndarray) -> None:
    record = track_record.track_record(returns)
    assert not record.measured or 1 < record.effective_bars <= len(returns)


@pytest.mark.parametrize(
    "returns",
    [
        np.array([]),
        np.array([0.01, -0.02] * 9),
        np.append(random_returns(Shape.NORMAL, 0.1, 50), math.nan),
        np.append(random_returns(Shape.NORMAL, 0.1, 50), math.inf),
        np.zeros(50),
        np.full(50, 0.1),
        0.1 + 1e-17 * np.arange(50.0),
    ],
    ids=["none", "thin", "nan", "infinite", "flat", "constant", "constant but for rounding"],
)
def test_returns_that_measure_nothing_never_reach_a_limit(returns: np.ndarray) -> None:
    record = track_record.track_record(returns)
    answers = [
        track_record.probabilistic_sharpe_ratio(record),
        deflated(record, 0.01, 10),
        record.bars - track_record.minimum_track_record_length(record, 0.95),
    ]
    assert [answer >= 0.0 for answer in answers] == [False] * 3


@pytest.mark.parametrize("field", ["sharpe", "skewness", "kurtosis", "effective_bars"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_record_with_a_part_missing_proves_nothing(field: str, value: float) -> None:
    record = replace(GOOD, **{field: value})
    assert math.isnan(track_record.probabilistic_sharpe_ratio(record))
    assert math.isnan(track_record.minimum_track_record_length(record, 0.95))


@pytest.mark.parametrize(
    "record",
    [
        replace(GOOD, effective_bars=1.0),
        replace(GOOD, effective_bars=-5.0),
        replace(GOOD, sharpe=3.0, skewness=0.0, kurtosis=0.0),
    ],
    ids=["one bar", "fewer than none", "moments no returns have"],
)
def test_an_impossible_record_proves_nothing(record: TrackRecord) -> None:
    assert math.isnan(track_record.probabilistic_sharpe_ratio(record))
    assert math.isnan(track_record.minimum_track_record_length(record, 0.95))


def test_values_that_never_vary_have_no_effective_number() -> None:
    assert math.isnan(track_record.effective_size(np.full(50, 0.1)))


def test_bounce_between_two_bars_earns_no_credit() -> None:
    returns = random_returns(Shape.NORMAL, 0.1, 500)
    bouncing = returns + 0.5 * np.tile([1.0, -1.0], 250)
    assert track_record.track_record(bouncing).effective_bars == 500


@pytest.mark.parametrize(
    ("variance", "trials"), [(math.nan, 10.0), (math.inf, 10.0), (0.01, math.nan), (0.01, math.inf)]
)
def test_unknown_trials_deflate_to_nothing(variance: float, trials: float) -> None:
    assert math.isnan(deflated(GOOD, variance, trials))


@pytest.mark.parametrize(("variance", "trials"), [(-0.1, 10.0), (0.1, 0.5), (0.1, 0.0)])
def test_counts_and_variances_that_make_no_sense_are_refused(variance: float, trials: float) -> None:
    with pytest.raises(ValueError, match="at least 1 trial"):
        track_record.expected_maximum_sharpe(variance, trials)


@pytest.mark.parametrize("confidence", [0.4, 1.0, 2.0, math.nan])
def test_a_confidence_that_makes_no_sense_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"confidence must be at least 0.5"):
        track_record.minimum_track_record_length(GOOD, confidence)


@pytest.mark.parametrize("sharpe", [0.0, -1.0, math.nan])
def test_a_backtest_is_never_long_enough_for_luck_below_a_sharpe_ratio_of_zero(sharpe: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        track_record.minimum_backtest_length(10, sharpe)


@given(st.floats(1.0, 1e6), st.floats(1.0, 1e6))
def test_more_trials_never_mean_less_trial_luck(few: float, many: float) -> None:
    few, many = sorted((few, many))
    assert track_record.expected_maximum_sharpe(1.0, few) <= track_record.expected_maximum_sharpe(1.0, many)


def test_a_single_trial_needs_no_deflation() -> None:
    assert deflated(GOOD, 0.01, 1) == track_record.probabilistic_sharpe_ratio(GOOD)


def test_skewness_can_only_count_against_a_record() -> None:
    plain = track_record.probabilistic_sharpe_ratio(replace(GOOD, skewness=0.0))
    assert track_record.probabilistic_sharpe_ratio(replace(GOOD, skewness=2.0)) == plain
    assert track_record.probabilistic_sharpe_ratio(replace(GOOD, skewness=-2.0)) < plain


def test_carrying_on_a_fifth_of_each_return_costs_a_third_of_the_bars() -> None:
    """The effective share of a first-order autoregression with slope a is (1 - a) / (1 + a)."""
    record = track_record.track_record(random_returns(Shape.AUTOREGRESSIVE, 0.05, 100_000))
    assert record.effective_bars / record.bars == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("n", [2, 70, 1000, 4097])
def test_autocovariances_are_sums_of_products(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    values -= values.mean()
    lags = n - 1
    expected = [values[lag:] @ values[: n - lag] / n for lag in range(lags + 1)]
    np.testing.assert_allclose(track_record.autocovariances(values, lags), expected, atol=1e-14)


def test_long_run_variance_of_a_moving_average_is_the_square_of_its_summed_weights() -> None:
    noise = np.random.default_rng(0).standard_normal(100_002)
    moving = noise[2:] + 0.5 * noise[1:-1] + 0.5 * noise[:-2]
    assert track_record.long_run_variance(moving) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("shape", Shape)
def test_without_an_edge_a_five_percent_test_passes_about_five_percent(shape: Shape) -> None:
    """Tables are in docs/decisions/0001-evidence.md; here 1,000 streams of 250 bars, three errors wide."""
    streams = draw_returns(shape, 0.0, (250, 1000), np.random.default_rng(5))
    passed = [
        track_record.probabilistic_sharpe_ratio(track_record.track_record(stream)) >= 0.95
        for stream in streams.T
    ]
    assert np.mean(passed) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(passed))


@pytest.mark.parametrize("shape", Shape)
def test_an_edge_is_seen(shape: Shape) -> None:
    """Sharpe ratio 0.2 a bar over 250: two effective standard errors and more above the quantile."""
    streams = draw_returns(shape, 0.2, (250, 300), np.random.default_rng(6))
    passed = [
        track_record.probabilistic_sharpe_ratio(track_record.track_record(stream)) >= 0.95
        for stream in streams.T
    ]
    assert np.mean(passed) >= 0.75
