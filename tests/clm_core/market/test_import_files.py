"""Files as they are downloaded: those from the field, and one of each usual layout.

The prices are those of public markets. A refused file is imported by the remedy of its refusal.
"""

import gzip
import io
import re
import shlex
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from clm_core.cli import data
from clm_core.cli.data import app
from clm_core.domain.errors import DataError, InvalidBars, InvalidSymbol
from clm_core.market.bar_rules import FIXED, OVERRULABLE
from clm_core.market.reading import Layout
from clm_core.market.sources import MarketData, SeriesInfo
from clm_core.market.timeframes import Timeframe

ROOT = Path(__file__).parents[3]
FIELD = ROOT / "tests/data/field"
FORMATS = ROOT / "tests/data/formats"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Import:
    """`clm data import` in a home of its own; an error is raised, as for `main`, which prints it."""

    home: Path

    def __call__(self, words: str) -> SeriesInfo:
        file, *options = shlex.split(words)
        path = next(
            folder / file for folder in (FIELD, FORMATS, self.home.parent) if (folder / file).exists()
        )
        CliRunner().invoke(app, ["import", str(path), *options], catch_exceptions=False)
        symbol = options[options.index("--symbol") + 1]
        timeframe = options[options.index("--timeframe") + 1]
        info = MarketData(self.home).stored(symbol, timeframe)
        assert info is not None
        return info


@pytest.fixture
def clm_import(tmp_path, monkeypatch) -> Import:
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(data, "console", Console(width=240))
    return Import(tmp_path / "home")


HOURLY = "--symbol BTCUSDT --timeframe 1h"
DAILY = "--symbol SPY --timeframe 1d"
EURO = "--symbol EURUSD --timeframe 1h"


