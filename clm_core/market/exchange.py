"""Bars from an exchange through ccxt: page by page, with retries up to a deadline and without skipped
pages."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import pandas as pd

from clm_core.domain.errors import SourceUnavailable, UnknownSeries
from clm_core.domain.exchange_settings import ExchangeKeys
from clm_core.domain.spellings import normalise_symbol
from clm_core.market.columns import FIELDS
from clm_core.market.timeframes import Timeframe

T = TypeVar("T")
Row = list[Any]
"""Open time in ms, then open, high, low, close, volume."""

PAGE = 1000
"""Bars requested at once; after a shorter answer, the next request starts at the end of the answer."""

QUIET_MS = 86_400_000
"""Longest plausible silence of a market: after a longer silence the exchange has failed, or trading has
ended."""


@dataclass(frozen=True)
class RetryPolicy:
    """Time-outs and retries for an exchange."""

    request_s: float = 10.0
    """Longest silence within one request, seconds."""
    deadline_s: float = 900.0
    """Longest duration of the whole fetch, seconds."""
    attempts: int = 6
    """Maximum number of attempts for a page."""
    first_wait_s: float = 1.0
    """Wait after the first failure, seconds, doubled after each further failure; a Retry-After of the
    exchange takes precedence."""


class ExchangeSeries:
    """One market of one exchange."""

    def __init__(
        self,
        exchange: str,
        symbol: str,
        timeframe: Timeframe,
        retry_policy: RetryPolicy,
        base_url: str | None = None,
        keys: ExchangeKeys | None = None,
    ) -> None:
        """Load the markets of the exchange and look up the symbol.

        Args:
            symbol: `BTCUSDT` or `BTC/USDT`; spot markets only.
            base_url: alternative address of the API, such as a proxy.
            keys: API keys, which sign the requests of endpoints without public access.

        Raises:
            SecretUnavailable: the server of secrets does not give a key.
            UnknownSeries: the exchange, market or timeframe does not exist.
            SourceUnavailable: no valid answer of the exchange before the deadline.
        """
        self._client = _client(exchange, base_url)
        self._keys = keys
        self._credentials: dict[str, str] = {}
        self._log_in()
        self._timeframe = timeframe
        self._retry_policy = retry_policy
        self._deadline = time.monotonic() + retry_policy.deadline_s
        if timeframe.value not in self._client.timeframes:
            have = ", ".join(set(Timeframe) & set(self._client.timeframes))
            raise UnknownSeries(f"{exchange} has no {timeframe} bars; it has {have}")
        self._ask("its markets", self._load_markets)
        self._market = self._find(symbol)

    def pages(self, since_ms: int, until_ms: int) -> Iterator[pd.DataFrame]:
        """Pages of bars that open at `since_ms` or later and close at `until_ms` or earlier.

        Args:
            since_ms, until_ms: milliseconds since 1970-01-01 UTC.

        Raises:
            SourceUnavailable: a page is unavailable, or empty although bars are due; earlier pages are valid.
        """
        step = self._timeframe.seconds * 1000
        cursor = since_ms
        while cursor + step <= until_ms:
            page = self._ask(f"{self._market} {self._timeframe}", lambda: self._page(cursor, until_ms))  # noqa: B023
            if not page:
                return
            yield _frame(page)
            cursor = page[-1][0] + step

    def _page(self, cursor: int, until_ms: int) -> list[Row]:
        import ccxt

        step = self._timeframe.seconds * 1000
        page = self._bars_from(cursor, PAGE, until_ms)
        # some exchanges answer with the newest bars of a window: request the missing earlier bars again
        while page and page[0][0] > cursor:
            hole = (page[0][0] - cursor) // step
            before = [
                row for row in self._bars_from(cursor, min(hole, PAGE), until_ms) if row[0] < page[0][0]
            ]
            if not before:
                break
            page = before
        if not page and until_ms - cursor > QUIET_MS + step:
            since = pd.Timestamp(cursor, unit="ms", tz="UTC")
            raise ccxt.BadResponse(
                f"an empty page, although bars from {since:%Y-%m-%d %H:%M} UTC on are due; if trading began "
                "later, pass a later --since, if it has ended, the stored series is complete"
            )
        return page

    def _bars_from(self, cursor: int, limit: int, until_ms: int) -> list[Row]:
        rows = self._client.fetch_ohlcv(self._market, self._timeframe.value, since=cursor, limit=limit)
        step = self._timeframe.seconds * 1000
        return [row for row in rows if cursor <= row[0] and row[0] + step <= until_ms]

    def _load_markets(self) -> None:
        import ccxt

        if not self._client.load_markets(True):
            raise ccxt.BadResponse("an empty list of markets")

    def _find(self, symbol: str) -> str:
        name = normalise_symbol(symbol)
        spot = {
            normalise_symbol(market["symbol"]): market["symbol"]
            for market in self._client.markets.values()
            if market["spot"] and re.fullmatch(r"[A-Za-z0-9]{1,16}/[A-Za-z0-9]{1,16}", market["symbol"])
        }
        if name not in spot:
            near = ", ".join(get_close_matches(name, spot, n=5)) or ", ".join(sorted(spot)[:5])
            raise UnknownSeries(f"{self._client.id} has no spot market {symbol}; it has e.g. {near}")
        return str(spot[name])

    def _ask(self, subject: str, request: Callable[[], T]) -> T:
        import ccxt
        import stamina

        retry_policy = self._retry_policy
        try:
            for attempt in stamina.retry_context(
                on=self._wait_after,
                attempts=retry_policy.attempts,
                timeout=max(0.0, self._deadline - time.monotonic()),
                wait_initial=retry_policy.first_wait_s,
                wait_max=60.0,
                wait_jitter=retry_policy.first_wait_s / 2,
            ):
                with attempt:
                    left = self._deadline - time.monotonic()
                    self._client.timeout = max(1, int(1000 * min(retry_policy.request_s, left)))
                    self._client.last_response_headers = None
                    return self._authenticated(request)
        except ccxt.BadSymbol as error:
            raise UnknownSeries(f"{self._client.id} does not know {subject}: {error}") from error
        except ccxt.BaseError as error:
            retry_after = _retry_after(self._client.last_response_headers or {})
            advice = "" if retry_after is None else f" (Retry-After: {retry_after:.0f} s)"
            raise SourceUnavailable(
                f"{self._client.id} did not give {subject} in {retry_policy.attempts} attempts or "
                f"{retry_policy.deadline_s:.0f} s: {type(error).__name__}: {self._hidden(error)}{advice}. "
                "Run the command again later to continue after the stored bars"
            ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _log_in(self) -> None:
        self._credentials = {} if self._keys is None else self._keys.credentials()
        for name, value in self._credentials.items():
            setattr(self._client, name, value)

    def _authenticated(self, request: Callable[[], T]) -> T:
        """Answer of the exchange; refused keys are read again once, since a rotation may be the reason."""
        import ccxt

        try:
            return request()
        except ccxt.AuthenticationError:
            if self._keys is None or not self._keys.read_again():
                raise
        self._log_in()
        return request()

    def _hidden(self, error: Exception) -> str:
        message = str(error)
        for value in self._credentials.values():
            message = message.replace(value, "(hidden)")
        return message

    def _wait_after(self, error: Exception) -> bool | float:
        """True to retry, a number of seconds to wait before the retry, or False to give up."""
        import ccxt

        if not isinstance(error, ccxt.OperationFailed):
            return False
        retry_after = _retry_after(self._client.last_response_headers or {})
        if retry_after is None:
            return True
        return retry_after if retry_after < self._deadline - time.monotonic() else False


def require_known(exchange: str) -> None:
    """
    Raises:
        UnknownSeries: ccxt has no exchange of the name.
    """
    import ccxt

    if exchange not in ccxt.exchanges:
        near = ", ".join(get_close_matches(exchange, ccxt.exchanges, n=5)) or "binance, kraken, coinbase"
        raise UnknownSeries(f"there is no exchange {exchange!r}; there is e.g. {near}")


def _client(exchange: str, base_url: str | None) -> Any:
    import ccxt

    require_known(exchange)
    options = {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}
    client = getattr(ccxt, exchange)({"enableRateLimit": True, "options": options})
    if base_url is not None:
        client.urls["api"] = _moved(client.urls["api"], base_url.rstrip("/"))
    handle_errors = client.handle_errors

    def refuse_invalid_json(code: int, *answer: Any) -> Any:
        # ccxt treats the text of a truncated or HTML answer as an empty list
        if code < 400 and answer[5] is None:
            raise ccxt.BadResponse(f"an answer that is no JSON: {answer[4][:80]!r}")
        return handle_errors(code, *answer)

    client.handle_errors = refuse_invalid_json
    return client


def _moved(urls: Any, base_url: str) -> Any:
    """ccxt's nested table of addresses with scheme and host replaced."""
    if isinstance(urls, dict):
        return {name: _moved(url, base_url) for name, url in urls.items()}
    return re.sub(r"^https?://[^/]+", base_url, urls)


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait by the header Retry-After (RFC 9110, 10.2.3), or None without a valid header."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    if re.fullmatch(r"[0-9.]+", value):
        return float(value)
    try:
        return (parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])).total_seconds()
    except (KeyError, ValueError):
        return None


def _frame(page: list[Row]) -> pd.DataFrame:
    frame = pd.DataFrame(page, columns=["timestamp", *FIELDS])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="ms", utc=True)
    return frame
