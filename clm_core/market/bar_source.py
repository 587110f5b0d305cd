"""Places that bars are fetched from again and again: an exchange, or a table of a database."""

import shlex
from collections.abc import Iterator
from typing import Protocol

import pandas as pd

from clm_core.domain.exchange_settings import ExchangeKeys
from clm_core.market.exchange import ExchangeSeries, RetryPolicy
from clm_core.market.timeframes import Timeframe


class SourceSeries(Protocol):
    """A series of bars at its source."""

    def pages(self, since_ms: int, until_ms: int) -> Iterator[pd.DataFrame]:
        """Pages of bars that open at `since_ms` or later and close at `until_ms` or earlier, ascending.

        Columns timestamp (UTC), open, high, low, close, volume.

        Args:
            since_ms, until_ms: milliseconds since 1970-01-01 UTC.

        Raises:
            SourceUnavailable: a page is unavailable; earlier pages are valid.
        """
        ...


class BarSource(Protocol):
    """A source by name."""

    @property
    def name(self) -> str:
        """Name recorded with the bars: `binance`."""
        ...

    @property
    def options(self) -> str:
        """Options of a command that name the source: `--exchange binance`."""
        ...

    def series(self, symbol: str, timeframe: Timeframe) -> SourceSeries:
        """
        Raises:
            UnknownSeries: the source has no such series.
            SourceUnavailable: the source does not answer.
        """
        ...


class ExchangeSource:
    """An exchange of ccxt."""

    def __init__(
        self,
        exchange: str,
        retry_policy: RetryPolicy | None = None,
        base_url: str | None = None,
        keys: ExchangeKeys | None = None,
    ) -> None:
        """
        Args:
            base_url: alternative address of the exchange's API, such as a proxy.
            keys: API keys; None asks as the public does.
        """
        self.name = exchange
        self._retry_policy = retry_policy or RetryPolicy()
        self._base_url = base_url
        self._keys = keys

    @property
    def options(self) -> str:
        named = f"--exchange {self.name}"
        return named if self._base_url is None else f"{named} --base-url {shlex.quote(self._base_url)}"

    def series(self, symbol: str, timeframe: Timeframe) -> ExchangeSeries:
        return ExchangeSeries(self.name, symbol, timeframe, self._retry_policy, self._base_url, self._keys)
