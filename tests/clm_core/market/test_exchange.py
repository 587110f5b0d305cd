"""The real ccxt client against a local server with Binance's API."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from exchanges import HOUR_MS, NOW, START, SWIFT, Binance, failure, json_answer, kline, serving

from clm_core.domain.errors import DataError, InvalidBars, SourceUnavailable, StoredBarsDiffer, UnknownSeries
from clm_core.domain.exchange_settings import ExchangeKeys
from clm_core.market import exchange
from clm_core.market.bar_source import ExchangeSource
from clm_core.market.exchange import RetryPolicy
from clm_core.market.sources import MarketData
from clm_core.settings import Settings

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


def test_the_spelling_of_the_exchange_is_kept_beside_the_canonical_name(fetch):
    assert (fetch().symbol, fetch(since=None).native) == ("BTCUSDT", "BTC/USDT")
    assert fetch("BTCUSDT", since=None).native == "BTC/USDT"


def test_a_second_fetch_begins_with_the_three_newest_stored_bars(fetch, binance):
    fetch(now=START + timedelta(hours=12))
    binance.request_starts.clear()
    assert fetch(since=None).bars == 25
    assert hours(binance.request_starts) == [9, 19]


def test_bars_before_the_stored_ones_can_be_added(fetch, binance):
    fetch(since=START + timedelta(hours=15))
    binance.request_starts.clear()
    assert fetch().bars == 25
    assert hours(binance.request_starts) == [0, 10, 22]


def opens(hour: int) -> int:
    return int((START + timedelta(hours=hour)).timestamp() * 1000)


def test_a_feed_goes_on_when_the_exchange_corrects_its_last_bar(fetch, binance, market):
    """Field report: 11 of 11 later fetches were refused after a volume had become 12.6."""
    before = fetch(now=START + timedelta(hours=12))
    binance.bars[opens(11)][5] = "12.60000000"
    for hour in range(13, 24):
        info = fetch(since=None, now=START + timedelta(hours=hour))
        assert (info.bars, info.corrected, info.waiting) == (hour, 1, 0)
    assert market.bars("BTCUSDT", "1h", closed_by=NOW).volume.tolist() == [12.5] * 11 + [12.6] + [12.5] * 11
    earlier = market.bars("BTCUSDT", "1h", content_hash=before.content_hash, closed_by=NOW)
    assert earlier.volume.tolist() == [12.5] * 12
    [(snapshot, revision)] = market.manifest("BTCUSDT", "1h").revisions
    assert (snapshot.bars, revision.changed, revision.added, revision.removed) == (13, 1, 0, 0)
    assert [str(value) for value in revision.values] == ["2024-01-01 11:00 volume 12.5 -> 12.6"]


@pytest.mark.parametrize("hour", [9, 10, 11])
def test_each_of_the_three_newest_stored_bars_is_corrected(fetch, binance, market, hour):
    fetch(now=START + timedelta(hours=12))
    binance.bars[opens(hour)][4] = str(float(binance.bars[opens(hour)][4]) + 1)
    assert (fetch(since=None).bars, fetch(since=None).corrected) == (25, 1)
    assert market.bars("BTCUSDT", "1h", closed_by=NOW).close[hour] == float(binance.bars[opens(hour)][4])


def test_more_bars_are_read_again_if_told(fetch, binance, market):
    fetch(now=START + timedelta(hours=12))
    binance.bars[opens(5)][5] = "12.60000000"
    assert fetch(since=None).corrected == 0
    assert fetch(since=None, rechecked=20).corrected == 1
    assert market.bars("BTCUSDT", "1h", closed_by=NOW).volume[5] == 12.6


def scaled(kline: list[object], factor: float) -> list[object]:
    prices = [f"{float(str(price)) * factor:.8f}" for price in kline[1:5]]
    return [kline[0], *prices, *kline[5:]]


def quoted(kline: list[object]) -> list[object]:
    return [*kline[:5], "500000.0", *kline[6:]]


@pytest.mark.parametrize(
    ("hours_changed", "change", "why"),
    [
        pytest.param([11], lambda kline: scaled(kline, 1.02), "a price changes by more than 1%", id="price"),
        pytest.param([11], quoted, "a volume changes by a factor of more than 100", id="unit of the volume"),
        pytest.param(
            [9, 10, 11], lambda kline: scaled(kline, 0.995), "re-adjusted: prices before", id="re-adjusted"
        ),
        pytest.param([10], lambda kline: None, "no longer has a bar", id="deleted"),
    ],
)
def test_a_difference_for_a_person_leaves_the_stored_bar_and_the_feed_goes_on(
    fetch, binance, market, tmp_path, hours_changed, change, why
):
    fetch(now=START + timedelta(hours=12))
    stored = market.bars("BTCUSDT", "1h", closed_by=NOW)
    for hour in hours_changed:
        changed = change(binance.bars.pop(opens(hour)))
        if changed is not None:
            binance.bars[opens(hour)] = changed
    refusals = []
    for hour in range(13, 20):
        with pytest.raises(StoredBarsDiffer, match="contradicts-store") as refusal:
            fetch(since=None, now=START + timedelta(hours=hour))
        refusals.append(str(refusal.value))
        assert market.stored("BTCUSDT", "1h").bars == hour
    assert why in refusals[0]
    first = hours_changed[0]
    last = hours_changed[-1]
    command = f"clm data replace BTC/USDT 1h --exchange binance --base-url {fetch_address(refusals[0])}"
    assert f"{command} --from 2024-01-01T{first:02}:00 --to 2024-01-01T{last:02}:00" in refusals[0]
    assert len(set(refusals)) == 1, "an alert is sent once for one text"
    newest = market.bars("BTCUSDT", "1h", closed_by=NOW)
    assert newest[:12].content_hash == stored.content_hash
    assert len(list(tmp_path.glob("quarantine/*"))) == 1


def fetch_address(refusal: str) -> str:
    return refusal.split("--base-url ")[1].split(" ", maxsplit=1)[0]


def test_a_difference_ends_when_the_exchange_returns_to_the_stored_values(fetch, binance, market):
    fetch(now=START + timedelta(hours=12))
    gone = binance.bars.pop(opens(10))
    with pytest.raises(StoredBarsDiffer):
        fetch(since=None, now=START + timedelta(hours=12.5))
    binance.bars[opens(10)] = gone
    assert fetch(since=None, now=START + timedelta(hours=13)).waiting == 0


def test_a_person_keeps_the_stored_bars_and_the_fetch_reports_them_no_more(fetch, binance, market):
    fetch(now=START + timedelta(hours=12))
    binance.bars[opens(11)] = scaled(binance.bars[opens(11)], 1.02)
    with pytest.raises(StoredBarsDiffer):
        fetch(since=None, now=START + timedelta(hours=12.5))
    assert market.keep_stored("BTCUSDT", "1h").waiting == 0
    assert fetch(since=None, now=START + timedelta(hours=13)).waiting == 0
    binance.bars[opens(11)] = scaled(binance.bars[opens(11)], 1.02)
    with pytest.raises(StoredBarsDiffer):
        fetch(since=None, now=START + timedelta(hours=13))


def test_an_answer_without_the_newest_stored_bars_says_nothing_about_them(fetch, binance, market):
    fetch(now=START + timedelta(hours=12))
    for hour in (9, 10, 11):
        del binance.bars[opens(hour)]
    assert fetch(since=None, now=START + timedelta(hours=12.5)).bars == 12
    assert fetch(since=None, now=START + timedelta(hours=13)).bars == 13


def test_a_bar_that_arrives_late_fills_its_place(fetch, binance, market):
    late = binance.bars.pop(opens(10))
    assert fetch(now=START + timedelta(hours=12)).gaps == 1
    binance.bars[opens(10)] = late
    info = fetch(since=None, now=START + timedelta(hours=13))
    assert (info.bars, info.gaps, info.corrected) == (13, 0, 1)
    [(_, revision)] = market.manifest("BTCUSDT", "1h").revisions
    assert (revision.added, revision.first) == (1, START + timedelta(hours=10))


def test_an_invalid_answer_about_a_stored_bar_does_not_hold_up_later_bars(fetch, binance, market):
    fetch(now=START + timedelta(hours=12))
    binance.bars[opens(11)][2] = "1.00000000"
    with pytest.raises(InvalidBars, match="high-below-low"):
        fetch(since=None, now=START + timedelta(hours=16))
    assert market.stored("BTCUSDT", "1h").bars == 16


def test_a_rule_named_in_the_refusal_is_overruled_for_a_fetch_and_recorded(fetch, binance, market):
    for hour in range(2, 14):
        binance.bars[opens(hour)][1:6] = binance.bars[opens(1)][1:6]
    with pytest.raises(InvalidBars, match="Meant so: --allow stuck-price"):
        fetch(now=START + timedelta(hours=12))
    assert fetch(now=START + timedelta(hours=12), allow=["stuck-price"]).allowed == {"stuck-price": 11}
    # the run goes on in bars of later fetches, which need no permission of their own
    assert fetch(since=None).bars == 25
    with pytest.raises(DataError, match="no rule 'stuck'"):
        fetch(allow=["stuck"])


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


KEYS = {"api_key": "key-of-a-reader", "secret": "s3cret-of-a-reader"}


def test_keys_of_the_settings_sign_the_requests_of_private_endpoints(market, address, binance):
    binance.keys = (KEYS["api_key"], KEYS["secret"])
    source = ExchangeSource("binance", SWIFT, address, ExchangeKeys(**KEYS))
    info = market.fetch("BTC/USDT", "1h", source, START, now=NOW)
    assert info.bars == 25
    assert binance.signed_requests > 0


def test_refused_keys_are_named_without_their_values(market, address, binance):
    source = ExchangeSource("binance", SWIFT, address, ExchangeKeys(**KEYS))
    with pytest.raises(
        SourceUnavailable, match=r"AuthenticationError.*Invalid API-key \(hidden\)"
    ) as refused:
        market.fetch("BTC/USDT", "1h", source, START, now=NOW)
    assert not any(value in str(refused.value) for value in KEYS.values())


def test_keys_rotated_in_the_server_of_secrets_are_read_again_once_refused(
    tmp_path, market, address, binance, bao, monkeypatch
):
    monkeypatch.setenv("VAULT_TOKEN", bao.token())
    monkeypatch.setattr("clm_core.platform.secrets.REREAD_AFTER_SECONDS", 0.0)
    path = bao.new_path(**KEYS)
    named = {name: f"vault://{path}#{name}" for name in KEYS}
    settings = Settings(home=tmp_path, vault=bao.settings(), exchanges={"binance": named})
    assert settings.exchanges["binance"].credentials()["secret"] == KEYS["secret"]
    rotated = {"api_key": "newer-key", "secret": "newer-secret"}
    bao.write(path, **rotated)
    binance.keys = ("newer-key", "newer-secret")
    source = ExchangeSource("binance", SWIFT, address, settings.exchanges["binance"])
    info = market.fetch("BTC/USDT", "1h", source, START, now=NOW)
    assert (info.bars, binance.signed_requests > 0) == (25, True)
