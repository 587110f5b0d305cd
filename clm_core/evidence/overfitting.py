"""Backtest overfitting: combinatorially symmetric splits test the choice of the best of several candidates.

Source: Bailey, Borwein, Lopez de Prado & Zhu (2017), "The probability of backtest overfitting", Journal of
Computational Finance 20(4).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import NotEnoughBars
from clm_core.market.bars import Floats

Ints = NDArray[np.int64]

BLOCKS = 16
CHUNK = 4_000_000
"""Number of Sharpe ratios held in memory at a time."""
MIN_ROWS = 2 * BLOCKS
"""Minimum number of common rows for a test with `BLOCKS` blocks."""


@dataclass(frozen=True)
class SelectionRisk:
    """Risk that the choice of the best candidate was a choice of luck."""

    candidates: int
    days: int
    """Number of days common to all candidates."""
    overfitting: float
    """Share of the splits with the choice at or below the median of the other half, 0..1, or NaN."""
    loss: float
    """Share of the splits with a Sharpe ratio of the choice of at most 0 in the other half, 0..1, or NaN."""


def selection_risk(returns: Floats, blocks: int = BLOCKS) -> SelectionRisk:
    """Probability of backtest overfitting (Bailey, Borwein, Lopez de Prado & Zhu 2017, definition 2.2) and
    probability of loss (ibid., section 4), NaN for fewer than two rows a block.

    Args:
        returns: returns of each candidate on the same days, as fractions, shape (n_days, n_candidates), at
            least two candidates.
        blocks: number of stretches, even.
    """
    days, candidates = returns.shape
    if days < 2 * blocks:
        return SelectionRisk(candidates, days, math.nan, math.nan)
    ranks, sharpes = out_of_sample(returns, blocks)
    if not np.isfinite(ranks).all():
        return SelectionRisk(candidates, days, math.nan, math.nan)
    middle = (candidates + 1) / 2
    return SelectionRisk(candidates, days, float(np.mean(ranks <= middle)), float(np.mean(sharpes <= 0.0)))


def out_of_sample(returns: Floats, blocks: int) -> tuple[Floats, Floats]:
    """Rank and Sharpe ratio of a row, out of sample, of the best candidate in sample, shape (n_splits,) each.

    The rows are cut into `blocks` stretches; every half of the stretches is in sample once, the other half
    out of sample. Rank 1 is the worst, ties are in the middle. A candidate constant in a half has a Sharpe
    ratio of 0.0 there. NaN for infinite or missing returns.

    Args:
        returns: returns as fractions, shape (n_rows, n_candidates), at least two candidates; rows beyond a
            multiple of `blocks` are dropped from the start.
        blocks: number of stretches, even; 16 give 12,870 splits.

    Raises:
        NotEnoughBars: fewer than 2 rows a block.
    """
    n_rows, n_candidates = returns.shape
    if blocks < 2 or blocks % 2:
        raise ValueError(f"the number of blocks must be even and at least 2, not {blocks}")
    if n_candidates < 2:
        raise ValueError("a selection needs at least two candidates")
    if n_rows < 2 * blocks:
        raise NotEnoughBars(
            f"{n_rows} bars are too few for {blocks} blocks: give {2 * blocks} or fewer blocks"
        )
    chosen = _halves(blocks)
    if not np.isfinite(returns).all():
        unknown = np.full(len(chosen), np.nan)
        return unknown, unknown
    sums, squares, rows = _block_sums(returns, blocks)
    splits = [_choices(part, sums, squares, rows) for part in _parts(chosen, n_candidates)]
    return np.concatenate([ranks for ranks, _ in splits]), np.concatenate([sharpes for _, sharpes in splits])


def shares_below_median(returns: Floats, members: Ints, blocks: int = BLOCKS) -> Floats:
    """Share of the halves of the stretches in which each member ranks at or below the median of all
    candidates, shape (n_members,): the probability of overfitting with the member as the choice.

    NaN for fewer than two rows a block, and for infinite or missing returns.

    Args:
        returns: returns as fractions, shape (n_rows, n_candidates), at least two candidates.
        members: columns of the members, shape (n_members,).
        blocks: number of stretches, even.
    """
    n_rows, n_candidates = returns.shape
    if n_rows < 2 * blocks or not np.isfinite(returns).all():
        return np.full(len(members), np.nan)
    sums, squares, rows = _block_sums(returns, blocks)
    halves = _halves(blocks)
    below = np.zeros(len(members))
    for part in _parts(halves, n_candidates):
        sharpes = _sharpe(part @ sums, part @ squares, rows)
        for half, own in zip(np.sort(sharpes, axis=1), sharpes[:, members], strict=True):
            # the mean rank of equal candidates
            ranks = (np.searchsorted(half, own) + np.searchsorted(half, own, side="right") + 1) / 2
            below += ranks <= (n_candidates + 1) / 2
    return below / len(halves)


def _block_sums(returns: Floats, blocks: int) -> tuple[Floats, Floats, int]:
    """Sums and sums of squares of the scaled returns of each block, shape (blocks, n_candidates), and the
    number of rows of a half."""
    parts = (returns / _largest(returns))[len(returns) % blocks :].reshape(blocks, -1, returns.shape[1])
    return parts.sum(axis=1), (parts**2).sum(axis=1), parts.shape[1] * blocks // 2


def _parts(halves: Floats, n_candidates: int) -> Iterator[Floats]:
    """Halves in parts of up to `CHUNK` Sharpe ratios."""
    step = max(1, CHUNK // n_candidates)
    for start in range(0, len(halves), step):
        yield halves[start : start + step]


def _choices(chosen: Floats, sums: Floats, squares: Floats, rows: int) -> tuple[Floats, Floats]:
    """Rank and Sharpe ratio, out of sample, of the best candidate in sample, shape (n_splits,) each."""
    inside = _sharpe(chosen @ sums, chosen @ squares, rows)
    outside = _sharpe((1.0 - chosen) @ sums, (1.0 - chosen) @ squares, rows)
    best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    ranks = (outside < best).sum(axis=1) + ((outside == best).sum(axis=1) + 1) / 2
    return np.asarray(ranks), np.asarray(best[:, 0])


def _halves(blocks: int) -> Floats:
    """Indicator of every choice of half of the blocks, 1.0 for a chosen block, shape (n_splits, blocks)."""
    halves = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks))
    np.put_along_axis(chosen, np.array(halves), 1.0, axis=1)
    return chosen


def _largest(returns: Floats) -> Floats:
    """Largest absolute return of each candidate, or 1.0 if all are 0, shape (n_candidates,); divided by the
    size, no square overflows."""
    sizes = np.abs(returns).max(axis=0)
    return np.where(sizes > 0.0, sizes, 1.0)


def _sharpe(sums: Floats, squares: Floats, rows: int) -> Floats:
    means = sums / rows
    variances = squares / rows - means**2
    varies = variances > 1e-12 * squares / rows
    return np.where(varies, means / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
