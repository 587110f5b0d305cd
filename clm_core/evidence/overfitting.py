"""Backtest overfitting: combinatorial splits that test the choice of the best trial in sample.

Sources:
    Bailey, Borwein, Lopez de Prado & Zhu (2017), "The probability of backtest overfitting", Journal of
        Computational Finance 20(4).
    Lopez de Prado (2018), "Advances in financial machine learning", chapters 7 and 12.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from clm_core.domain.errors import NotEnoughBars
from clm_core.market.bars import Floats
from clm_core.market.splits import Rows


def probability_of_overfitting(returns: Floats, blocks: int = 16) -> float:
    """Share of combinatorially symmetric splits in which the best trial in sample is at or below the median
    out of sample, 0..1 (Bailey, Borwein, Lopez de Prado & Zhu 2017, definition 2.2).

    About one half if the Sharpe ratio in sample has no predictive value; NaN for returns that are not finite.
    """
    logits = selection_logits(returns, blocks)
    return float(np.mean(logits <= 0.0)) if np.isfinite(logits).all() else math.nan


def selection_logits(returns: Floats, blocks: int = 16) -> Floats:
    """Logit of the out-of-sample rank of the best trial in sample, for each split, shape (n_splits,).

    The bars are cut into `blocks` stretches; every half of the stretches is in sample once, the other half
    out of sample. The logit of rank r among n trials, 1 the worst and ties in the middle, is
    log(r / (n + 1 - r)). A trial constant in a half has a Sharpe ratio of 0.0 in that half. NaN for returns
    that are not finite.

    Args:
        returns: returns of every trial on the same bars, as fractions, shape (n_bars, n_trials), at least two
            trials; bars beyond a multiple of `blocks` are dropped from the start.
        blocks: number of stretches, even; 16 give 12,870 splits.

    Raises:
        NotEnoughBars: fewer than 2 bars a block.
    """
    n_bars, n_trials = returns.shape
    if blocks < 2 or blocks % 2:
        raise ValueError(f"the number of blocks must be even and at least 2, not {blocks}")
    if n_trials < 2:
        raise ValueError("a selection needs at least two trials")
    if n_bars < 2 * blocks:
        raise NotEnoughBars(
            f"{n_bars} bars are too few for {blocks} blocks: give {2 * blocks} or fewer blocks"
        )
    chosen = _halves(blocks)
    if not np.isfinite(returns).all():
        return np.full(len(chosen), np.nan)
    parts = (returns / _largest(returns))[n_bars % blocks :].reshape(blocks, -1, n_trials)
    sums = parts.sum(axis=1)
    squares = (parts**2).sum(axis=1)
    bars = len(parts[0]) * blocks // 2
    inside = _sharpe(chosen @ sums, chosen @ squares, bars)
    outside = _sharpe((1.0 - chosen) @ sums, (1.0 - chosen) @ squares, bars)
    best = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    rank = (outside < best).sum(axis=1) + ((outside == best).sum(axis=1) + 1) / 2
    return np.asarray(np.log(rank / (n_trials + 1 - rank)))


@dataclass(frozen=True, eq=False)
class CombinatorialFold:
    """One choice of the tested groups."""

    train: Rows
    """Rows with a label, in time order, separated from every tested group by purge and embargo."""
    test: tuple[slice, ...]
    """Contiguous rows of each tested group, in time order."""
    paths: tuple[int, ...]
    """Number of the backtest path of each tested group, from 0."""


def combinatorial_purged(
    label_end: Rows, n_groups: int, n_test_groups: int, embargo: int
) -> list[CombinatorialFold]:
    """Combinatorial purged cross-validation: all choices of `n_test_groups` of `n_groups` to test, training
    on the rest (Lopez de Prado 2018, chapter 12).

    Each group is tested C(n_groups - 1, n_test_groups - 1) times, once in each backtest path. Row i is a
    training row if, for every tested group, label_end[i] lies more than `embargo` rows before the group, or i
    lies more than `embargo` rows after the last row used by the group's labels (ibid., section 7.4).

    Args:
        label_end: `Labels.end`, shape (n_bars,); rows with -1 are never training rows.
        n_groups: number of contiguous groups, with sizes differing by one row at most.
        n_test_groups: number of tested groups, at least 1, below `n_groups`.
        embargo: rows between training and test; at least the look-back of the features, to keep tested bars
            out of the features of training rows.

    Raises:
        NotEnoughBars: there are fewer rows than groups, or a fold without a training row.
    """
    if not 1 <= n_test_groups < n_groups or embargo < 0:
        raise ValueError(
            "combinatorial folds test at least one group, train on at least one, embargo from 0 up"
        )
    groups = _groups(len(label_end), n_groups)
    separated = np.array([_separated(label_end, group, embargo) for group in groups])
    tested = [0] * n_groups
    folds = []
    for chosen in combinations(range(n_groups), n_test_groups):
        train = np.flatnonzero(separated[list(chosen)].all(axis=0) & (label_end >= 0))
        if not len(train):
            raise NotEnoughBars(
                f"groups {chosen} leave no bar to train on: load more bars, or shorten the embargo"
            )
        folds.append(
            CombinatorialFold(train, tuple(groups[g] for g in chosen), tuple(tested[g] for g in chosen))
        )
        for group in chosen:
            tested[group] += 1
    return folds


def backtest_paths(folds: Sequence[CombinatorialFold], tested: Sequence[Floats]) -> Floats:
    """Values of the tested rows joined into backtest paths, shape (n_paths, n_bars).

    Args:
        folds: all folds of `combinatorial_purged`.
        tested: for each fold one value (a position, a return) for each tested row, in time order.
    """
    n_bars = max(fold.test[-1].stop for fold in folds)
    paths = np.full((1 + max(max(fold.paths) for fold in folds), n_bars), np.nan)
    for fold, values in zip(folds, tested, strict=True):
        bounds = np.cumsum([rows.stop - rows.start for rows in fold.test])
        if len(values) != bounds[-1]:
            raise ValueError(
                f"{len(values)} values for {bounds[-1]} tested rows: pass one value for each row"
            )
        for path, rows, part in zip(fold.paths, fold.test, np.split(values, bounds[:-1]), strict=True):
            paths[path, rows] = part
    return paths


def _groups(n_bars: int, n_groups: int) -> list[slice]:
    if n_bars < n_groups:
        raise NotEnoughBars(f"{n_bars} bars do not fill {n_groups} groups: ask for fewer, or load more bars")
    edges = np.linspace(0, n_bars, n_groups + 1).astype(int).tolist()
    return [slice(first, last) for first, last in pairwise(edges)]


def _separated(label_end: Rows, group: slice, embargo: int) -> NDArray[np.bool_]:
    """True for rows whose label ends before the group, or that open after the reach of the group's labels,
    each with the embargo, shape (n_bars,)."""
    reach = max(int(label_end[group].max()), group.stop - 1)
    return np.asarray((label_end < group.start - embargo) | (np.arange(len(label_end)) > reach + embargo))


def _halves(blocks: int) -> Floats:
    """Indicator of every choice of half of the blocks, 1.0 for a chosen block, shape (n_splits, blocks)."""
    halves = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks))
    np.put_along_axis(chosen, np.array(halves), 1.0, axis=1)
    return chosen


def _largest(returns: Floats) -> Floats:
    """Largest absolute return of each trial, or 1.0 if all returns are 0, shape (n_trials,); divided by the
    size, no square overflows."""
    sizes = np.abs(returns).max(axis=0)
    return np.where(sizes > 0.0, sizes, 1.0)


def _sharpe(sums: Floats, squares: Floats, bars: int) -> Floats:
    means = sums / bars
    variances = squares / bars - means**2
    varies = variances > 1e-12 * squares / bars
    return np.where(varies, means / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
