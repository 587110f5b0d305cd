from pathlib import Path

import pandas as pd
import pytest

from clm_core.domain.errors import DataError, InvalidBars
from clm_core.market.reading import Layout, read_bars

HEADER = "open,high,low,close,volume"
VALUES = "100.1,101,99,100.30000000000001,5"
FIRST = pd.Timestamp("2024-01-01 00:00", tz="UTC")
SECOND = pd.Timestamp("2024-01-01 01:00", tz="UTC")


def written(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "bars.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def refusal_of(path: Path, layout: Layout = Layout(), symbol: str = "BTCUSD") -> str:  # noqa: B008
    with pytest.raises(InvalidBars) as refusal:
        read_bars(path, symbol, layout)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("column", "first", "second", "layout"),
    [
        pytest.param("timestamp", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", {}, id="ISO with Z"),
        pytest.param("Date", "2024-01-01 01:00+01:00", "2024-01-01 02:00+01:00", {}, id="ISO with an offset"),
        pytest.param("unix", "1704067200", "1704070800", {}, id="seconds"),
        pytest.param("unix", "1704067200.0", "1704070800.0", {}, id="seconds as decimals"),
        pytest.param("Open Time", "1704067200000", "1704070800000", {}, id="milliseconds"),
        pytest.param("open_time", "1704067200000000", "1704070800000000", {}, id="microseconds"),
        pytest.param("ts", "1704067200000000000", "1704070800000000000", {}, id="nanoseconds"),
        pytest.param("Time", "2024-01-01 00:00", "2024-01-01 01:00", {"timezone": "UTC"}, id="zone passed"),
        pytest.param(
            "Time",
            "2023-12-31 19:00",
            "2023-12-31 20:00",
            {"timezone": "America/New_York"},
            id="another zone passed",
        ),
        pytest.param(
            "<DATE>",
            "01.01.2024 12-AM",
            "01.01.2024 01-AM",
            {"time_format": "%d.%m.%Y %I-%p", "timezone": "UTC"},
            id="format passed",
        ),
        pytest.param("when", "1704067200", "1704070800", {"time_column": "When"}, id="column passed"),
    ],
)
def test_well_known_spellings_of_time_are_understood(tmp_path, column, first, second, layout):
    path = written(tmp_path, f"{column},{HEADER}", f"{first},{VALUES}", f"{second},{VALUES}")
    frame = read_bars(path, "BTCUSD", Layout(**layout))
    assert frame["timestamp"].tolist() == [FIRST, SECOND]


@pytest.mark.parametrize("header", ["Open,High,Low,Close,Volume", "o,h,l,c,v", "OPEN,HIGH,LOW,CLOSE,VOL"])
def test_columns_are_known_by_any_case_or_letter_and_values_to_the_last_digit(tmp_path, header):
    path = written(tmp_path, f"unix,{header},extra", f"1704067200,{VALUES},x")
    frame = read_bars(path, "BTCUSD", Layout())
    assert frame.drop(columns="timestamp").to_dict("records") == [
        {"open": 100.1, "high": 101, "low": 99, "close": 100.30000000000001, "volume": 5}
    ]


@pytest.mark.parametrize(
    ("symbol", "other", "volume"),
    [
        pytest.param("BTC/USD", "Volume USD", 5, id="quote volume beside it"),
        pytest.param("BTCUSD", "volume_btc", 7, id="base volume beside it"),
    ],
)
def test_the_volume_of_the_base_asset_is_taken(tmp_path, symbol, other, volume):
    path = written(tmp_path, f"unix,{HEADER},{other}", f"1704067200,{VALUES},7")
    assert read_bars(path, symbol, Layout())["volume"].tolist() == [volume]


def test_two_time_columns_that_agree_are_one(tmp_path):
    path = written(tmp_path, f"unix,date,{HEADER}", f"1704067200,2024-01-01 00:00:00,{VALUES}")
    assert read_bars(path, "BTCUSD", Layout())["timestamp"].tolist() == [FIRST]


@pytest.mark.parametrize(
    ("header", "row", "answer"),
    [
        pytest.param(
            f"unix,date,{HEADER}", f"1704067200,2024-01-01 05:00,{VALUES}", "--time-column", id="two times"
        ),
        pytest.param(
            f"unix,{HEADER},volume_eth", f"1704067200,{VALUES},7", "--volume-column", id="two volumes"
        ),
        pytest.param(f"date,{HEADER}", f"01/02/2024,{VALUES}", "--time-format", id="day or month first"),
        pytest.param(f"date,{HEADER}", f"13/02/2024,{VALUES}", "--time-format '%d/%m/%Y'", id="day first"),
        pytest.param("date,price", "2024-01-01,5", "missing-columns", id="no open"),
        pytest.param(HEADER, VALUES, "missing-columns", id="no time"),
        pytest.param(f"unix,{HEADER},Close", f"1704067200,{VALUES},7", "ambiguous-columns", id="two closes"),
        pytest.param(
            "# a line above,,\nunix", "1704067200", "lines above the header", id="a line above the header"
        ),
    ],
)
def test_an_ambiguous_file_is_refused_and_the_remedy_named(tmp_path, header, row, answer):
    assert answer in refusal_of(written(tmp_path, header, row))


def test_units_that_change_within_a_file_are_refused(tmp_path):
    path = written(tmp_path, f"unix,{HEADER}", f"1704067200000,{VALUES}", f"1704070800000000,{VALUES}")
    assert "mixed-time-units" in refusal_of(path)


def test_zones_that_are_given_for_some_rows_only_are_refused(tmp_path):
    path = written(tmp_path, f"time,{HEADER}", f"2024-01-01 00:00Z,{VALUES}", f"2024-01-01 01:00,{VALUES}")
    assert "mixed-time-zones" in refusal_of(path)


def test_a_clock_that_was_put_back_leaves_no_guess(tmp_path):
    """02:30 occurred twice in Berlin on 2023-10-29: the time is ambiguous."""
    rows = [f"2023-10-29 {hour},{VALUES}" for hour in ("01:30", "02:30")]
    path = written(tmp_path, f"time,{HEADER}", *rows)
    assert "ambiguous-time (1 rows, first [1])" in refusal_of(path, Layout(timezone="Europe/Berlin"))


def test_an_unknown_time_zone_is_refused(tmp_path):
    path = written(tmp_path, f"time,{HEADER}", f"2024-01-01,{VALUES}")
    with pytest.raises(DataError, match="America/New_York"):
        read_bars(path, "BTCUSD", Layout(timezone="Berlin"))


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_parquet_and_feather_are_read_as_csv_is(tmp_path, kind):
    path = written(tmp_path, f"time,{HEADER}", f"2024-01-01T00:00Z,{VALUES}")
    frame = read_bars(path, "BTCUSD", Layout())
    getattr(frame, f"to_{kind}")(tmp_path / f"bars.{kind}")
    pd.testing.assert_frame_equal(read_bars(tmp_path / f"bars.{kind}", "BTCUSD", Layout()), frame)


def test_a_parquet_file_indexed_by_time_is_read(tmp_path):
    frame = read_bars(written(tmp_path, f"time,{HEADER}", f"2024-01-01T00:00Z,{VALUES}"), "BTCUSD", Layout())
    frame.set_index("timestamp").to_parquet(tmp_path / "bars.parquet")
    pd.testing.assert_frame_equal(read_bars(tmp_path / "bars.parquet", "BTCUSD", Layout()), frame)


@pytest.mark.parametrize("name", ["bars.parquet", "bars.feather", "bars.csv"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name == "bars.csv" else b"no such format")
    assert ("empty: " if name == "bars.csv" else "unreadable-file: ") in refusal_of(tmp_path / name)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"convert the file"):
        read_bars(tmp_path / "bars.xlsx", "BTCUSD", Layout())
