"""A fake exchange on 127.0.0.1: candles from a file, and a record of the positions that a trader holds.

    python exchange.py candles.csv 9000

GET /candles?limit=N   the newest candles, oldest first: [open time in ms, open, high, low, close, volume]
PUT /position          {"position": -1..1, ...}: the order of a trader, recorded with the time
GET /orders            all orders
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd


class FakeExchange(ThreadingHTTPServer):
    """Server of the candles of one market."""

    daemon_threads = True

    def __init__(self, candles: pd.DataFrame, port: int = 0) -> None:
        """
        Args:
            candles: open, high, low, close, volume over the open times.
            port: port to listen on; 0 for a free one.
        """
        times = pd.DatetimeIndex(candles.index).as_unit("ms").asi8.tolist()
        rows = candles[["open", "high", "low", "close", "volume"]].to_numpy().tolist()
        self.candles = [[when, *row] for when, row in zip(times, rows, strict=True)]
        self.orders: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", port), _Requests)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Requests(BaseHTTPRequestHandler):
    server: FakeExchange

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/candles":
            limit = int(parse_qs(url.query).get("limit", ["500"])[0])
            self._answer(self.server.candles[-limit:])
        elif url.path == "/orders":
            self._answer(self.server.orders)
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        if self.path != "/position":
            self.send_error(404)
            return
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not -1.0 <= order["position"] <= 1.0:
            self.send_error(422, "the position is from -1 to 1")
            return
        self.server.orders.append({**order, "at": time.time()})
        self._answer(order)

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: orders are the record."""


if __name__ == "__main__":
    table = pd.read_csv(sys.argv[1], index_col=0, parse_dates=True)
    with FakeExchange(table, int(sys.argv[2])) as exchange:
        print(f"{len(table)} candles at {exchange.url}", flush=True)
        exchange.serve_forever()
