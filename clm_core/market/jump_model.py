"""Statistical jump model: states of a series of features, with a penalty for each change of state.

The model minimises, over states s_t and centroids theta_k (Nystrup, Lindstroem and Madsen 2020; Shu, Yu and
Mulvey 2024, arXiv 2402.05272),

    sum over t of 1/2 |x_t - theta_{s_t}|^2  +  penalty * number of changes of state

by coordinate descent: the optimal sequence for given centroids by dynamic programming, then the mean of the
rows of each state, until the sequence stays the same. The descent finds a local minimum, so that the best of
several starts (k-means++) is kept.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clm_core.market.bars import Floats

States = NDArray[np.int64]

MAX_ROUNDS = 1_000
"""Rounds of the descent at most."""
TOLERANCE = 1e-8
"""Decrease of the objective below which the descent ends."""


@dataclass(frozen=True, eq=False)
class JumpModel:
    """Fitted centroids with the sequence of the fitted rows."""

    centroids: Floats
    """Shape (n_states, n_features); NaN for a state without a fitted row."""
    states: States
    """Optimal state of each fitted row, shape (n_rows,): all rows decide each state."""
    objective: float
    """Minimum found."""


def fit(values: Floats, draws: Floats, penalty: float, start: Floats | None = None) -> JumpModel:
    """Model with the lowest objective among the starts; the first one of equals.

    Args:
        values: standardised features in time order, finite, shape (n_rows, n_features).
        draws: uniform random numbers in [0, 1), shape (n_starts, n_states): one start of k-means++ each.
        penalty: cost of a change of state, at least 0, in units of the objective.
        start: centroids of one more start, finite, shape (n_states, n_features).
    """
    values = np.ascontiguousarray(values)
    best: JumpModel | None = None
    starts = [] if start is None else [np.ascontiguousarray(start)]
    for centroids in (*starts, *(spread_centroids(values, each) for each in draws)):
        fitted = JumpModel(*_descend(values, centroids, penalty))
        if best is None or fitted.objective < best.objective:
            best = fitted
    if best is None:
        raise ValueError("a jump model needs at least one start")
    return best


def matched(centroids: Floats, former: Floats) -> Floats:
    """Centroids in the order of the nearest former ones, with the lowest sum of squared distances.

    Args:
        centroids: shape (n_states, n_features); NaN for a state without a row, which takes the former place.
        former: finite, shape (n_states, n_features).
    """
    # a state without a row is as near to one as to another
    square = np.nan_to_num(np.square(centroids[:, None] - former[None]).sum(axis=2))
    states = range(len(centroids))
    order = min(permutations(states), key=lambda each: float(square[list(each), list(states)].sum()))
    ordered = centroids[list(order)]
    return np.where(np.isnan(ordered), former, ordered)


@njit(cache=True, nogil=True, error_model="numpy")
def spread_centroids(values: Floats, draws: Floats) -> Floats:
    """Rows far from each other, by k-means++: each with a probability that grows with the square of its
    distance to the nearest row drawn before (Arthur and Vassilvitskii 2007).

    Args:
        values: shape (n_rows, n_features).
        draws: uniform random numbers in [0, 1), shape (n_states,).

    Returns:
        Shape (n_states, n_features).
    """
    n_rows, n_features = values.shape
    centroids = np.empty((len(draws), n_features))
    nearest = np.empty(n_rows)
    for other in range(n_rows):
        nearest[other] = np.inf
    row = int(draws[0] * n_rows)
    for state in range(len(draws)):
        if state:
            total = 0.0
            for other in range(n_rows):
                total += nearest[other]
            target = draws[state] * total
            row = 0
            passed = nearest[0]
            while passed <= target and row < n_rows - 1:
                row += 1
                passed += nearest[row]
        for feature in range(n_features):
            centroids[state, feature] = values[row, feature]
        for other in range(n_rows):
            distance = 0.0
            for feature in range(n_features):
                distance += (values[other, feature] - values[row, feature]) ** 2
            nearest[other] = min(nearest[other], distance)
    return centroids


@njit(cache=True, nogil=True, error_model="numpy")
def losses_of(values: Floats, centroids: Floats) -> Floats:
    """Half the squared distance of each row to each centroid, shape (n_rows, n_states); infinite for a
    centroid with a NaN."""
    losses = np.empty((len(values), len(centroids)))
    for row in range(len(values)):
        for state in range(len(centroids)):
            total = 0.0
            for feature in range(values.shape[1]):
                total += (values[row, feature] - centroids[state, feature]) ** 2
            losses[row, state] = np.inf if np.isnan(total) else 0.5 * total
    return losses


@njit(cache=True, nogil=True, error_model="numpy")
def forward_losses(losses: Floats, penalty: float) -> Floats:
    """Lowest objective of all sequences up to each row that end in each state.

    The state with the lowest value is the label online: a row's values use the rows up to it only.

    Args:
        losses: loss of each row in each state, shape (n_rows, n_states); infinite for a state out of reach.

    Returns:
        Shape (n_rows, n_states).
    """
    n_rows, n_states = losses.shape
    totals = np.empty((n_rows, n_states))
    for state in range(n_states):
        totals[0, state] = losses[0, state]
    for row in range(1, n_rows):
        lowest = totals[row - 1, 0]
        for state in range(1, n_states):
            lowest = min(lowest, totals[row - 1, state])
        changed = lowest + penalty
        for state in range(n_states):
            totals[row, state] = losses[row, state] + min(totals[row - 1, state], changed)
    return totals


@njit(cache=True, nogil=True, error_model="numpy")
def optimal_states(losses: Floats, penalty: float) -> tuple[States, float]:
    """Sequence with the lowest sum of losses and penalties, by dynamic programming, and the sum.

    Args:
        losses: shape (n_rows, n_states), n_rows of at least 1.
    """
    totals = forward_losses(losses, penalty)
    n_rows, n_states = losses.shape
    states = np.empty(n_rows, dtype=np.int64)
    states[-1] = 0
    lowest = totals[-1, 0]
    for state in range(1, n_states):
        if totals[-1, state] < lowest:
            lowest = totals[-1, state]
            states[-1] = state
    for row in range(n_rows - 1, 0, -1):
        least = np.inf
        for state in range(n_states):
            total = totals[row - 1, state]
            if state != states[row]:
                total += penalty
            if total < least:
                least = total
                states[row - 1] = state
    return states, lowest


@njit(cache=True, nogil=True, error_model="numpy")
def _descend(values: Floats, centroids: Floats, penalty: float) -> tuple[Floats, States, float]:
    """Centroids, states and objective at the local minimum reached from the centroids."""
    states, objective = optimal_states(losses_of(values, centroids), penalty)
    for _ in range(MAX_ROUNDS):
        centroids = _means(values, states, len(centroids))
        next_states, lower = optimal_states(losses_of(values, centroids), penalty)
        unchanged = _equal(next_states, states) or not objective - lower > TOLERANCE
        states = next_states
        objective = lower
        if unchanged:
            break
    return centroids, states, objective


@njit(cache=True, nogil=True, error_model="numpy")
def _equal(states: States, others: States) -> bool:
    differing = 0
    for row in range(len(states)):
        differing += states[row] != others[row]
    return differing == 0


@njit(cache=True, nogil=True, error_model="numpy")
def _means(values: Floats, states: States, n_states: int) -> Floats:
    """Mean of the rows of each state, shape (n_states, n_features); NaN for a state without a row."""
    sums = np.zeros((n_states, values.shape[1]))
    counts = np.zeros(n_states)
    for row in range(len(values)):
        counts[states[row]] += 1.0
        for feature in range(values.shape[1]):
            sums[states[row], feature] += values[row, feature]
    for state in range(n_states):
        for feature in range(values.shape[1]):
            sums[state, feature] = sums[state, feature] / counts[state] if counts[state] else np.nan
    return sums
