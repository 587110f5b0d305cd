"""Bars of a database: a table or query of PostgreSQL, TimescaleDB or another database of SQLAlchemy."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Engine, MetaData, Select, Table, TextClause, create_engine, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from clm_core.domain.database_settings import BarDatabase
from clm_core.domain.errors import DataError, SourceUnavailable, UnknownSeries
from clm_core.market.bars import FIELDS
from clm_core.market.timeframes import Timeframe

PAGE = 10_000
"""Rows read at a time."""
POSTGRESQL = "postgresql+psycopg"
COLUMNS = ("time", *FIELDS)


@dataclass(frozen=True)
class DatabaseSource:
    """A database of the settings as a source of bars."""

    label: str
    """Name of the section `[databases.NAME]`."""
    settings: BarDatabase

    @property
    def name(self) -> str:
        return f"database {self.label}"

    @property
    def options(self) -> str:
        return f"--database {self.label}"

    def series(self, symbol: str, timeframe: Timeframe) -> "DatabaseSeries":
        """
        Raises:
            DataError: the address is not one of SQLAlchemy, or its driver is not installed.
        """
        return DatabaseSeries(self, symbol, timeframe)


def database_source(databases: Mapping[str, BarDatabase], label: str) -> DatabaseSource:
    """Source by the name of a section.

    Raises:
        UnknownSeries: no section has the name.
    """
    if label not in databases:
        known = ", ".join(databases) or "none"
        raise UnknownSeries(f"the settings have no [databases.{label}]; databases: {known}")
    return DatabaseSource(label, databases[label])


class DatabaseSeries:
    """A series of bars in a database."""

    def __init__(self, source: DatabaseSource, symbol: str, timeframe: Timeframe) -> None:
        self._source = source
        self._settings = source.settings
        self._symbol = symbol
        self._timeframe = timeframe

    def pages(self, since_ms: int, until_ms: int) -> Iterator[pd.DataFrame]:
        """Pages of bars, as `bar_source.SourceSeries` asks for.

        Raises:
            UnknownSeries: the table or a column does not exist.
            SourceUnavailable: the database does not answer, or refuses the query.
            DataError: a time has no zone, or the query lacks a column.
        """
        with self._connected() as connection:
            # streamed, so that years of minutes are not held by the driver at once
            rows = connection.execution_options(stream_results=True, yield_per=PAGE).execute(
                self._query(connection), self._parameters(since_ms, until_ms)
            )
            self._require_columns(rows.keys())
            for part in rows.mappings().partitions(PAGE):
                yield self._frame(part)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except NoSuchTableError as error:
            raise UnknownSeries(f"{self._source.name} has no table {self._settings.table}") from error
        except SQLAlchemyError as error:
            # the cause alone: SQLAlchemy's message repeats the query, and a driver's may name the address
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            reason = self._hidden(cause)
            raise SourceUnavailable(f"{self._source.name} did not answer the query: {reason}") from None
        finally:
            self._engine.dispose()

    @cached_property
    def _url(self) -> URL:
        try:
            url = make_url(self._settings.url.get_secret_value())
        except ArgumentError as error:
            raise DataError(
                f"the url of {self._source.name} is no address of SQLAlchemy; write "
                "postgresql://user:password@host/database"
            ) from error
        return url.set(drivername=POSTGRESQL) if url.drivername in ("postgresql", "postgres") else url

    @cached_property
    def _engine(self) -> Engine:
        limit = self._settings.timeout_seconds
        arguments: dict[str, Any] = {}
        if self._url.drivername == POSTGRESQL:
            options = f"-c statement_timeout={int(1000 * limit)} -c default_transaction_read_only=on"
            arguments = {"connect_timeout": max(2, int(min(limit, 10))), "options": options}
        try:
            return create_engine(self._url, connect_args=arguments)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise DataError(
                f"{self._source.name} needs the driver of {self._url.drivername}: install its package, or "
                "read a PostgreSQL database"
            ) from error

    def _hidden(self, message: str) -> str:
        password = self._url.password
        return message.replace(str(password), "***") if password else message

    def _query(self, connection: Connection) -> Select[Any] | TextClause:
        if self._settings.query is not None:
            return text(self._settings.query)
        schema, _, name = str(self._settings.table).rpartition(".")
        table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
        named: Mapping[str, str] = {key: key for key in (*COLUMNS, "symbol", "timeframe")} | dict(
            self._settings.columns
        )
        missing = [named[key] for key in COLUMNS if named[key] not in table.columns]
        missing += [column for column in self._settings.columns.values() if column not in table.columns]
        if missing:
            have = ", ".join(table.columns.keys())
            raise UnknownSeries(
                f"{self._source.name}: {self._settings.table} has no column {missing[0]}; it has {have}. "
                "Name the columns in `columns`"
            )
        time = table.columns[named["time"]]
        query = select(*(table.columns[named[key]].label(key) for key in COLUMNS)).order_by(time)
        query = query.where(time >= text(":since"), time < text(":until"))
        for key in ("symbol", "timeframe"):
            if named[key] in table.columns:
                query = query.where(table.columns[named[key]] == text(f":{key}"))
        return query

    def _parameters(self, since_ms: int, until_ms: int) -> dict[str, Any]:
        step = self._timeframe.seconds * 1000
        # a bar that closes at `until_ms` opens a bar length earlier
        since, until = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (since_ms, until_ms - step + 1))
        if self._settings.timezone is not None:
            zone = self._settings.timezone
            since, until = (pd.Timestamp(each).tz_convert(zone).tz_localize(None) for each in (since, until))
        values = {"symbol": self._symbol, "timeframe": self._timeframe.value, "since": since, "until": until}
        query = self._settings.query
        return (
            values if query is None else {key: value for key, value in values.items() if f":{key}" in query}
        )

    def _require_columns(self, names: Any) -> None:
        if missing := [name for name in COLUMNS if name not in set(names)]:
            raise DataError(
                f"the query of {self._source.name} gives no column {missing[0]}; it must give "
                f"{', '.join(COLUMNS)}: rename with AS"
            )

    def _frame(self, rows: Any) -> pd.DataFrame:
        frame = pd.DataFrame([dict(row) for row in rows])
        times = pd.to_datetime(frame["time"])
        if times.dt.tz is None:
            if self._settings.timezone is None:
                raise DataError(
                    f'{self._source.name} gives times without a zone: set timezone = "UTC", or their zone, '
                    f"under [databases.{self._source.label}]"
                )
            times = times.dt.tz_localize(self._settings.timezone)
        # NULL becomes NaN, which the validation refuses by name
        prices = {name: pd.to_numeric(frame[name], errors="coerce").astype(float) for name in FIELDS}
        return pd.DataFrame({"timestamp": times.dt.tz_convert("UTC"), **prices})
