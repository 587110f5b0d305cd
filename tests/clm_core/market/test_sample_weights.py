"""Uniqueness and age of labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.market.sample_weights import age_weights, average_uniqueness


def by_loop(rows: list[int], end: list[int]) -> list[float]:
    """The definition: the mean, over the bars of a label, of 1 over the number of labels on the bar."""
    spans = [range(row + 1, last + 1) for row, last in zip(rows, end, strict=True)]
    return [float(np.mean([1 / sum(bar in other for other in spans) for bar in span])) for span in spans]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=30))
def test_uniqueness_equals_the_definition(steps: list[tuple[int, int]]) -> None:
    rows = np.cumsum([step for step, _ in steps])
    end = rows + [length for _, length in steps]
    assert average_uniqueness(rows, end) == pytest.approx(by_loop(rows.tolist(), end.tolist()))


def test_labels_apart_are_unique_and_the_same_label_many_times_is_worth_one() -> None:
    apart = np.arange(0, 50, 10)
    assert average_uniqueness(apart, apart + 5).tolist() == [1.0] * 5
    assert average_uniqueness(np.zeros(4, dtype=int), np.full(4, 8)).sum() == pytest.approx(1.0)


def test_labels_of_every_bar_tell_as_much_as_labels_of_every_horizon() -> None:
    rows = np.arange(24_000)
    assert average_uniqueness(rows, rows + 24).sum() == pytest.approx(1_000, rel=0.01)


def test_no_label_has_no_weight() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert not len(average_uniqueness(nothing, nothing))
    assert not len(age_weights(nothing, 5.0))


def test_a_row_a_half_life_older_weighs_half() -> None:
    assert age_weights(np.array([0, 50, 90, 100]), 50.0) == pytest.approx([0.25, 0.5, 2**-0.2, 1.0])
