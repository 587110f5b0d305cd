"""The oracle is arch's stationary bootstrap, and a resample strung together by hand."""

import math

import numpy as np
import pytest

from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence import bootstrap
from clm_core.evidence.bootstrap import Interval
from clm_core.evidence.track_record import track_record


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_returns(shape: Shape, sharpe: float, bars: int, seed: int = 0) -> np.ndarray:
    return draw_returns(shape, sharpe, (bars, 1), rng(seed))[:, 0]


def sharpe(returns: np.ndarray) -> float:
    return float(returns.mean() / returns.std(ddof=1))


CHAMPION = random_returns(Shape.AUTOREGRESSIVE, 0.05, 400)
CHALLENGER = 0.9 * CHAMPION + math.sqrt(1 - 0.9**2) * random_returns(Shape.NORMAL, 0.1, 400, seed=1)


@pytest.mark.parametrize("block", [1.0, 3.0, 40.0, 5000.0])
def test_a_draw_is_the_sharpe_ratio_of_its_blocks_strung_together(block: float) -> None:
    n = len(CHAMPION)
    seed = rng().integers(2**64, dtype=np.uint64)
    starts = np.empty(n, np.uint32)
    ends = np.empty(n, np.uint32)
    rate = -math.log1p(-1 / block) if block > 1 else math.inf
    lengths = bootstrap._lengths(rate)
    blocks, *_ = bootstrap._draw_blocks(starts, ends, np.zeros((2 * n + 1, 2)), rate, lengths, seed)
    rows = np.concatenate([np.arange(starts[k], ends[k]) % n for k in range(blocks)])
    assert len(rows) == n
    assert bootstrap.sharpe_draws(CHAMPION, block, 3, rng())[0] == pytest.approx(
        sharpe(CHAMPION[rows]), abs=1e-12
    )
    assert bootstrap.difference_draws(CHALLENGER, CHAMPION, block, 3, rng())[0] == pytest.approx(
        sharpe(CHALLENGER[rows]) - sharpe(CHAMPION[rows]), abs=1e-12
    )


@pytest.mark.parametrize("block", [1.0, 4.0, 30.0])
def test_blocks_start_anywhere_alike_and_their_lengths_are_geometric(block: float) -> None:
    n = 200_000
    starts = np.empty(n, np.uint32)
    ends = np.empty(n, np.uint32)
    rate = -math.log1p(-1 / block) if block > 1 else math.inf
    totals = np.zeros((2 * n + 1, 2))
    table = bootstrap._lengths(rate)
    blocks, *_ = bootstrap._draw_blocks(starts, ends, totals, rate, table, np.uint64(7))
    lengths = (ends - starts)[: blocks - 1].astype(np.int64)
    error = 4 / math.sqrt(len(lengths))
    assert lengths.mean() == pytest.approx(block, rel=error)
    assert (lengths == 1).mean() == pytest.approx(1 / block, abs=error)
    assert lengths.std() == pytest.approx(math.sqrt(1 - 1 / block) * block, rel=2 * error)
    assert starts[:blocks].mean() / n == pytest.approx(0.5, abs=error)


@pytest.mark.parametrize("resamples", [1, 31])
@pytest.mark.parametrize("block", [1.0, 1.3, 2.0, 40.0, 5000.0])
@pytest.mark.parametrize("n", [2, 61, 400])
def test_a_pair_of_series_alone_has_the_sums_that_it_has_beside_another_pair(
    n: int, block: float, resamples: int
) -> None:
    pair = bootstrap._running_totals([CHAMPION[:n], CHALLENGER[:n]])
    both = np.ascontiguousarray(np.concatenate([pair, pair], axis=1))
    rate = -math.log1p(-1 / block) if block > 1 else math.inf
    rest = rate, bootstrap._lengths(rate), resamples, np.uint64(11)
    alone = bootstrap._resampled_sums(pair, *rest)
    assert np.array_equal(bootstrap._resampled_sums(both, *rest), np.concatenate([alone, alone]))


@pytest.mark.parametrize("shape", Shape)
def test_block_lengths_are_those_of_arch(shape: Shape) -> None:
    from arch.bootstrap import optimal_block_length

    values = random_returns(shape, 0.0, 1000, seed=3)
    theirs = float(optimal_block_length(values)["stationary"].iloc[0])
    assert bootstrap.block_length(values) == pytest.approx(max(theirs, 1.0), rel=1e-9)


