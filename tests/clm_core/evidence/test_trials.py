"""Effective number of trials: copies do not count, losers count as one, results play no part."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.evidence import trials
from clm_core.evidence.track_record import expected_maximum_sharpe, probabilistic_sharpe_ratio, track_record
from clm_core.market.bars import Floats


def clusters(count: int, size: int, correlation: float) -> np.ndarray:
    matrix = np.kron(np.eye(count), np.full((size, size), correlation))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def chain(count: int, correlation: float) -> np.ndarray:
    """Correlations of weekly retrains, highest between neighbours."""
    steps = np.arange(count)
    return correlation ** np.abs(steps[:, None] - steps[None, :])


def luck_of_the_best(correlations: np.ndarray) -> float:
    """Expected maximum of normal variables with the given correlations, by simulation."""
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng(0).standard_normal((len(correlations), 4000))
    return float((root @ normal).max(axis=0).mean())


PATTERNS = {
    "independent": clusters(52, 1, 0.0),
    "alike": clusters(1, 52, 0.5),
    "near copies": clusters(1, 52, 0.9),
    "ten clusters": clusters(10, 10, 0.9),
    "many small clusters": clusters(25, 4, 0.7),
    "slow chain": chain(52, 0.9),
    "very slow chain": chain(52, 0.99),
}


def daily(returns: Floats, first_day: int = 0) -> trials.TrialRecord:
    times = (first_day + np.arange(len(returns))) * trials.DAY
    return trials.trial_record(times, returns, track_record(returns))


def noise(seed: int, bars: int = 400) -> Floats:
    return np.random.default_rng(seed).standard_normal(bars)


def test_a_day_s_returns_are_kept_as_their_sum_and_days_without_bars_as_unknown() -> None:
    hours = np.array([0, 1, 25, 80]) * trials.DAY // 24
    returns = np.array([0.01, 0.02, -0.03, 0.04])
    kept = trials.trial_record(hours + 5 * trials.DAY, returns, track_record(returns))
    assert kept.first_day == 5
    np.testing.assert_allclose(kept.daily, [0.03, -0.03, math.nan, 0.04])


@pytest.mark.parametrize("correlations", PATTERNS.values(), ids=PATTERNS)
def test_the_count_has_the_expected_maximum_of_the_trials(correlations: np.ndarray) -> None:
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    returns = np.random.default_rng(5).standard_normal((4000, len(correlations))) @ root.T
    counted = trials.count_trials([daily(column) for column in returns.T]).effective
    assert expected_maximum_sharpe(1.0, counted) == pytest.approx(luck_of_the_best(correlations), abs=0.06)


def test_the_count_of_independent_trials_is_their_number() -> None:
    """Expected maxima of N independent normal variables: Harter (1961), "Expected values of normal order
    statistics", Biometrika 48."""
    published = {2: 0.5642, 5: 1.1630, 10: 1.5388, 100: 2.5076}
    tabulated = np.interp(list(published), trials.COUNTS, trials.expected_maxima())
    assert tabulated == pytest.approx(list(published.values()), abs=5e-4)


def test_the_same_trial_again_counts_once() -> None:
    again = [daily(noise(1))] * 5
    assert trials.count_trials(again).effective == pytest.approx(1.0)
    assert trials.count_trials(again).trials == 5


def test_unrelated_trials_count_each_and_never_less_than_is_presumed() -> None:
    unrelated = [daily(noise(seed, 2000)) for seed in range(12)]
    assert trials.count_trials(unrelated).effective == pytest.approx(12.0, rel=0.05)
    assert trials.count_trials(unrelated, min_trials=50.0).effective == 50.0


def test_copies_do_not_hide_unrelated_trials() -> None:
    unrelated = [daily(noise(seed, 2000)) for seed in range(10)]
    with_copies = trials.count_trials([*unrelated, *[unrelated[0]] * 50])
    assert with_copies.effective >= trials.count_trials(unrelated).effective
    assert with_copies.expected_maximum(101.0) == pytest.approx(expected_maximum_sharpe(0.01, 10.0), rel=0.05)


def test_trials_of_days_that_do_not_meet_are_unrelated() -> None:
    disjoint = [daily(noise(1), first_day) for first_day in (0, 400)]
    assert trials.count_trials(disjoint).effective == pytest.approx(2.0, abs=0.05)


def test_more_trials_than_days_are_not_taken_for_copies_of_each_other() -> None:
    many = trials.count_trials([daily(noise(seed, 40)) for seed in range(200)])
    assert many.expected_maximum(101.0) == pytest.approx(expected_maximum_sharpe(0.01, 200.0), rel=0.05)


def test_a_trial_that_never_traded_counts_as_one() -> None:
    traded = [daily(noise(seed)) for seed in range(2)]
    flat = [daily(np.zeros(400)), daily(np.full(400, 0.1))]
    assert trials.count_trials([*traded, *flat]).effective == pytest.approx(4.0, abs=0.05)


