import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.market.rolling import LN_2, change_over, gap_and_deviation


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 300),
    window=st.integers(1, 60),
    offset=st.sampled_from([0.0, 1.0, 1e6, -1e9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_are_those_of_each_window_on_its_own(n: int, window: int, offset: float, seed: int) -> None:
    values = offset + np.random.default_rng(seed).normal(size=n)
    gap, deviation = gap_and_deviation(values, window)

    assert np.isnan(gap[: window - 1]).all()
    assert np.isnan(deviation[: window - 1]).all()
    for row in range(window - 1, n):
        # relative to a value of the window, NumPy's own sums are exact enough to compare with
        shifted = values[row - window + 1 : row + 1] - values[row]
        assert gap[row] == pytest.approx(-shifted.mean(), rel=1e-9, abs=1e-12)
        assert deviation[row] == pytest.approx(shifted.std(), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    first=st.integers(0, 200),
    window=st.integers(1, 60),
    closed=st.floats(0, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_of_numbered_rows_are_the_same_for_every_start(
    first: int, window: int, closed: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.flatnonzero(rng.random(4_000) >= closed)[:400] + 100
    values = rng.normal(size=len(numbers))
    whole = gap_and_deviation(values, window, numbers)
    later = gap_and_deviation(values[first:], window, numbers[first:])

    for moment, moment_later, plain in zip(whole, later, gap_and_deviation(values, window), strict=True):
        assert np.array_equal(moment_later[window - 1 :], moment[first + window - 1 :])
        np.testing.assert_allclose(moment, plain, rtol=1e-9, atol=1e-12)


def test_octaves_count_as_multiples_of_log_two() -> None:
    prices = np.exp(np.random.default_rng(2).normal(size=500))
    fraction, octave = np.frexp(prices)
    apart = gap_and_deviation(np.log(fraction), 24, None, octave.astype(np.float64))

    np.testing.assert_allclose(apart, gap_and_deviation(np.log(prices), 24), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("constant", [0.1, 1e-9, 12_345.678, 1e15])
def test_a_constant_window_after_wild_ones_has_exactly_no_gap_and_no_deviation(constant: float) -> None:
    values = np.concatenate([np.random.default_rng(1).normal(size=5_000) * 1e6, np.full(50, constant)])
    gap, deviation = gap_and_deviation(values, 24)

    assert np.array_equal(gap[-26:], np.zeros(26))
    assert np.array_equal(deviation[-26:], np.zeros(26))


def test_a_change_over_rows_is_the_difference_with_the_octaves_apart() -> None:
    values = np.array([0.5, 0.75, 0.5, 0.625])
    octaves = np.array([1.0, 1.0, 2.0, 2.0])
    assert change_over(values, 2).tolist() == [0.0, 0.0, 0.0, -0.125]
    assert change_over(values, 2, octaves).tolist() == [0.0, 0.0, LN_2, -0.125 + LN_2]
    assert change_over(values, 9, octaves).tolist() == [0.0] * 4
