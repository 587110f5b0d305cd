"""Bars read from tables and queries of a real PostgreSQL server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import psycopg
import pytest
from pydantic import SecretStr, ValidationError

from clm_core.domain.database_settings import BarDatabase
from clm_core.domain.errors import DataError, InvalidBars, SourceUnavailable, UnknownSeries
from clm_core.market.sources import MarketData
from clm_core.platform.bar_database import DatabaseSource, database_source
from clm_core.services import Services
from clm_core.settings import Settings

START = datetime(2026, 1, 5, tzinfo=UTC)
NOW = START + timedelta(hours=48, minutes=30)
TABLE = """
CREATE SCHEMA market;
CREATE TABLE market.bars (
    ts timestamptz NOT NULL, pair text NOT NULL, timeframe text NOT NULL,
    open numeric, high numeric, low numeric, close numeric, volume double precision);
INSERT INTO market.bars
SELECT timestamptz '2026-01-05 00:00+00' + i * interval '1 hour', pair, '1h',
       100 + i, 101 + i, 99 + i, 100.5 + i, 7
FROM generate_series(0, 60) AS i, unnest(ARRAY['BTC/USDT', 'ETH/USDT']) AS pair;
"""
NAMES = {"time": "ts", "symbol": "pair"}


@pytest.fixture(scope="module")
def url(services: Services) -> str:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE warehouse")
    made = urlsplit(services.database.url("ledger"))._replace(scheme="postgresql", path="/warehouse").geturl()
    with psycopg.connect(made) as connection:
        connection.execute(TABLE)
    return made


def source(url: str, **options: Any) -> DatabaseSource:
    table = {} if "query" in options else {"table": "market.bars", "columns": NAMES}
    return DatabaseSource("warehouse", BarDatabase(url=SecretStr(url), **table | options))


def fetched(home: Path, source: DatabaseSource, now: datetime = NOW) -> pd.DataFrame:
    market = MarketData(home)
    market.fetch("BTC/USDT", "1h", source, START, now=now)
    return market.bars("BTCUSDT", "1h", closed_by=now).to_frame()


def test_closed_bars_of_one_market_are_read_and_later_ones_added(url: str, tmp_path: Path) -> None:
    first = fetched(tmp_path, source(url))
    assert (len(first), first.index[-1]) == (48, pd.Timestamp(START + timedelta(hours=47)))
    assert first.iloc[3].tolist() == [103.0, 104.0, 102.0, 103.5, 7.0]
    market = MarketData(tmp_path)
    added = market.fetch("BTC/USDT", "1h", source(url), now=NOW + timedelta(hours=5))
    assert (added.bars, added.source) == (53, "database warehouse")


def test_a_query_gives_the_same_bars_as_the_table(url: str, tmp_path: Path) -> None:
    query = (
        "SELECT ts AT TIME ZONE 'UTC' AS time, open, high, low, close, volume FROM market.bars "
        "WHERE pair = :symbol AND ts AT TIME ZONE 'UTC' >= :since AND ts AT TIME ZONE 'UTC' < :until "
        "ORDER BY ts"
    )
    by_query = fetched(tmp_path / "query", source(url, query=query, timezone="UTC"))
    pd.testing.assert_frame_equal(by_query, fetched(tmp_path / "table", source(url)))
    with pytest.raises(DataError, match='gives times without a zone: set timezone = "UTC"'):
        fetched(tmp_path / "naive", source(url, query=query))


def test_a_row_without_a_price_is_refused_as_in_a_file(url: str, tmp_path: Path) -> None:
    query = (
        "SELECT ts AS time, open, CASE WHEN open <> 110 THEN high END AS high, low, close, volume "
        "FROM market.bars WHERE pair = :symbol AND ts < :until ORDER BY ts"
    )
    with pytest.raises(InvalidBars, match="missing"):
        fetched(tmp_path, source(url, query=query))
    assert list((tmp_path / "quarantine").rglob("*.csv"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"table": "market.nothing"}, UnknownSeries, "database warehouse has no table market.nothing"),
        ({"columns": {"time": "when"}}, UnknownSeries, "has no column when; it has ts, pair"),
        ({"query": "SELECT ts AS time, open FROM market.bars"}, DataError, "gives no column high"),
        ({"query": "SELECT nothing"}, SourceUnavailable, 'column "nothing" does not exist'),
        ({"query": "DELETE FROM market.bars"}, SourceUnavailable, "syntax error"),
        ({"query": "SELECT pg_sleep(5)", "timeout_seconds": 0.1}, SourceUnavailable, "statement timeout"),
        ({"url": "no address"}, DataError, "is no address of SQLAlchemy"),
        ({"url": "oracle+nothing://db/x"}, DataError, "needs the driver of oracle\\+nothing"),
        (
            {"url": "postgresql://reader:hidden@127.0.0.1:1/x"},
            SourceUnavailable,
            "database warehouse did not answer",
        ),
    ],
)
def test_an_unreadable_database_is_named(
    options: dict[str, Any], error: type[Exception], message: str, url: str, tmp_path: Path
) -> None:
    address = options.pop("url", url)
    with pytest.raises(error, match=message) as refused:
        fetched(tmp_path, source(address, **options))
    assert "hidden" not in str(refused.value)


def test_a_market_names_a_database_of_the_settings(tmp_path: Path) -> None:
    market = {"symbol": "BTC/USDT", "database": "warehouse"}
    with pytest.raises(ValidationError, match=r"add\s+\[databases.warehouse\]"):
        Settings.model_validate({"home": tmp_path, "universe": [market]})
    with pytest.raises(ValidationError, match="name an exchange or a database, not both"):
        Settings.model_validate({"home": tmp_path, "universe": [market | {"exchange": "binance"}]})
    with pytest.raises(ValidationError, match="give a table or a query"):
        BarDatabase(url=SecretStr("postgresql://db/x"))
    with pytest.raises(UnknownSeries, match=r"no \[databases.other\]; databases: warehouse"):
        database_source({"warehouse": source("postgresql://db/x").settings}, "other")
