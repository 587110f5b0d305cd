"""Own series joined as known: never later, the newest event, revisions when they came, too old is unknown."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.domain.errors import DataError, InvalidSeries, SeriesMissing, UnknownFeature
from clm_core.market import own_features
from clm_core.market.bars import Bars
from clm_core.market.features import compute_features, memory_of, select_features, series_of
from clm_core.market.look_ahead import first_leak, other_futures
from clm_core.market.own_features import FeatureOrigin, OwnFeature, feature
from clm_core.market.series import KnownSeries, with_series
from clm_core.market.series_reading import SeriesLayout, duration, read_series, series_of_table

HOUR = 3_600_000_000_000


def series(
    *rows: tuple[float, float, float], max_age: float | None = None, name: str = "tone"
) -> KnownSeries:
    """Rows of event hour, hour known and value."""
    time, known, value = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    age = None if max_age is None else int(max_age * HOUR)
    return KnownSeries.of(name, (time * HOUR).astype(np.int64), (known * HOUR).astype(np.int64), value, age)


def values(known: KnownSeries, *hours: float) -> list[float | None]:
    numbers = known.at((np.array(hours) * HOUR).astype(np.int64))
    return [None if np.isnan(value) else float(value) for value in numbers]


def test_a_value_is_seen_from_the_moment_it_became_known() -> None:
    assert values(series((0, 8, 1.0), (24, 32, 2.0)), 0, 7.9, 8, 24, 31.9, 32) == [None, None, 1, 1, 1, 2]


def test_a_revision_is_seen_from_its_own_moment() -> None:
    assert values(series((0, 8, 1.0), (0, 20, 1.5)), 8, 19.9, 20) == [1, 1, 1.5]


def test_a_late_revision_of_an_older_event_does_not_replace_the_newest_event() -> None:
    assert values(series((0, 8, 1.0), (24, 32, 2.0), (0, 40, 1.5)), 32, 40, 100) == [2, 2, 2]


def test_a_value_older_than_the_limit_is_unknown_again() -> None:
    assert values(series((0, 8, 1.0), (24, 60, 2.0), max_age=36), 8, 44, 44.1, 60) == [1, 1, None, 2]


def test_a_bar_sees_what_is_known_at_its_close_and_nothing_later(walk: Bars) -> None:
    close = int(walk.time[10]) + walk.timeframe.nanoseconds
    for known, first in ((close, 10), (close + 1, 11)):
        added = KnownSeries.of("tone", *(np.array([each]) for each in (known - HOUR, known)), np.array([5.0]))
        column = with_series(walk, {"tone": added}).series["tone"]
        assert np.flatnonzero(~np.isnan(column))[0] == first


rows = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(-3, 3)),
    min_size=1,
    max_size=30,
    unique_by=lambda row: (row[0], row[0] + row[1]),
)


@given(
    rows=rows,
    moments=st.lists(st.integers(-5, 110), min_size=1, max_size=20),
    age=st.none() | st.integers(0, 50),
)
def test_as_known_is_the_newest_revision_of_the_newest_event_known_by_then(
    rows: list[tuple[int, int, int]], moments: list[int], age: int | None
) -> None:
    """Against the definition, written out."""
    known = series(*((time, time + delay, value) for time, delay, value in rows), max_age=age)
    for moment, value in zip(moments, values(known, *moments), strict=True):
        visible = [(time, time + delay, each) for time, delay, each in rows if time + delay <= moment]
        expected = max(visible, default=None)
        if expected is not None and age is not None and moment - expected[1] > age:
            expected = None
        assert value == (None if expected is None else expected[2])


@given(rows=rows, moment=st.integers(0, 100))
def test_rows_known_after_a_moment_change_no_value_up_to_the_moment(
    rows: list[tuple[int, int, int]], moment: int
) -> None:
    """The contract of series as known: change, revise or remove what became known later."""
    early = [(time, time + delay, value) for time, delay, value in rows if time + delay <= moment]
    later = [(time, time + delay, value) for time, delay, value in rows if time + delay > moment]
    moved = [(time, known + 1, value + 7) for time, known, value in later]
    hours = range(moment + 1)
    if early:
        assert values(series(*early, *later), *hours) == values(series(*early, *moved), *hours)
        assert values(series(*early, *later), *hours) == values(series(*early), *hours)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([(0, 8, np.nan)], r"the value of 1970-01-01T00:00:00 UTC is not finite", id="NaN"),
        pytest.param([(8, 0, 1.0)], "became known at .* before its time", id="known before its time"),
        pytest.param(
            [(0, 8, 1.0), (0, 8, 2.0)], "two values, 1 and 2, known at the same time", id="contradiction"
        ),
    ],
)
def test_rows_that_break_a_rule_are_refused(rows: list[tuple[float, float, float]], message: str) -> None:
    with pytest.raises(InvalidSeries, match=message):
        series(*rows)


@pytest.mark.parametrize("name", ["Tone", "tone-1", "../x", "", "t" * 41])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidSeries, match="is no name of a series"):
        series((0, 8, 1.0), name=name)


def test_repeated_rows_count_once_and_the_order_does_not_matter() -> None:
    assert (
        series((0, 8, 1.0), (24, 32, 2.0)).content_hash
        == series((24, 32, 2.0), (0, 8, 1.0), (24, 32, 2.0)).content_hash
    )
    assert series((0, 8, 1.0)).content_hash != series((0, 8, 1.0), max_age=36).content_hash


def test_bars_carry_series_through_slices_and_in_their_hash(walk: Bars) -> None:
    joined = with_series(walk, {"tone": daily(walk)})

    assert np.array_equal(joined[5:50].series["tone"], joined.series["tone"][5:50], equal_nan=True)
    assert joined.content_hash != walk.content_hash
    assert replace(joined, series={}).content_hash == walk.content_hash
    assert joined.under(1).series.keys() == {"tone"}
    with pytest.raises(ValueError, match="read-only"):
        joined.series["tone"][0] = 1.0
    with pytest.raises(ValueError, match="the series tone has 3 values for 900 bars"):
        replace(walk, series={"tone": np.ones(3)})


def daily(bars: Bars) -> KnownSeries:
    """A value a day, known six hours later, from the second day of the bars on."""
    time = np.arange(int(bars.time[24]), int(bars.time[-1]), 24 * HOUR)
    return KnownSeries.of("tone", time, time + 6 * HOUR, np.sin(np.arange(len(time))))


def test_the_value_of_a_series_is_a_feature_after_all_others(walk: Bars) -> None:
    joined = with_series(walk, {"tone": daily(walk)})
    table = compute_features(joined, ["series.tone", "body"])

    assert table.names == ("body", "series.tone")
    assert np.array_equal(table.values[:, 1], joined.series["tone"], equal_nan=True)
    assert not table.complete[:24].any()
    assert table.complete[40:].all()
    assert memory_of(["series.tone"]) == 0
    assert series_of(["series.tone", "body"]) == ("tone",)


def test_bars_without_the_series_are_refused_with_what_to_pass(walk: Bars) -> None:
    with pytest.raises(
        SeriesMissing, match=r"uses the series tone.*columns time, known and value.*series.tone"
    ):
        compute_features(walk, ["series.tone"])


def test_a_malformed_name_of_a_series_is_an_unknown_feature(walk: Bars) -> None:
    with pytest.raises(UnknownFeature, match=r"no feature is called series\.\.\./x"):
        select_features(["series.../x"])


def of(function: object, **declared: object) -> OwnFeature:
    made = feature(**{"warm_up": 0, "name": "tried", **declared})(function)  # type: ignore[arg-type]
    return OwnFeature(made, FeatureOrigin(name="tried", source="t.py", function="tried", digest="0" * 64))


def test_a_function_takes_declared_series_as_its_second_argument(walk: Bars) -> None:
    joined = with_series(walk, {"tone": daily(walk), "other": replace(daily(walk), name="other")})
    product = of(lambda bars, series: bars.close * series["tone"], series=["tone"])
    answers = product.raw(joined)

    assert product.series == ("tone",)
    assert np.array_equal(answers, joined.close * joined.series["tone"], equal_nan=True)
    undeclared = of(lambda bars: bars.close * bars.series["tone"])
    with pytest.raises(own_features.FeatureFailed, match="KeyError: 'tone'"):
        undeclared.raw(joined)
    with pytest.raises(SeriesMissing):
        product.raw(walk)


def test_a_function_that_reads_a_series_ahead_is_found(walk: Bars) -> None:
    joined = with_series(walk, {"tone": daily(walk)})
    ahead = of(lambda bars, series: np.append(series["tone"][1:], np.nan), series=["tone"])
    behind = of(lambda bars, series: np.append(np.nan, series["tone"][:-1]), series=["tone"], warm_up=1)

    assert first_leak(ahead.raw, joined, [200, 450, 700]) is not None
    assert first_leak(behind.raw, joined, [200, 450, 700]) is None


def test_the_look_ahead_test_changes_later_values_of_a_series_and_no_earlier_ones(walk: Bars) -> None:
    joined = with_series(walk, {"tone": daily(walk)})
    before = joined.series["tone"]
    for change, changed in other_futures(joined, 300):
        after = changed.series["tone"]
        assert np.array_equal(after[:301], before[:301], equal_nan=True), change
        if change in {"multiplied", "flattened", "reversed"}:
            assert not np.array_equal(after[301:], before[301:], equal_nan=True), change


CSV = """date,rate,released
2024-01-01,0.5,2024-01-03T08:00Z
2024-01-02,0.7,2024-01-04T08:00Z
2024-01-01,0.6,2024-01-10T08:00Z
"""


def test_a_file_is_read_with_its_column_of_the_time_known() -> None:
    layout = SeriesLayout(known_column="released", timezone="UTC")
    read = read_series("tone", "tone.csv", CSV.encode(), layout)

    assert [f"{moment}" for moment in pd.to_datetime(read.known)] == [
        "2024-01-03 08:00:00",
        "2024-01-04 08:00:00",
        "2024-01-10 08:00:00",
    ]
    assert read.value.tolist() == [0.5, 0.7, 0.6]


def test_a_file_without_the_time_known_is_refused_with_both_remedies_and_a_delay_is_taken() -> None:
    without = "time,value\n1704067200000,1\n1704153600000,2\n"
    with pytest.raises(
        InvalidSeries, match=r"time each value became known.*--known-column COLUMN.*--known-after 8h"
    ):
        read_series("tone", "tone.csv", without.encode(), SeriesLayout())
    read = read_series("tone", "tone.csv", without.encode(), SeriesLayout(known_after=duration("8h")))
    assert (read.known - read.time).tolist() == [8 * HOUR] * 2


@pytest.mark.parametrize(
    ("content", "layout", "message"),
    [
        pytest.param(CSV, {"known_column": "released"}, "no zone: pass --timezone", id="no zone"),
        pytest.param(
            CSV, {"known_column": "gone", "timezone": "UTC"}, "no column gone among date", id="column"
        ),
        pytest.param(
            CSV.replace("0.7", "n/a"), {"known_column": "released", "timezone": "UTC"}, "no finite", id="NaN"
        ),
        pytest.param(
            CSV.replace("rate", "x"), {"known_column": "released"}, "--value-column COLUMN", id="values"
        ),
        pytest.param("", {}, "it is not readable: No columns", id="empty"),
        pytest.param(
            CSV,
            {"known_column": "released", "known_after": 1, "timezone": "UTC"},
            "contradict each other",
            id="both",
        ),
    ],
)
def test_an_unclear_file_is_refused_with_the_remedy(
    content: str, layout: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidSeries, match=message):
        read_series("tone", "tone.csv", content.encode(), SeriesLayout(**layout))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["8", "h", "-1h", "8 weeks", ""])
def test_a_duration_needs_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(DataError, match="write 30s, 90m, 8h or 2d"):
        duration(text)


def test_a_table_of_a_trader_is_read_by_its_columns() -> None:
    time = pd.to_datetime(["2024-01-01", "2024-01-02"])
    table = pd.DataFrame({"time": time, "known": time + pd.Timedelta("6h"), "value": [1, 2]})

    assert series_of_table("tone", table).value.tolist() == [1.0, 2.0]
    with pytest.raises(InvalidSeries, match="no column known: give time, known and value"):
        series_of_table("tone", table.drop(columns="known"))
