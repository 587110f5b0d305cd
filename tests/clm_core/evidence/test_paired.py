"""Anytime-valid comparison: error rates under continuous looking, and time to a decision."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence import paired
from clm_core.evidence.paired import PairedRecord, Standing

ALPHA = 0.05
TUNED_FOR = 100

differences = st.lists(st.integers(-5000, 5000), min_size=50, max_size=90).map(
    lambda bps: np.array(bps) / 1e4
)


def record_of(values: np.ndarray) -> PairedRecord:
    return paired.extend(PairedRecord(), values, np.zeros(len(values)))


def decision(values: np.ndarray) -> tuple[Standing, int]:
    """First decision, and the number of differences until then."""
    record = PairedRecord()
    for value in values.tolist():
        record = paired.update(record, value, 0.0)
        standing = paired.stand(record, ALPHA, TUNED_FOR)
        if standing is not Standing.UNDECIDED:
            return standing, record.n
    return Standing.UNDECIDED, len(values)


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("lucky", [Standing.BETTER, Standing.WORSE])
def test_equal_streams_are_rarely_distinguished_by_frequent_looks(shape: Shape, lucky: Standing) -> None:
    """Tables are in docs/decisions/0001-evidence.md; here 150 streams, three errors wide."""
    streams = draw_returns(shape, 0.0, (300, 150), np.random.default_rng(3))
    wrong = np.mean([decision(stream)[0] is lucky for stream in streams.T])
    assert wrong <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 150)


def test_a_small_edge_is_seen_in_far_fewer_trades_than_the_unpaired_test_needs() -> None:
    """Correlation 0.9, edge 0.15 standard deviations a trade: Welch's test detects 4 % after 100 trades."""
    from scipy import stats

    rng = np.random.default_rng(4)
    champion = rng.standard_normal((250, 200))
    challenger = 0.9 * champion + math.sqrt(0.19) * rng.standard_normal((250, 200)) + 0.15
    unpaired = stats.ttest_ind(
        challenger[:100], champion[:100], equal_var=False, alternative="greater"
    ).pvalue
    decisions = [decision(stream) for stream in (challenger - champion).T]
    trades = np.array([n if standing is Standing.BETTER else math.inf for standing, n in decisions])
    assert np.mean(unpaired <= ALPHA) < 0.10
    assert np.quantile(trades, 0.5) < 90
    assert np.quantile(trades, 0.9) < 180


def test_a_worse_challenger_is_found_out_as_soon() -> None:
    values = draw_returns(Shape.NORMAL, 0.4, (200, 1), np.random.default_rng(5))[:, 0]
    assert decision(values)[0] is Standing.BETTER
    assert decision(-values) == (Standing.WORSE, decision(values)[1])


@given(differences)
def test_the_running_sums_give_the_moments_of_the_whole_series(values: np.ndarray) -> None:
    """The slope of the autoregression is the first autocorrelation, from 0 up."""
    from scipy import stats

    now = paired.bounds(record_of(values), ALPHA, TUNED_FOR)
    if np.ptp(values) == 0:
        assert math.isnan(now.low)
        return
    n = len(values)
    centred = values - values.mean()
    slope = float(np.clip(centred[1:] @ centred[:-1] / (centred @ centred), 0.0, 0.9))
    sharpe = values.mean() / values.std()
    variance = values.var(ddof=1) * (1 + slope) / (1 - slope) * max(1 - stats.skew(values) * sharpe, 1.0)
    assert now.mean == pytest.approx(values.mean(), abs=1e-12)
    assert now.high - now.mean == pytest.approx(
        math.sqrt(variance) * paired._radius(n, ALPHA, TUNED_FOR), rel=1e-6
    )
    assert now.mean - now.low == pytest.approx(now.high - now.mean, rel=1e-9)


@given(differences, st.integers(0, 90))
def test_a_restart_changes_nothing(values: np.ndarray, stop: int) -> None:
    before = record_of(values[:stop])
    restored = PairedRecord(**json.loads(json.dumps(asdict(before))))
    after = paired.extend(restored, values[stop:], np.zeros(len(values[stop:])))
    assert after == record_of(values)


def test_fewer_than_the_minimum_of_differences_decide_nothing() -> None:
    values = draw_returns(Shape.NORMAL, 2.0, (paired.MIN_DIFFERENCES, 1), np.random.default_rng(6))[:, 0]
    assert paired.stand(record_of(values[:-1]), ALPHA, TUNED_FOR) is Standing.UNDECIDED
    assert math.isnan(paired.differences_to_decide(record_of(values[:-1]), ALPHA, TUNED_FOR))
    assert paired.stand(record_of(values), ALPHA, TUNED_FOR) is Standing.BETTER


@pytest.mark.parametrize(
    "record",
    [
        PairedRecord(),
        record_of(np.full(200, 0.01)),
        record_of(np.zeros(200)),
        record_of(np.tile([1e200, -1e200], 50)),
        replace(record_of(np.tile([0.01, 0.02], 50)), total=math.nan),
    ],
    ids=["empty", "constant", "equal", "overflow", "damaged"],
)
def test_a_record_without_information_stays_undecided(record: PairedRecord) -> None:
    assert paired.stand(record, ALPHA, TUNED_FOR) is Standing.UNDECIDED
    assert not paired.bounds(record, ALPHA, TUNED_FOR).low > -math.inf
    assert math.isnan(paired.differences_to_decide(record, ALPHA, TUNED_FOR))


@pytest.mark.parametrize("returns", [(math.nan, 0.0), (0.0, math.inf), (math.inf, math.inf)])
def test_a_return_that_was_not_measured_is_refused(returns: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="leave out what was not measured"):
        paired.update(PairedRecord(), *returns)


def test_series_of_different_bars_are_not_compared() -> None:
    with pytest.raises(ValueError, match="judge both on the same bars"):
        paired.extend(PairedRecord(), np.zeros(3), np.zeros(2))


@pytest.mark.parametrize(("alpha", "tuned_for"), [(0.0, 100), (0.5, 100), (math.nan, 100), (0.05, 0)])
def test_levels_that_make_no_sense_are_refused(alpha: float, tuned_for: int) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        paired.bounds(record_of(np.tile([0.01, 0.02], 50)), alpha, tuned_for)


def test_the_forecast_is_the_first_number_of_differences_at_which_the_bounds_exclude_zero() -> None:
    values = draw_returns(Shape.NORMAL, 0.1, (60, 1), np.random.default_rng(9))[:, 0]
    record = record_of(values)
    needed = paired.differences_to_decide(record, ALPHA, TUNED_FOR)
    mean, deviation = paired._moments(record) or (math.nan, math.nan)
    assert needed > record.n
    assert deviation * paired._radius(int(needed), ALPHA, TUNED_FOR) < abs(mean)
    assert deviation * paired._radius(int(needed) - 1, ALPHA, TUNED_FOR) >= abs(mean)


def test_a_decided_record_needs_no_more_differences_and_equals_are_never_decided() -> None:
    decided = record_of(draw_returns(Shape.NORMAL, 2.0, (60, 1), np.random.default_rng(6))[:, 0])
    assert paired.differences_to_decide(decided, ALPHA, TUNED_FOR) == decided.n
    assert paired.differences_to_decide(record_of(np.tile([1.0, -1.0], 40)), ALPHA, TUNED_FOR) == math.inf
