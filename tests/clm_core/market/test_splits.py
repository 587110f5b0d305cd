from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clm_core.domain.errors import NotEnoughBars
from clm_core.market.splits import purged_tail, walk_forward

Rows = NDArray[np.int64]


def ends(n: int, horizon: int) -> Rows:
    """Labels that end `horizon` rows later, undefined where the rows end before."""
    rows = np.arange(n)
    return np.where(rows + horizon < n, rows + horizon, -1)


@st.composite
def label_ends(draw: st.DrawFn) -> Rows:
    """Labels of any length up to 12, a few of them undefined."""
    n = draw(st.integers(40, 200))
    lengths = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 13, n)
    return np.where((lengths > 0) & (np.arange(n) + lengths < n), np.arange(n) + lengths, -1)


def test_folds_train_on_the_past_and_test_the_next_rows() -> None:
    first, second = walk_forward(ends(20, horizon=2), n_splits=2, test_bars=4, embargo=1)

    # tests begin at 12: labels must end before 11
    assert first.train.tolist() == list(range(9))
    assert first.test == slice(12, 16)
    assert second.train.tolist() == list(range(13))
    assert second.test == slice(16, 20)


def test_a_rolling_window_forgets_the_oldest_rows() -> None:
    first, second = walk_forward(ends(20, horizon=2), n_splits=2, test_bars=4, embargo=1, train_bars=6)

    assert first.train.tolist() == [5, 6, 7, 8]
    assert second.train.tolist() == [9, 10, 11, 12]


@settings(deadline=None, max_examples=100)
@given(
    label_end=label_ends(),
    n_splits=st.integers(1, 5),
    test_bars=st.integers(1, 10),
    embargo=st.integers(0, 10),
    train_bars=st.none() | st.integers(5, 40),
)
def test_no_label_trained_on_reaches_the_test_or_its_embargo(
    label_end: Rows, n_splits: int, test_bars: int, embargo: int, train_bars: int | None
) -> None:
    try:
        folds = walk_forward(label_end, n_splits, test_bars, embargo, train_bars)
    except NotEnoughBars:
        assume(False)
    n = len(label_end)

    assert len(folds) == n_splits
    assert folds[-1].test.stop == n
    for earlier, later in pairwise(folds):
        assert earlier.test.stop == later.test.start
    for fold in folds:
        start = fold.test.start - embargo
        oldest = 0 if train_bars is None else start - train_bars
        allowed = [row for row in range(oldest, n) if 0 <= label_end[row] < start]
        assert fold.train.tolist() == allowed


@pytest.mark.parametrize(
    ("n", "arguments", "message"),
    [
        (20, (5, 4, 0, None), "5 folds of 4 bars need 21 bars, there are 20"),
        (20, (2, 4, 3, 10), "2 folds of 4 bars need 21 bars, there are 20"),
        (0, (1, 1, 0, None), "1 folds of 1 bars need 2 bars, there are 0"),
        (20, (2, 4, 10, None), "no label ends before row 2"),
    ],
    ids=["expanding", "rolling", "empty", "all purged"],
)
def test_too_few_bars_are_refused_with_what_is_needed(
    n: int, arguments: tuple[int, int, int, int | None], message: str
) -> None:
    with pytest.raises(NotEnoughBars, match=message):
        walk_forward(ends(n, horizon=2), *arguments)


@pytest.mark.parametrize(
    ("n_splits", "test_bars", "embargo", "train_bars"),
    [(0, 4, 0, None), (2, 0, 0, None), (2, 4, -1, None), (2, 4, 0, 0)],
)
def test_a_split_into_nothing_is_refused(
    n_splits: int, test_bars: int, embargo: int, train_bars: int | None
) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        walk_forward(ends(20, horizon=2), n_splits, test_bars, embargo, train_bars)


def test_the_newest_labelled_rows_validate_and_the_labels_fitted_on_end_before_them() -> None:
    tail = purged_tail(ends(22, horizon=2), fraction=0.2, embargo=1)

    # 20 rows have a label, the last 4 validate from row 16 on: labels must end before 15
    assert tail.validation.tolist() == [16, 17, 18, 19]
    assert tail.fit.tolist() == list(range(13))


@settings(deadline=None, max_examples=100)
@given(label_end=label_ends(), fraction=st.floats(0.05, 0.6), embargo=st.integers(0, 10))
def test_fit_and_validation_share_no_bar_of_any_label(label_end: Rows, fraction: float, embargo: int) -> None:
    try:
        tail = purged_tail(label_end, fraction, embargo)
    except NotEnoughBars:
        assume(False)
    labelled = np.flatnonzero(label_end >= 0)

    assert (label_end[tail.fit] < tail.validation[0] - embargo).all()
    assert np.array_equal(tail.validation, labelled[labelled >= tail.validation[0]])
    assert abs(len(tail.validation) - fraction * len(labelled)) <= 1


@settings(deadline=None, max_examples=100)
@given(
    members=st.lists(label_ends(), min_size=2, max_size=4),
    starts=st.lists(st.integers(0, 60), min_size=4, max_size=4),
    fraction=st.floats(0.05, 0.6),
)
def test_no_label_fitted_of_any_symbol_reaches_the_validation_of_another(
    members: list[Rows], starts: list[int], fraction: float
) -> None:
    """Rows of several symbols in sequence, with places on a common axis."""
    shifts = starts[: len(members)]
    label_end = np.concatenate(
        [np.where(end >= 0, end + shift, -1) for end, shift in zip(members, shifts, strict=True)]
    )
    at = np.concatenate([np.arange(len(end)) + shift for end, shift in zip(members, shifts, strict=True)])
    try:
        tail = purged_tail(label_end, fraction, embargo=2, at=at)
    except NotEnoughBars:
        assume(False)
    first = at[tail.validation].min()

    assert (label_end[tail.fit] < first - 2).all()
    # a moment is not divided: each labelled row from the first moment on validates
    assert np.array_equal(tail.validation, np.flatnonzero((label_end >= 0) & (at >= first)))
    assert len(tail.validation) >= int(fraction * np.count_nonzero(label_end >= 0))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_that_leaves_a_part_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        purged_tail(ends(20, horizon=2), fraction, embargo=0)


@pytest.mark.parametrize(
    ("n", "fraction", "embargo"),
    [(6, 0.2, 0), (2, 0.5, 0), (20, 0.2, 15)],
    ids=["no validation", "no label", "no fit"],
)
def test_a_window_too_short_to_set_a_tail_apart_is_refused(n: int, fraction: float, embargo: int) -> None:
    with pytest.raises(NotEnoughBars):
        purged_tail(ends(n, horizon=2), fraction, embargo)


def test_a_negative_embargo_is_refused() -> None:
    with pytest.raises(ValueError, match="embargo"):
        purged_tail(ends(20, horizon=2), 0.2, embargo=-1)
