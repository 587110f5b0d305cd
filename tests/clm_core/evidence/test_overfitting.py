"""Splits against a slow reference, and the risk of a selection."""

import math
from itertools import combinations

import numpy as np
import pytest

from clm_core.domain.errors import NotEnoughBars
from clm_core.evidence import overfitting


def noise(bars: int, trials: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((bars, trials))


def slow_ranks(returns: np.ndarray, blocks: int) -> list[tuple[float, float]]:
    from scipy import stats

    parts = np.split(returns, blocks)
    ranks = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.vstack([parts[k] for k in chosen])
        outside = np.vstack([parts[k] for k in range(blocks) if k not in chosen])
        best = int(np.argmax(inside.mean(axis=0) / inside.std(axis=0)))
        outside_sharpes = outside.mean(axis=0) / outside.std(axis=0)
        ranks.append((stats.rankdata(outside_sharpes)[best], outside_sharpes[best]))
    return ranks


def test_ranks_are_those_of_splits_written_out() -> None:
    returns = noise(96, 7) + 0.2
    ranks, sharpes = overfitting.out_of_sample(returns, 8)
    slow = slow_ranks(returns, 8)
    assert ranks.tolist() == pytest.approx([rank for rank, _ in slow])
    assert sharpes.tolist() == pytest.approx([sharpe for _, sharpe in slow])


def test_sixteen_blocks_have_12870_splits() -> None:
    assert len(overfitting.out_of_sample(noise(32, 2), 16)[0]) == math.comb(16, 8) == 12870


def test_a_trial_with_an_edge_is_no_overfitting() -> None:
    returns = noise(1000, 20)
    returns[:, 3] += 0.3
    assert overfitting.selection_risk(returns).overfitting == 0.0


def test_choosing_among_noise_chooses_nothing() -> None:
    chances = [overfitting.selection_risk(noise(400, 15, seed), 8).overfitting for seed in range(60)]
    assert np.mean(chances) == pytest.approx(0.5, abs=0.12)


def test_a_trial_that_only_ever_wins_in_the_other_half_is_always_overfit() -> None:
    """Two trials with mirrored blocks: gains in sample are losses out of sample."""
    early = np.repeat([1.0, 1.0, -1.0, -1.0], 10)[:, None] + 0.1 * noise(40, 1)
    assert overfitting.selection_risk(np.hstack([early, -early]), 2).overfitting == 1.0


def test_trials_without_a_trade_have_earned_nothing() -> None:
    returns = np.column_stack([np.zeros(64), -np.abs(noise(64, 1)[:, 0])])
    assert overfitting.selection_risk(returns, 4).overfitting == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_returns_that_are_not_finite_never_show_a_low_probability(value: float) -> None:
    returns = noise(64, 3)
    returns[5, 1] = value
    assert not overfitting.selection_risk(returns, 4).overfitting <= 1.0


@pytest.mark.parametrize(
    ("shape", "blocks", "message"),
    [((64, 3), 3, "must be even"), ((64, 3), 0, "must be even"), ((64, 1), 4, "at least two")],
)
def test_splits_that_make_no_sense_are_refused(shape: tuple[int, int], blocks: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overfitting.out_of_sample(noise(*shape), blocks)


def test_too_few_bars_for_the_blocks_are_refused() -> None:
    with pytest.raises(NotEnoughBars, match="fewer blocks"):
        overfitting.out_of_sample(noise(31, 3), 16)


def test_equal_edges_have_no_best_candidate_but_hardly_ever_lose() -> None:
    returns = noise(1000, 20) + 0.15
    risk = overfitting.selection_risk(returns)
    assert risk.overfitting > 0.2
    assert risk.loss < 0.01
    assert (risk.candidates, risk.days) == (20, 1000)


def test_too_few_common_days_measure_nothing() -> None:
    risk = overfitting.selection_risk(noise(overfitting.MIN_ROWS - 1, 3))
    assert math.isnan(risk.overfitting)
    assert math.isnan(risk.loss)


def test_shares_below_the_median_are_those_of_ranks_written_out() -> None:
    from scipy import stats

    returns = noise(97, 9)
    returns[:, 4] = returns[:, 2]
    parts = np.split(returns[1:], 8)
    below = np.zeros(9)
    for chosen in combinations(range(8), 4):
        half = np.vstack([parts[k] for k in chosen])
        below += stats.rankdata(half.mean(axis=0) / half.std(axis=0)) <= 5
    shares = overfitting.shares_below_median(returns, np.array([2, 4, 0]), 8)
    assert shares == pytest.approx(below[[2, 4, 0]] / math.comb(8, 4))


def test_shares_of_too_few_or_infinite_returns_are_unknown() -> None:
    short = noise(15, 3)
    infinite = noise(64, 3)
    infinite[5, 1] = np.inf
    for returns in (short, infinite):
        assert np.isnan(overfitting.shares_below_median(returns, np.array([0, 1]), 8)).all()