def test_a_trial_whose_returns_are_not_known_counts() -> None:
    unknown = trials.TrialRecord(math.nan, math.nan, 10, np.zeros(0))
    assert trials.count_trials([daily(noise(1)), unknown]).effective == pytest.approx(2.0, abs=0.05)


def test_infinite_returns_are_refused() -> None:
    infinite = trials.TrialRecord(0.1, 100.0, 0, np.array([0.1, math.inf]))
    with pytest.raises(ValueError, match="mark days"):
        trials.count_trials([infinite])


@st.composite
def ledgers(draw: st.DrawFn) -> list[trials.TrialRecord]:
    """Trials of any length, mean and volatility, related and unrelated, some of them unknown or constant."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    common = rng.standard_normal(300)
    records = []
    for _ in range(draw(st.integers(1, 8))):
        first = draw(st.integers(0, 100))
        length = draw(st.integers(0, 200))
        mixed = draw(st.floats(-1.0, 1.0)) * common[first : first + length]
        own = draw(st.sampled_from([0.0, 0.1, 1.0])) * rng.standard_normal(length)
        mean = draw(st.floats(-3.0, 3.0))
        values = draw(st.sampled_from([1e-4, 1.0])) * (mixed + own + mean)
        values[rng.random(length) < draw(st.sampled_from([0.0, 0.3]))] = math.nan
        records.append(trials.TrialRecord(mean, 100.0, first, values))
    return records


@settings(max_examples=25, deadline=None)
@given(ledgers(), ledgers())
def test_a_further_trial_raises_the_bar_by_no_more_than_its_count_and_never_lowers_it(
    earlier: list[trials.TrialRecord], later: list[trials.TrialRecord]
) -> None:
    before = trials.count_trials(earlier)
    for place in range(len(later)):
        after = trials.count_trials([*earlier, *later[: place + 1]])
        one_more = replace(before, effective=before.effective + 1.0)
        bars = (before, after, one_more)
        low, bar, high = (count.expected_maximum(101.0) for count in bars)
        assert low - 1e-8 <= bar <= high + 1e-8
        before = after


@settings(max_examples=25, deadline=None)
@given(ledgers(), ledgers())
def test_a_later_trial_changes_no_earlier_count(
    earlier: list[trials.TrialRecord], later: list[trials.TrialRecord]
) -> None:
    alone = trials.effective_counts(earlier)
    together = trials.effective_counts([*earlier, *later])
    np.testing.assert_allclose(together[: len(earlier)], alone, atol=1e-4)


def largest(values: Floats) -> float:
    return float(np.nanmax(np.abs(values), initial=0.0))


@settings(max_examples=25, deadline=None)
@given(ledgers(), st.floats(-10.0, 10.0), st.sampled_from([0.01, 1.0, 100.0]))
def test_neither_the_mean_nor_the_size_of_a_trial_s_returns_enters_the_count(
    records: list[trials.TrialRecord], loss: float, size: float
) -> None:
    worse = [
        replace(record, sharpe=-99.0, daily=size * (record.daily - loss * largest(record.daily)))
        for record in records
    ]
    expected = trials.count_trials(records).effective
    assert trials.count_trials(worse).effective == pytest.approx(expected, abs=1e-3)


def test_a_run_with_a_fee_typo_hardly_moves_the_bar_of_the_next_honest_one() -> None:
    """A true Sharpe ratio of 2 a year beside the same recipe at a Sharpe ratio of -7.35."""
    honest = noise(1, 1095)
    typo = 0.9 * honest + math.sqrt(1.0 - 0.81) * noise(2, 1095) - 7.35 / math.sqrt(365.0)
    alone = trials.count_trials([daily(honest + 2.0 / math.sqrt(365.0))], min_trials=10.0)
    poisoned = trials.count_trials([daily(typo), daily(honest + 2.0 / math.sqrt(365.0))], min_trials=10.0)
    assert poisoned.expected_maximum(1095.0) == alone.expected_maximum(1095.0)


def test_a_stored_dispersion_widens_the_chance_of_an_earlier_verdict() -> None:
    assert trials.TrialCount(5, 5.0).variance(101.0) == pytest.approx(0.01)
    assert trials.TrialCount(5, 5.0, 0.02).variance(101.0) == pytest.approx(0.03)
    assert math.isnan(trials.TrialCount(5, 5.0).variance(1.0))
    assert math.isnan(trials.TrialCount(5, 5.0).variance(math.nan))


def test_the_bars_that_pass_are_the_fewest_that_do() -> None:
    record = track_record(noise(3, 500) + 0.08)
    count = trials.TrialCount(20, 20.0, 0.0)
    needed = int(trials.bars_to_pass(record, count, 0.95))

    def passes(bars: int) -> bool:
        effective = record.effective_bars / record.bars * bars
        longer = replace(record, bars=bars, effective_bars=effective)
        # bars beyond the present are forward bars
        then = replace(count, forward_bars=max(effective - record.effective_bars, 0.0))
        return probabilistic_sharpe_ratio(longer, then.expected_maximum(effective)) >= 0.95

    assert needed > record.bars
    assert passes(needed)
    assert not passes(needed - 1)


def test_forward_bars_are_deflated_by_what_was_followed_side_by_side_only() -> None:
    many = trials.TrialCount(50, 50.0)
    followed = replace(many, forward_bars=1000.0)
    assert followed.expected_maximum(1000.0) == pytest.approx(0.0, abs=1e-9)
    assert replace(followed, side_by_side=50.0).expected_maximum(1000.0) == many.expected_maximum(1000.0)
    # half of the bars: the luck of the first half, spread over all bars
    half = replace(many, forward_bars=500.0).expected_maximum(1000.0)
    assert half == pytest.approx(many.expected_maximum(1000.0) * math.sqrt(0.5))
    few = replace(followed, forward_bars=500.0, side_by_side=2.0)
    assert half < few.expected_maximum(1000.0) < many.expected_maximum(1000.0)


@given(forward=st.floats(0.0, 1000.0), followed=st.floats(1.0, 50.0))
def test_forward_bars_never_raise_the_trial_luck_above_twice_the_chance(
    forward: float, followed: float
) -> None:
    whole = trials.TrialCount(50, 50.0).expected_maximum(1000.0)
    joined = trials.TrialCount(50, 50.0, 0.0, forward, followed).expected_maximum(1000.0)
    # two parts with a maximum each have more luck than one: at most the root of two
    assert 0.0 <= joined <= math.sqrt(2.0) * whole * (1.0 + 1e-9)


@pytest.mark.parametrize(
    ("returns", "count", "expected"),
    [
        (noise(3) - 0.5, trials.TrialCount(1, 1.0, 0.0), math.inf),
        (noise(3) + 0.1, trials.TrialCount(50, 50.0, 0.1), math.inf),
        (np.zeros(400), trials.TrialCount(1, 1.0, 0.0), math.nan),
        (noise(3), trials.TrialCount(1, math.nan, 0.0), math.nan),
    ],
    ids=["a loss", "an earlier verdict, trials far apart", "nothing measured", "trials not counted"],
)
def test_a_record_that_never_passes_needs_infinite_bars(
    returns: Floats, count: trials.TrialCount, expected: float
) -> None:
    assert trials.bars_to_pass(track_record(returns), count, 0.95) == pytest.approx(expected, nan_ok=True)


def test_a_sketch_counts_as_the_records_of_its_trials() -> None:
    rng = np.random.default_rng(12)
    days = np.delete(np.arange(19_000, 19_400), [5, 6, 130])
    daily = (rng.normal(0, 0.01, (40, len(days))) + rng.normal(0, 0.01, len(days))).astype(np.float32)
    records = []
    for row in daily:
        returns = np.full(400, np.nan)
        returns[days - 19_000] = row
        records.append(trials.TrialRecord(0.1, 100.0, 19_000, returns))
    parts = [trials.TrialSketch.of(days, daily[:25]), trials.TrialSketch.of(days, daily[25:])]
    whole = trials.TrialSketch.merged(parts)
    assert whole.trials == 40
    # the last bits of a matrix product depend on its shape on some processors
    np.testing.assert_allclose(whole.highest, trials.TrialSketch.of(days, daily).highest, atol=1e-5)
    expected = trials.effective_counts(records)[-1]
    assert whole.effective == pytest.approx(expected, rel=1e-3)
    other = [trials.TrialRecord(0.1, 100.0, 19_100, rng.normal(0, 0.01, 200)) for _ in range(3)]
    together = trials.effective_counts([*records, *other])
    assert trials.effective_counts(other, whole) == pytest.approx(together[-3:], rel=1e-3)
    count = trials.count_trials(other, 5.0, whole)
    assert (count.trials, count.effective) == (43, pytest.approx(together[-1], rel=1e-3))


def test_trials_of_a_sketch_without_a_trade_add_nothing() -> None:
    rng = np.random.default_rng(13)
    days = np.arange(19_000, 19_300)
    daily = rng.normal(0, 0.01, (5, 300))
    flat = np.zeros((200, 300))
    with_flat = trials.TrialSketch.of(days, np.concatenate([daily, flat]))
    assert with_flat.trials == 205
    assert with_flat.effective == pytest.approx(trials.TrialSketch.of(days, daily).effective, abs=0.5)
    assert trials.TrialSketch.of(days, flat).effective == pytest.approx(1.0)