@pytest.mark.parametrize(
    ("words", "bars", "first", "last"),
    [
        (f"01_binance_spot_headerless_us.csv {HOURLY}", 50, "2025-03-01 00:00", "2025-03-03 01:00"),
        (f"02_yfinance_multiindex.csv {DAILY}", 50, "2020-01-02 00:00", "2020-03-13 00:00"),
        (f"03_yfinance_history_offsets.csv {DAILY}", 119, "2020-01-02 00:00", "2020-06-22 00:00"),
        (
            f"03_yfinance_history_offsets.csv {DAILY} --time-format '%Y-%m-%d %H:%M:%S%z'",
            119,
            "2020-01-02 00:00",
            "2020-06-22 00:00",
        ),
        ("04_mt5_export_tab.csv --symbol BTCUSD --timeframe 1h", 49, "2025-03-01 00:00", "2025-03-03 00:00"),
        (f"05_semicolon_decimal_comma.csv {HOURLY}", 49, "2025-03-01 00:00", "2025-03-03 00:00"),
        (f"09a_spy_first_download.csv {DAILY}", 60, "2021-01-05 00:00", "2021-03-31 00:00"),
        ("11_thin_market_1m.csv --symbol XYZUSDT --timeframe 1m", 90, "2025-03-01 00:00", "2025-03-01 01:29"),
        (f"13_nameless_index.csv {DAILY}", 59, "2021-01-05 00:00", "2021-03-30 00:00"),
        (
            "14_daily_cut_at_0800utc.csv --symbol BTCUSDT --timeframe 1d --by-date",
            60,
            "2025-03-03 00:00",
            "2025-05-01 00:00",
        ),
        (f"yahoo_history.csv {DAILY}", 34, "2020-02-03 00:00", "2020-03-20 00:00"),
        (f"yfinance_by_ticker.csv {DAILY}", 34, "2020-02-03 00:00", "2020-03-20 00:00"),
        (f"yfinance_two_tickers.csv {DAILY}", 34, "2020-02-03 00:00", "2020-03-20 00:00"),
        (f"binance_spot_ms.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"binance_spot_us.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"binance_futures_header.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"kraken_ohlcvt.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"metatrader4.csv {EURO}", 48, "2017-01-03 00:00", "2017-01-04 23:00"),
        (f"metatrader4.csv {EURO} --timezone Europe/Athens", 48, "2017-01-02 22:00", "2017-01-04 21:00"),
        (f"metatrader5.csv {EURO}", 48, "2017-01-03 00:00", "2017-01-04 23:00"),
        (f"metatrader5_daily.csv {DAILY}", 34, "2020-02-03 00:00", "2020-03-20 00:00"),
        ("histdata_m1.csv --symbol EURUSD --timeframe 1m", 60, "2024-01-02 22:00", "2024-01-02 22:59"),
        (f"stooq_daily.csv {DAILY}", 34, "2020-02-03 00:00", "2020-03-20 00:00"),
        ("stooq_daily_bulk.txt --symbol SPY.US --timeframe 1d", 34, "2020-02-03 00:00", "2020-03-20 00:00"),
        (f"tradingview_epoch.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"tradingview_iso.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"alpaca_hourly.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"repeated_header.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"date_and_time.csv {HOURLY} --timezone UTC", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"first_wick.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (f"rounded_high.csv {HOURLY}", 48, "2025-03-01 00:00", "2025-03-02 23:00"),
        (
            f"local_autumn.csv {HOURLY} --timezone America/New_York",
            24,
            "2024-11-03 00:00",
            "2024-11-03 23:00",
        ),
        (
            f"local_spring.csv {HOURLY} --timezone America/New_York",
            24,
            "2024-03-10 00:00",
            "2024-03-10 23:00",
        ),
        (f"five_minutes.csv {HOURLY.replace('1h', '5min')}", 48, "2024-01-02 00:00", "2024-01-02 03:55"),
    ],
)
def test_a_usual_file_goes_in_whole(clm_import, words, bars, first, last):
    info = clm_import(words)
    assert (info.bars, f"{info.start:%Y-%m-%d %H:%M}", f"{info.end:%Y-%m-%d %H:%M}") == (bars, first, last)


@pytest.mark.parametrize(
    ("words", "rule", "cause", "remedy", "bars"),
    [
        pytest.param(
            f"06a_symbol_column_says_ETHUSDT.csv {HOURLY}",
            "other-symbol",
            "column symbol says ETHUSDT",
            "--allow other-symbol",
            59,
        ),
        pytest.param(
            f"07_daily_bars_declared_1h.csv {HOURLY}",
            "other-spacing",
            "the bars are a day apart",
            "--timeframe 1d",
            120,
        ),
        pytest.param(
            f"07_daily_bars_declared_1h.csv {HOURLY}", "other-spacing", "", "--allow other-spacing", 120
        ),
        pytest.param(
            "08_unadjusted_split_10to1.csv --symbol NVDA --timeframe 1d",
            "looks-like-split",
            "a split of 10:1 on 2020-04-03",
            "--allow looks-like-split",
            100,
        ),
        pytest.param(
            f"14_daily_cut_at_0800utc.csv {HOURLY.replace('1h', '1d')}",
            "wrong-time-zone",
            "1d bars open 8 h past the UTC grid",
            "--by-date",
            60,
        ),
        pytest.param(
            f"14_daily_cut_at_0800utc.csv {HOURLY.replace('1h', '1d')}",
            "wrong-time-zone",
            "",
            "--allow wrong-time-zone",
            60,
        ),
        pytest.param(
            "yfinance_two_tickers.csv --symbol DIA --timeframe 1d",
            "other-symbol",
            "the header names QQQ, SPY, not DIA",
            "--rows-of QQQ",
            34,
        ),
        pytest.param(
            f"two_symbols.csv {HOURLY}",
            "other-symbol",
            "says ETHUSDT from row 24 on",
            "--rows-of BTCUSDT",
            24,
        ),
        pytest.param(f"stooq_daily_bulk.txt {DAILY}", "other-symbol", "SPY.US", "--allow other-symbol", 34),
        pytest.param(
            f"stooq_hourly_bulk.txt {EURO}", "unknown-time-zone", "no time zone", "--timezone UTC", 48
        ),
        pytest.param(
            f"two_closes.csv {HOURLY}",
            "ambiguous-columns",
            "close, close: which is the close?",
            "--column close=5",
            48,
        ),
        pytest.param(f"no_volume.csv {EURO}", "missing-columns", "no column for volume", "--no-volume", 48),
        pytest.param(
            f"unknown_order_headerless.csv {HOURLY}",
            "missing-columns",
            "no header line and no known layout",
            "--column time=1 --column open=4 --column high=3 --column low=2 --column close=5 "
            "--column volume=6",
            48,
        ),
        pytest.param(
            f"alpaca_daily.csv {DAILY}", "wrong-time-zone", "1d bars open 5 h past", "--by-date", 34
        ),
        pytest.param(f"tradingview_daily_session.csv {DAILY}", "off-grid", "", "--by-date", 34),
        pytest.param(
            "weekly_by_friday.csv --symbol SPY --timeframe 1w", "wrong-time-zone", "1w bars", "--by-date", 7
        ),
        pytest.param(
            f"slashes_month_first.csv {DAILY}", "unreadable-time", "", "--time-format '%m/%d/%Y'", 34
        ),
        pytest.param(
            f"decimal_comma_day_first.csv {HOURLY} --timezone UTC",
            "unreadable-time",
            "day or month first?",
            "--time-format '%d.%m.%Y %H:%M'",
            48,
        ),
        pytest.param(
            f"local_autumn_hour_once.csv {HOURLY} --timezone America/New_York",
            "ambiguous-time",
            "exists twice",
            "--allow ambiguous-time",
            23,
        ),
        pytest.param(
            f"est_spring.csv {HOURLY} --timezone America/New_York",
            "nonexistent-time",
            "2024-03-10 02:00:00 does not exist in America/New_York",
            "--timezone Etc/GMT+5",
            6,
        ),
        pytest.param(
            f"cryptodatadownload.csv {HOURLY}", "newest-first", "the newest bar comes first", "--reverse", 48
        ),
        pytest.param(
            f"reverse_split.csv {DAILY}",
            "looks-like-split",
            "1:8 on 2020-02-25",
            "--allow looks-like-split",
            34,
        ),
        pytest.param(
            f"split_three_for_two.csv {DAILY}",
            "looks-like-split",
            "3:2 on 2020-02-20",
            "--allow looks-like-split",
            34,
        ),
        pytest.param(
            f"five_minutes.csv {HOURLY.replace('1h', '1m')}",
            "other-spacing",
            "5 minutes apart",
            "--timeframe 5m",
            48,
        ),
        pytest.param(f"five_minutes.csv {HOURLY}", "other-spacing", "5 minutes apart", "--timeframe 5m", 48),
        pytest.param(
            f"binance_spot_ms.csv {HOURLY.replace('1h', '1d')}",
            "other-spacing",
            "an hour apart",
            "--timeframe 1h",
            48,
        ),
    ],
)
def test_a_refusal_names_the_cause_and_a_remedy_that_works(clm_import, words, rule, cause, remedy, bars):
    with pytest.raises(InvalidBars) as refusal:
        clm_import(words)
    assert rule in [finding.rule for finding in refusal.value.findings]
    assert cause in str(refusal.value)
    columns = "--column time=1" if remedy.startswith("--column time") else remedy
    assert columns in str(refusal.value)
    replaced = "timeframe" if remedy.startswith("--timeframe") else "timezone"
    if remedy.startswith(f"--{replaced}"):
        words = re.sub(rf" --{replaced} \S+", "", words)
    info = clm_import(f"{words} {remedy}")
    assert info.bars == bars
    assert set(info.allowed) == {remedy.split()[1] for _ in [0] if remedy.startswith("--allow")}


def test_a_header_without_a_bar_is_refused(clm_import):
    with pytest.raises(InvalidBars, match="empty: there is no bar in it"):
        clm_import(f"12_header_only.csv {HOURLY}")


def test_the_multi_index_of_yfinance_is_read_from_parquet_as_from_csv(clm_import, tmp_path):
    frame = pd.read_csv(FIELD / "02_yfinance_multiindex.csv", header=[0, 1], index_col=0, parse_dates=True)
    frame.to_parquet(tmp_path / "spy.parquet")
    assert isinstance(frame.columns, pd.MultiIndex)
    csv = clm_import(f"02_yfinance_multiindex.csv {DAILY}")
    assert clm_import(f"spy.parquet {DAILY}").content_hash == csv.content_hash


def test_a_restated_download_is_refused_with_the_stored_values(clm_import):
    clm_import(f"09a_spy_first_download.csv {DAILY}")
    with pytest.raises(InvalidBars, match=r"contradicts-store.*clm data replace SPY 1d"):
        clm_import(f"09b_spy_after_dividend_restated.csv {DAILY}")


@pytest.mark.parametrize("pack", ["gz", "zip", "utf-16", "utf-8-sig", "latin-1"])
def test_packed_and_differently_encoded_files_are_read(clm_import, tmp_path, pack):
    content = (FORMATS / "tradingview_iso.csv").read_bytes()
    if pack == "gz":
        (tmp_path / "bars.csv.gz").write_bytes(gzip.compress(content))
    elif pack == "zip":
        with zipfile.ZipFile(tmp_path / "bars.csv.zip", "w") as archive:
            archive.writestr("bars.csv", content)
    else:
        text = content.decode().replace("Volume", "Volume,Währung", 1).replace("\n", ",é\n")
        text = text.replace("Währung,é", "Währung", 1)
        (tmp_path / "bars.csv").write_bytes(text.encode(pack))
    name = next(path.name for path in tmp_path.glob("bars.csv*"))
    assert clm_import(f"{name} {HOURLY}").bars == 48


def test_values_and_times_of_a_headerless_dump_are_those_of_the_file(clm_import):
    clm_import(f"binance_spot_us.csv {HOURLY}")
    clm_import(f"metatrader4.csv {EURO}")
    market = MarketData(clm_import.home)
    first = market.bars("BTCUSDT", "1h", closed_by=NOW).to_frame().iloc[0]
    assert first.tolist() == [84349.95, 84628.93, 83824.78, 83857.92, 636.60016]
    pd.testing.assert_index_equal(
        market.bars("BTCUSDT", "1h", closed_by=NOW).index[:2],
        pd.DatetimeIndex(["2025-03-01 00:00Z", "2025-03-01 01:00Z"], name="timestamp", freq=None),
        exact=False,
    )


def test_the_hour_that_exists_twice_is_told_apart_by_the_order_of_the_bars(clm_import):
    clm_import(f"local_autumn.csv {HOURLY} --timezone America/New_York")
    bars = MarketData(clm_import.home).bars("BTCUSDT", "1h", closed_by=NOW)
    assert np.array_equal(np.diff(bars.time), np.full(23, Timeframe.H1.nanoseconds))


def test_a_daily_bar_stored_under_its_date_is_open_until_it_closes(clm_import, tmp_path):
    path = FIELD / "14_daily_cut_at_0800utc.csv"
    market = MarketData(tmp_path / "other")
    as_of = datetime(2025, 5, 2, 3, tzinfo=UTC)
    layout = Layout(by_date=True)
    with pytest.raises(InvalidBars, match="open-bar"):
        market.import_file(path, "BTCUSDT", "1d", now=NOW, as_of=as_of, layout=layout)
    info = market.import_file(path, "BTCUSDT", "1d", now=NOW, as_of=as_of, layout=layout, drop_open_bar=True)
    assert (info.bars, f"{info.end:%m-%d}") == (59, "04-30")


def test_overruled_rules_and_corrections_are_recorded_and_shown(clm_import):
    info = clm_import(f"06a_symbol_column_says_ETHUSDT.csv {HOURLY} --allow other-symbol")
    assert (info.allowed, info.adjusted) == ({"other-symbol": 59}, {})
    rounded = clm_import("rounded_high.csv --symbol ROUNDED --timeframe 1h")
    assert (rounded.allowed, rounded.adjusted) == ({}, {"rounded": 1})
    clm_import("metatrader4.csv --symbol EUR/USD --timeframe 1h")
    output = CliRunner().invoke(app, ["list"]).output
    assert "allowed: other-symbol (59)" in output
    assert "adjusted: rounded (1)" in output
    assert "EUR/USD from metatrader4.csv; adjusted: zone-taken-as-UTC (48)" in output
    assert "allowed: other-symbol (59)" in CliRunner().invoke(app, ["show", "BTCUSDT", "1h"]).output


def test_bars_that_broke_a_rule_knowingly_do_not_hold_up_later_imports(tmp_path):
    market = MarketData(tmp_path / "home")
    lines = (FIELD / "08_unadjusted_split_10to1.csv").read_text().splitlines()
    for name, rows in (("early.csv", lines[:61]), ("late.csv", [lines[0], *lines[56:]])):
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    early = market.import_file(tmp_path / "early.csv", "NVDA", "1d", now=NOW, allow=["looks-like-split"])
    late = market.import_file(tmp_path / "late.csv", "NVDA", "1d", now=NOW)
    assert (early.bars, late.bars, late.allowed) == (60, 100, {"looks-like-split": 1})


@pytest.mark.parametrize("rule", [*FIXED, "no-such-rule", ""])
def test_a_rule_that_cannot_be_overruled_says_why(tmp_path, rule):
    market = MarketData(tmp_path / "home")
    with pytest.raises(DataError, match=r"cannot be overruled: .+|there is no rule .* use one of"):
        market.import_file(FORMATS / "kraken_ohlcvt.csv", "BTCUSDT", "1h", now=NOW, allow=[rule])


def test_a_rule_is_either_overrulable_or_has_a_reason_why_not():
    assert not set(OVERRULABLE) & set(FIXED)


def test_markets_whose_names_would_collide_are_refused_by_name(tmp_path):
    market = MarketData(tmp_path / "home")
    file = FORMATS / "kraken_ohlcvt.csv"
    spot = market.import_file(file, "BTC/USDT", "1h", now=NOW)
    perpetual = market.import_file(file, "BTC/USDT:USDT", "1h", now=NOW)
    assert [(each.symbol, each.native) for each in (spot, perpetual)] == [
        ("BTCUSDT", "BTC/USDT"),
        ("BTCUSDT.P", "BTC/USDT:USDT"),
    ]
    assert market.bars("btc/usdt:usdt", "60m", closed_by=NOW).symbol == "BTCUSDT.P"
    market.import_file(file, "AB/C", "1h", now=NOW)
    with pytest.raises(InvalidSymbol, match="A/BC and the stored AB/C are different markets"):
        market.import_file(file, "A/BC", "1h", now=NOW)
    with pytest.raises(InvalidSymbol, match="--symbol A-BC"):
        market.import_file(FORMATS / "five_minutes.csv", "A/BC", "5m", now=NOW)
    assert market.import_file(file, "A-BC", "1h", now=NOW).symbol == "A-BC"
    assert market.import_file(file, "ABC", "1h", now=NOW).native == "AB/C"


def test_every_command_of_the_how_to_page_works(tmp_path, monkeypatch):
    page = (ROOT / "docs/how-to/import-bars.md").read_text()
    commands = re.findall(r"`clm data import (\w+\.(?:csv|txt) [^`]+)`", page)
    assert len(commands) > 15
    for number, command in enumerate(commands):
        home = tmp_path / str(number)
        monkeypatch.setenv("CLM_HOME", str(home))
        assert Import(home)(command).bars > 5


# Whatever the file, nothing but a DataError leaves the import.

CELLS = st.one_of(
    st.sampled_from(
        [
            *(
                "timestamp",
                "time",
                "date",
                "open",
                "high",
                "low",
                "close",
                "volume",
                "symbol",
                "",
                "null",
                "nan",
            ),
            *(
                "2024-01-01",
                "2024-01-01T00:00:00Z",
                "2024-01-01 00:00:00-05:00",
                "20240101",
                "13:00",
                "1e999",
            ),
            *(
                "1704067200",
                "1704067200000",
                "99999999999999999999999",
                "-1",
                "0",
                "1,5",
                "1.5",
                '"',
                "\x00",
                "é",
            ),
            *("2024-01-01 00:00 UTC", "0001-01-01", "9999-12-31", "24:61", "BTCUSDT", "ETHUSDT", "inf"),
        ]
    ),
    st.text(max_size=6),
    st.integers().map(str),
    st.floats().map(str),
)
LINES = st.lists(st.lists(CELLS, max_size=8), max_size=12)
TABLES = st.builds(
    lambda lines, sign, end: end.join(sign.join(cells) for cells in lines),
    LINES,
    st.sampled_from([",", ";", "\t", "|", " "]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda text, code: text.encode(code, "replace"),
        TABLES,
        st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    ),
)
LAYOUTS = st.builds(
    Layout,
    time_column=st.none() | st.sampled_from(["time", "1", "nothing", ""]),
    time_format=st.none() | st.sampled_from(["%Q", "%z", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S%z", "%", "", "%s"]),
    timezone=st.none() | st.sampled_from(["UTC", "America/New_York", "Nowhere", "", "../etc", "\x00"]),
    volume_column=st.none() | st.sampled_from(["volume", "2", "9999"]),
    columns=st.dictionaries(st.sampled_from(["time", "close"]), st.sampled_from(["1", "close", "0", "x"])),
    no_volume=st.booleans(),
    by_date=st.booleans(),
    rows_of=st.none() | st.sampled_from(["BTCUSDT", "ß"]),
)
NAMES = st.sampled_from(
    ["bars.csv", "bars.txt", "bars.csv.gz", "bars.zip", "bars.parquet", "bars.feather", "bars.gz", "bars"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(CONTENTS, NAMES, LAYOUTS, st.sampled_from(["1m", "1h", "1d", "1w"]), st.booleans())
def test_nothing_but_a_data_error_leaves_the_import(
    tmp_path_factory, content, name, layout, timeframe, reverse
):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / name).write_bytes(content)
    with_allowed = [*OVERRULABLE] if reverse else []
    market = MarketData(folder / "home")
    with suppress(DataError):
        market.import_file(
            folder / name, "BTCUSDT", timeframe, now=NOW, layout=layout, reverse=reverse, allow=with_allowed
        )


MUTATIONS = [
    pytest.param(lambda content: content[: len(content) // 2], id="half"),
    pytest.param(lambda content: content[:-7], id="end cut off"),
    pytest.param(lambda content: content.replace(b"close", b"\x00\x00\x00\x00\x00"), id="NUL bytes"),
    pytest.param(lambda content: content[::-1], id="reversed"),
    pytest.param(lambda content: b"", id="empty"),
    pytest.param(lambda content: content.replace(b"1", b"9" * 30, 3), id="huge numbers"),
]


@pytest.mark.parametrize("mutate", MUTATIONS)
@pytest.mark.parametrize("kind", ["parquet", "feather", "csv", "csv.gz", "zip"])
def test_a_damaged_file_of_any_format_is_refused(tmp_path, kind, mutate):
    frame = pd.read_csv(FORMATS / "tradingview_iso.csv")
    buffer = io.BytesIO()
    if kind in ("parquet", "feather"):
        getattr(frame, f"to_{kind}")(buffer)
    else:
        frame.to_csv(buffer)
    content = buffer.getvalue()
    (tmp_path / f"bars.{kind}").write_bytes(
        gzip.compress(mutate(content)) if kind == "csv.gz" and content else mutate(content)
    )
    with suppress(DataError):
        MarketData(tmp_path / "home").import_file(tmp_path / f"bars.{kind}", "BTCUSDT", "1h", now=NOW)


@pytest.mark.parametrize(
    "column", ["bool", "list", "dict", "decimal", "category", "period", "bytes", "interval"]
)
def test_columns_of_any_type_in_parquet_give_bars_or_a_refusal(tmp_path, column):
    n = 6
    time = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC")
    values = {
        "bool": [True] * n,
        "list": [[1.0]] * n,
        "dict": [{"a": 1}] * n,
        "decimal": [Decimal("1.5")] * n,
        "category": pd.Categorical(["1.5"] * n),
        "period": pd.period_range("2024-01", periods=n, freq="M"),
        "bytes": [b"\xff"] * n,
        "interval": pd.interval_range(0, n),
    }[column]
    frame = pd.DataFrame({"time": time, "open": 1.5, "high": 1.5, "low": 1.5, "close": values, "volume": 1.0})
    frame.to_parquet(tmp_path / "bars.parquet")
    frame.assign(time=values, close=1.5).to_parquet(tmp_path / "times.parquet")
    for name in ("bars.parquet", "times.parquet"):
        with suppress(DataError):
            MarketData(tmp_path / "home").import_file(tmp_path / name, "BTCUSDT", "1h", now=NOW)


@pytest.mark.parametrize("file", ["missing.csv", "folder.csv", "bars.xlsx", "n\x00ul.csv"])
def test_a_path_that_is_no_file_is_refused(tmp_path, file):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "bars.xlsx").touch()
    with pytest.raises(DataError, match=r"cannot be read|convert the file"):
        MarketData(tmp_path / "home").import_file(tmp_path / file, "BTCUSDT", "1h", now=NOW)


@pytest.mark.parametrize(
    "words",
    [
        ("missing.csv", "--symbol", "BTCUSDT", "--timeframe", "1h"),
        (".", "--symbol", "BTCUSDT", "--timeframe", "1h"),
        ("12_header_only.csv", "--symbol", "BTCUSDT", "--timeframe", "1h"),
        ("03_yfinance_history_offsets.csv", "--symbol", "SPY", "--timeframe", "1d", "--time-format", "%Q"),
        ("03_yfinance_history_offsets.csv", "--symbol", "SPY", "--timeframe", "1d", "--time-format", "%z"),
        ("03_yfinance_history_offsets.csv", "--symbol", "SPY", "--timeframe", "1M"),
        ("03_yfinance_history_offsets.csv", "--symbol", "ß", "--timeframe", "1d"),
        ("03_yfinance_history_offsets.csv", "--symbol", "SPY", "--timeframe", "1d", "--column", "shut=4"),
        ("03_yfinance_history_offsets.csv", "--symbol", "SPY", "--timeframe", "1d", "--allow", "nan"),
    ],
)
def test_the_command_ends_with_one_and_a_message(words, tmp_path, monkeypatch, capsys):
    import sys

    from clm_core.cli import app as program

    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(FIELD)
    monkeypatch.setattr(sys, "argv", ["clm", "data", "import", *words])
    with pytest.raises(SystemExit) as end:
        program.main()
    captured = capsys.readouterr()
    assert end.value.code == 1
    assert captured.err.startswith("Error: ")
    assert "Traceback" not in captured.err
