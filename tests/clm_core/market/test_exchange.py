"""The real ccxt client against a local server with Binance's API."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from exchanges import HOUR_MS, NOW, START, SWIFT, Binance, failure, json_answer, kline, serving

from clm_core.domain.errors import InvalidBars, SourceUnavailable, UnknownSeries
from clm_core.market import exchange
from clm_core.market.exchange import RetryPolicy
from clm_core.market.sources import MarketData

TOO_MANY = failure(429, -1003, "Too many requests.", Retry_After="0.2")
BANNED = failure(418, -1003, "Way too many requests; IP banned.", Retry_After="0.2")
BUSY = failure(503, -1001, "Internal error.")
BROKEN = (502, {"Content-Type": "text/html"}, b"<html><h1>502 Bad Gateway</h1></html>")
HTML = (200, {"Content-Type": "text/html"}, b"<html>This site is under maintenance</html>")
TRUNCATED = (200, {"Content-Type": "application/json"}, b'[[1704067200000,"40000.0","4001')
CUT_OFF = (200, {"Content-Type": "application/json", "Content-Length": "500"}, b'[[1704067200000,"400')
EMPTY = json_answer([])
UNKNOWN = failure(400, -1121, "Invalid symbol.")
NO_ANSWER = 1.0


@pytest.fixture
def binance() -> Binance:
    return Binance()


@pytest.fixture
def address(binance: Binance) -> Iterator[str]:
    with serving(binance) as url:
        yield url


@pytest.fixture
def market(tmp_path: Path) -> MarketData:
    return MarketData(tmp_path)


@pytest.fixture
def fetch(market, address):
    def ask(symbol="BTC/USDT", since=START, now=NOW, **options):
        options = {"retry_policy": SWIFT, "base_url": address, **options}
        return market.fetch(symbol, "1h", "binance", since, now=now, **options)

    return ask


def hours(requests: list[int]) -> list[int]:
    return [(since - int(START.timestamp() * 1000)) // HOUR_MS for since in requests]


def test_all_pages_are_fetched_and_the_open_candle_is_left_out(fetch, binance, market):
    info = fetch()
    assert (info.bars, info.gaps, info.start, info.end) == (25, 0, START, START + timedelta(hours=24))
    assert hours(binance.request_starts) == [0, 10, 20]
    assert market.bars("BTCUSDT", "1h", closed_by=NOW).volume.tolist() == [12.5] * 25


def test_a_second_fetch_goes_on_from_the_last_stored_bar(fetch, binance):
    fetch(now=START + timedelta(hours=12))
    binance.request_starts.clear()
    assert fetch(since=None).bars == 25
    assert hours(binance.request_starts) == [11, 21]


def test_bars_before_the_stored_ones_can_be_added(fetch, binance):
    fetch(since=START + timedelta(hours=15))
    binance.request_starts.clear()
    assert fetch().bars == 25
    assert hours(binance.request_starts) == [0, 10, 24]


def test_a_last_bar_that_has_changed_since_is_refused_and_kept_in_quarantine(fetch, binance, tmp_path):
    fetch(now=START + timedelta(hours=12))
    opens = int((START + timedelta(hours=11)).timestamp() * 1000)
    binance.bars[opens][4] = "40064.00000000"
    with pytest.raises(InvalidBars, match="contradicts-store"):
        fetch(since=None)
    assert [path.name for path in sorted(tmp_path.glob("quarantine/*/*"))] == [
        "binance_BTCUSDT_1h.csv",
        "report.json",
    ]


def test_an_outage_of_the_exchange_is_a_gap_and_not_filled(fetch, binance, market):
    for hour in range(9, 13):
        del binance.bars[int((START + timedelta(hours=hour)).timestamp() * 1000)]
    assert fetch().gaps == 1
    assert [gap.missing for gap in market.bars("BTCUSDT", "1h", closed_by=NOW).gaps] == [4]


def test_the_missing_bars_of_a_page_with_only_the_newest_are_requested(fetch, binance, monkeypatch):
    """A request for six bars from hour 0 is answered with the last two: the other four are not lost."""
    monkeypatch.setattr(exchange, "PAGE", 6)
    whole = Binance.answer

    def newest_two(self, path, query):
        status, headers, body = whole(self, path, query)
        return (
            (status, headers, body) if path.endswith("/exchangeInfo") else json_answer(json.loads(body)[-2:])
        )

    monkeypatch.setattr(Binance, "answer", newest_two)
    assert (fetch().bars, fetch().gaps) == (25, 0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(TOO_MANY, id="429"),
        pytest.param(BANNED, id="418"),
        pytest.param(BUSY, id="503"),
        pytest.param(BROKEN, id="502 as HTML"),
        pytest.param(NO_ANSWER, id="time-out"),
        pytest.param(TRUNCATED, id="truncated JSON"),
        pytest.param(CUT_OFF, id="connection cut"),
        pytest.param(HTML, id="HTML"),
    ],
)
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_failure_in_the_middle_is_retried_and_no_page_is_skipped(fetch, binance, answer, repeats):
    binance.replacements = [
        json_answer([kline(opens) for opens in sorted(binance.bars)[:10]]),
        *[answer] * repeats,
    ]
    if repeats < SWIFT.attempts:
        assert fetch().gaps == 0
    else:
        with pytest.raises(
            SourceUnavailable, match=r"binance did not give BTC/USDT 1h .*Run the command again later"
        ):
            fetch()
    assert fetch(since=None).bars == 25


def test_a_page_that_is_empty_although_bars_are_due_is_an_error_and_later_ones_are_not_taken(fetch, binance):
    binance.replacements = [json_answer([kline(opens) for opens in sorted(binance.bars)[:10]]), *[EMPTY] * 3]
    later = NOW + timedelta(days=3)
    with pytest.raises(
        SourceUnavailable, match=r"an empty page, although bars from 2024-01-01 10:00 UTC on are due"
    ):
        fetch(now=later)


def test_an_empty_page_right_before_now_is_the_end(fetch, binance):
    binance.bars = dict(sorted(binance.bars.items())[:20])
    assert fetch().bars == 20


def test_retry_after_is_kept(fetch, binance):
    binance.replacements = [TOO_MANY]
    started = time.monotonic()
    fetch()
    assert time.monotonic() - started >= 0.2


def test_a_wait_beyond_the_deadline_is_not_begun(fetch, binance):
    binance.replacements = [failure(418, -1003, "IP banned.", Retry_After="3600")]
    started = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"Retry-After: 3600 s"):
        fetch()
    assert time.monotonic() - started < 5


def test_the_deadline_ends_a_fetch(fetch, binance):
    binance.replacements = [BUSY] * 1000
    started = time.monotonic()
    with pytest.raises(SourceUnavailable):
        fetch(retry_policy=RetryPolicy(request_s=0.3, deadline_s=1.0, attempts=1000, first_wait_s=0.01))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Mon, 01 Jan 2024 00:00:30 GMT", "Date": "Mon, 01 Jan 2024 00:00:00 GMT"}, 30.0),
        ({"Retry-After": "soon", "Date": "Mon, 01 Jan 2024 00:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    assert exchange._retry_after(headers) == seconds


def test_a_symbol_the_exchange_refuses_is_unknown(fetch, binance):
    binance.replacements = [UNKNOWN]
    with pytest.raises(UnknownSeries, match=r"-1121"):
        fetch()


def test_a_symbol_the_exchange_does_not_list_is_unknown_and_near_ones_are_named(fetch):
    with pytest.raises(UnknownSeries, match="BTCUSDT"):
        fetch(symbol="BTCUSD")


@pytest.mark.parametrize("answer", [HTML, TRUNCATED, json_answer({"symbols": []})])
def test_a_list_of_markets_that_is_nonsense_is_no_unknown_symbol(fetch, monkeypatch, answer):
    monkeypatch.setattr(Binance, "answer", lambda self, path, query: answer)
    with pytest.raises(SourceUnavailable, match="its markets"):
        fetch()


def test_an_unknown_exchange_is_refused_with_similar_names(market):
    with pytest.raises(UnknownSeries, match="binance"):
        market.fetch("BTCUSDT", "1h", "binanse", START, now=NOW)


def test_a_server_that_is_not_there_is_unavailable(market):
    with pytest.raises(SourceUnavailable):
        market.fetch(
            "BTCUSDT", "1h", "binance", START, now=NOW, retry_policy=SWIFT, base_url="http://127.0.0.1:9"
        )


def test_the_first_fetch_needs_a_beginning(fetch):
    with pytest.raises(UnknownSeries, match="--since"):
        fetch(since=None)


def test_progress_grows_up_to_the_last_bar(fetch):
    shares: list[float] = []
    fetch(progress=shares.append)
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1.0
