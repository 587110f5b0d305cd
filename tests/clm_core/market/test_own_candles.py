"""Bars of a trader's own tables, in the layouts of the usual libraries, and refusals in words of Python."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clm_core.domain.errors import DataError, InvalidBars, InvalidSymbol, UnknownCalendar
from clm_core.market.bars import FIELDS, Bars

NOW = datetime(2026, 3, 10, tzinfo=UTC)
MARKET: dict[str, Any] = {"symbol": "BTC/USDT", "timeframe": "1h", "calendar": "24x7", "now": NOW}
N = 120


def table() -> pd.DataFrame:
    """Hourly candles from 2026-03-01, open times as the index."""
    close = 100 + 10 * np.sin(np.arange(N) / 7)
    open_ = np.concatenate([[100.0], close[:-1]])
    values = {"open": open_, "high": np.maximum(open_, close) + 0.5, "low": np.minimum(open_, close) - 0.5}
    values |= {"close": close, "volume": 5.0 + np.arange(N) % 3}
    return pd.DataFrame(values, index=pd.date_range("2026-03-01", periods=N, freq="h", tz="UTC", unit="ns"))


def of_ccxt() -> pd.DataFrame:
    candles = table()
    rows = zip(candles.index.as_unit("ms").asi8.tolist(), *(candles[name] for name in FIELDS), strict=True)
    return pd.DataFrame(list(rows), columns=["timestamp", *FIELDS])


def of_yfinance() -> pd.DataFrame:
    candles = table().rename(columns=str.capitalize).assign(Dividends=0.0)
    candles.columns = pd.MultiIndex.from_product([candles.columns, ["BTC-USDT"]])
    return candles.rename_axis("Datetime").tz_convert("America/New_York")


def of_binance() -> pd.DataFrame:
    candles = of_ccxt().rename(columns={"timestamp": "open_time"})
    closes = candles["open_time"] + 3_599_999
    return candles.assign(close_time=closes, quote_volume=1.0).astype(dict.fromkeys(FIELDS, str))


def of_letters() -> pd.DataFrame:
    candles = table().rename(columns={name: name[0] for name in FIELDS})
    return candles.assign(t=candles.index.strftime("%Y-%m-%dT%H:%M:%SZ")).reset_index(drop=True)


@pytest.mark.parametrize(
    "made", [table, of_ccxt, of_yfinance, of_binance, of_letters], ids=lambda made: made.__name__
)
def test_candles_in_the_layouts_of_the_usual_libraries_become_the_same_bars(
    made: Callable[[], pd.DataFrame],
) -> None:
    candles = made()
    before = candles.copy()
    bars = Bars.from_frame(candles, **MARKET)
    assert (bars.symbol, bars.timeframe, bars.calendar, len(bars)) == ("BTCUSDT", "1h", "24x7", N)
    pd.testing.assert_frame_equal(bars.to_frame(), table().rename_axis("timestamp"), check_freq=False)
    pd.testing.assert_frame_equal(candles, before)


def test_times_without_a_zone_take_the_zone_that_is_named() -> None:
    athens = table().tz_convert("Europe/Athens").tz_localize(None)
    with pytest.raises(InvalidBars, match=r'unknown-time-zone.*timezone="UTC"'):
        Bars.from_frame(athens, **MARKET)
    bars = Bars.from_frame(athens, **MARKET, timezone="Europe/Athens")
    assert bars.content_hash == Bars.from_frame(table(), **MARKET).content_hash


def test_columns_with_names_of_ones_own_are_named() -> None:
    candles = table().rename(columns={"volume": "traded"})
    bars = Bars.from_frame(candles, **MARKET, columns={"volume": "traded"})
    assert bars.content_hash == Bars.from_frame(table(), **MARKET).content_hash
    assert not Bars.from_frame(candles, **MARKET, no_volume=True).volume.any()


def test_a_last_bar_still_open_is_refused_or_left_out() -> None:
    market = MARKET | {"now": datetime(2026, 3, 5, 23, 30, tzinfo=UTC)}
    with pytest.raises(InvalidBars, match=r"open-bar.*drop_open_bar=True"):
        Bars.from_frame(table(), **market)
    assert len(Bars.from_frame(table(), **market, drop_open_bar=True)) == N - 1


def test_the_clock_of_the_machine_is_the_present_moment_by_default() -> None:
    later = table()
    later.index = pd.date_range("2126-01-01", periods=N, freq="h", tz="UTC", unit="ns")
    del (market := dict(MARKET))["now"]
    with pytest.raises(InvalidBars, match="future-bar"):
        Bars.from_frame(later, **market)


def changed(row: int, **values: float) -> pd.DataFrame:
    candles = table()
    for name, value in values.items():
        candles.iloc[row, candles.columns.get_loc(name)] = value
    return candles


@pytest.mark.parametrize(
    ("candles", "rule", "advice"),
    [
        (changed(3, high=1.0), "high-below-low", "high"),
        (changed(3, close=np.nan), "nan", "close"),
        (table()[::-1], "newest-first", r"frame\[::-1\]"),
        (table().drop(columns="volume"), "missing-columns", "no_volume=True"),
        (table().drop(columns="open"), "missing-columns", r"columns=\{\"open\": "),
        (table().reset_index(drop=True), "missing-columns", r"columns=\{\"time\": "),
        (table().iloc[:0], "empty", "no candle"),
        (table().iloc[::2], "other-spacing", r'timeframe="2h".*allow=\["other-spacing"\]'),
        (pd.concat([table(), table().iloc[5:6].assign(close=99.0)]), "duplicate-time", "keep one bar"),
        (table().assign(symbol="ETHUSDT"), "other-symbol", "another market"),
        (table().assign(vol=1.0), "ambiguous-columns", r"columns=\{\"volume\""),
    ],
    ids=lambda value: value if isinstance(value, str) and "=" not in value else "",
)
def test_a_table_that_breaks_a_rule_is_refused_with_the_remedy_in_python(
    candles: pd.DataFrame, rule: str, advice: str
) -> None:
    with pytest.raises(InvalidBars, match=advice) as refusal:
        Bars.from_frame(candles, **MARKET)
    assert rule in {finding.rule for finding in refusal.value.findings}
    assert "--" not in str(refusal.value)


def test_a_rule_may_be_overruled_by_name() -> None:
    bars = Bars.from_frame(table().iloc[::2], **MARKET, allow=["other-spacing"])
    assert len(bars) == N // 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"symbol": "B T C"}, InvalidSymbol, "cannot be a symbol"),
        ({"timeframe": "7h"}, DataError, "no timeframe '7h'; use one of 1m"),
        ({"calendar": "24x8"}, UnknownCalendar, "24x8"),
        ({"timezone": "Mars"}, DataError, "no time zone 'Mars'"),
        ({"now": datetime(2026, 3, 10)}, DataError, "now has no time zone"),
        ({"allow": ["other-symbol"]}, DataError, "cannot be overruled"),
        ({"allow": ["nan"]}, DataError, "cannot be overruled"),
        ({"frame": [[1, 2]]}, DataError, "pandas DataFrame"),
    ],
    ids=lambda value: "",
)
def test_an_argument_that_does_not_fit_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    naive = table().tz_localize(None) if "timezone" in arguments else table()
    with pytest.raises(error, match=message):
        Bars.from_frame(**({"frame": naive} | MARKET | arguments))
