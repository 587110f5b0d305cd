import numpy as np
import pandas as pd
import pytest

from clm_core.backtest.equity_picture import MAX_TIMES, time_marks, value_marks


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [
        (
            "2019-03-31",
            "2019-10-18",
            ["2019-04", "2019-05", "2019-06", "2019-07", "2019-08", "2019-09", "2019-10"],
        ),
        ("2015-06-01", "2022-02-01", ["2016", "2017", "2018", "2019", "2020", "2021", "2022"]),
        ("2024-02-28 12:00", "2024-03-02", ["2024-02-29", "2024-03-01", "2024-03-02"]),
        ("2024-01-01", "2024-01-01", ["01-01 00:00"]),
    ],
    ids=["months", "years", "a leap day", "a single bar"],
)
def test_times_are_labelled_at_the_begin_of_calendar_periods(
    first: str, last: str, labels: list[str]
) -> None:
    begin = pd.Timestamp(first).value
    end = pd.Timestamp(last).value
    assert [label for _, label in time_marks(begin, end)] == labels


@pytest.mark.parametrize("days", [0.01, 0.3, 2, 12, 90, 700, 3_000, 20_000])
def test_labels_of_any_span_are_few_and_lie_within(days: float) -> None:
    first = pd.Timestamp("1999-12-31 23:59").value
    last = first + int(days * 86_400e9)
    times = [time for time, _ in time_marks(first, last)]
    assert len(times) <= MAX_TIMES
    assert all(first <= time <= last for time in times)


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (3_120.0, 12_430.0, [4_000, 6_000, 8_000, 10_000, 12_000]),
        (-0.0105, 0.0, [-0.01, -0.008, -0.006, -0.004, -0.002, 0.0]),
        (9_999.995, 10_000.005, [9_999.996, 9_999.998, 10_000, 10_000.002, 10_000.004]),
    ],
    ids=["thousands", "a hundredth", "almost nothing"],
)
def test_values_are_labelled_in_round_steps(low: float, high: float, marks: list[float]) -> None:
    assert np.allclose(value_marks(low, high, 6), marks)
