"""A local HTTP server with the part of Binance's API that ccxt uses."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from clm_core.market.exchange import RetryPolicy

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(hours=25, minutes=30)
HOUR_MS = 3_600_000
SWIFT = RetryPolicy(request_s=0.3, deadline_s=10.0, attempts=3, first_wait_s=0.01)

Answer = tuple[int, dict[str, str], bytes]


def kline(opens: int, offset: int = 0) -> list[object]:
    price = 40_000 + offset + opens // HOUR_MS % 100
    prices = [f"{price + spread}.00000000" for spread in (0, 10, -10, 5)]
    return [opens, *prices, "12.50000000", opens + HOUR_MS - 1, "500000.0", 300, "6.0", "250000.0", "0"]


class Binance:
    """State of the server."""

    def __init__(self) -> None:
        first = int(START.timestamp() * 1000)
        self.bars = {opens: kline(opens) for opens in range(first, first + 26 * HOUR_MS, HOUR_MS)}
        self.page = 10
        self.replacements: list[Answer | float] = []
        """Replies or delays (seconds) to use for the next requests, in place of the bars."""
        self.keys: tuple[str, str] | None = None
        """Key and secret that the private endpoints accept; None refuses every key."""
        self.signed_requests = 0
        self.request_starts: list[int] = []
        """Start times of the requests, milliseconds since 1970-01-01 UTC."""

    def private_answer(self, key: str | None, query: str) -> Answer:
        """Answer of an endpoint for a signed request.

        https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security
        """
        signed, _, signature = query.rpartition("&signature=")
        if self.keys is None or key != self.keys[0]:
            return failure(401, -2015, f"Invalid API-key {key}, IP, or permissions for action.")
        expected = hmac.new(self.keys[1].encode(), signed.encode(), hashlib.sha256).hexdigest()
        if signature != expected:
            return failure(400, -1022, "Signature for this request is not valid.")
        self.signed_requests += 1
        return json_answer([])

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path.endswith("/exchangeInfo"):
            return json_answer({"symbols": [MARKET]})
        since = int(query["startTime"][0])
        self.request_starts.append(since)
        if self.replacements:
            other = self.replacements.pop(0)
            if not isinstance(other, float):
                return other
            time.sleep(other)
        limit = min(self.page, int(query["limit"][0]))
        return json_answer([self.bars[opens] for opens in sorted(self.bars) if opens >= since][:limit])


MARKET = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "baseAssetPrecision": 8,
    "quoteAsset": "USDT",
    "quotePrecision": 8,
    "quoteAssetPrecision": 8,
    "orderTypes": ["LIMIT", "MARKET"],
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": True,
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.0", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.0", "stepSize": "0.00001"},
    ],
    "permissions": ["SPOT", "MARGIN"],
}


def json_answer(body: object, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def failure(status: int, code: int, message: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json_answer({"code": code, "msg": message}, status, **named)


@contextmanager
def serving(exchange: Binance) -> Iterator[str]:
    """Address of the running server, for the duration of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path.startswith("/sapi/"):
                key = self.headers.get("X-MBX-APIKEY")
                status, headers, body = exchange.private_answer(key, url.query)
            else:
                status, headers, body = exchange.answer(url.path, parse_qs(url.query))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            with suppress(ConnectionError):  # a client that timed out has hung up
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