def test_draws_are_distributed_as_those_of_arch() -> None:
    from arch.bootstrap import StationaryBootstrap

    theirs = StationaryBootstrap(12.0, CHALLENGER, CHAMPION, seed=rng(1)).apply(
        lambda a, b: sharpe(a) - sharpe(b), 4000
    )[:, 0]
    ours = bootstrap.difference_draws(CHALLENGER, CHAMPION, 12.0, 4000, rng(2))
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
    assert np.quantile(ours, [0.05, 0.5, 0.95]) == pytest.approx(
        np.quantile(theirs, [0.05, 0.5, 0.95]), abs=0.08 * theirs.std()
    )


@pytest.mark.parametrize("shape", Shape)
def test_nineteen_of_twenty_intervals_hold_the_true_sharpe_ratio(shape: Shape) -> None:
    """Tables are in docs/decisions/0001-evidence.md; here 300 streams of 500 bars, three errors wide."""
    streams = draw_returns(shape, 0.1, (500, 300), rng(4))
    intervals = [bootstrap.sharpe_interval(stream, 0.95, 300, rng(5)) for stream in streams.T]
    held = np.mean([interval.low <= 0.1 <= interval.high for interval in intervals])
    assert held >= 0.93 - 3 * math.sqrt(0.05 * 0.95 / 300)


def test_common_movements_cancel_out_of_the_difference() -> None:
    """Compared bar by bar, two series with correlation 0.9 are distinguished three times as sharply."""
    paired = bootstrap.difference_interval(CHALLENGER, CHAMPION, 0.95, 2000, rng())
    separate = [bootstrap.sharpe_interval(series, 0.95, 2000, rng()) for series in (CHALLENGER, CHAMPION)]
    unpaired = math.hypot(*(interval.high - interval.low for interval in separate))
    assert paired.high - paired.low < 0.5 * unpaired


def test_an_interval_holds_its_estimate_and_the_same_seed_gives_it_again() -> None:
    interval = bootstrap.sharpe_interval(CHALLENGER, 0.95, 500, rng(9))
    assert interval.estimate == pytest.approx(track_record(CHALLENGER).sharpe)
    assert interval.low < interval.estimate < interval.high
    assert interval == bootstrap.sharpe_interval(CHALLENGER, 0.95, 500, rng(9))


def test_a_series_does_not_differ_from_itself() -> None:
    assert bootstrap.difference_interval(CHAMPION, CHAMPION, 0.95, 100, rng()) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "returns",
    [CHAMPION[:10], np.append(CHAMPION[1:], math.nan), np.zeros(400)],
    ids=["thin", "nan", "flat"],
)
def test_returns_without_a_sharpe_ratio_have_no_interval(returns: np.ndarray) -> None:
    interval = bootstrap.sharpe_interval(returns, 0.95, 100, rng())
    assert not interval.low > -math.inf
    assert not bootstrap.difference_interval(returns, returns, 0.95, 100, rng()).low > -math.inf


def test_a_resample_that_never_trades_has_earned_nothing() -> None:
    once = np.append(np.zeros(60), 0.05)
    draws = bootstrap.sharpe_draws(once, 1.0, 1000, rng())
    assert np.mean(draws == 0.0) == pytest.approx((60 / 61) ** 61, abs=0.06)
    assert np.isfinite(draws).all()


def test_series_of_different_bars_are_not_compared() -> None:
    with pytest.raises(ValueError, match="judge both on the same bars"):
        bootstrap.difference_interval(CHALLENGER, CHAMPION[1:], 0.95, 100, rng())


@pytest.mark.parametrize("block", [0.5, math.nan])
def test_blocks_shorter_than_a_bar_are_refused(block: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bootstrap.sharpe_draws(CHAMPION, block, 100, rng())


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_confidence_that_makes_no_sense_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        bootstrap.sharpe_interval(CHAMPION, confidence, 100, rng())


def test_the_interval_of_a_mean_of_ratios_keeps_what_the_series_have_in_common() -> None:
    alone = bootstrap.annual_sharpe_interval(CHALLENGER, 252.0)
    twice = bootstrap.mean_sharpe_interval([CHALLENGER, CHALLENGER], 252.0)
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high))
    noise = rng(3).standard_normal((2, len(CHALLENGER)))
    one, both = (bootstrap.mean_sharpe_interval(series, 252.0) for series in (noise[:1], noise))
    assert both.high - both.low == pytest.approx((one.high - one.low) / np.sqrt(2), rel=0.2)


def test_an_estimate_has_no_interval_where_a_series_has_no_ratio() -> None:
    estimate = bootstrap.sharpe_estimate(1.0, [CHALLENGER], 252.0)
    assert estimate is not None
    assert estimate.value == 1.0
    assert estimate.low < estimate.high
    assert bootstrap.sharpe_estimate(0.0, [CHALLENGER, np.zeros_like(CHALLENGER)], 252.0) is None
