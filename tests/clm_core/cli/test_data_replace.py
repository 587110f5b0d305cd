"""`clm data replace` on files of the field and on a local exchange."""

import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from exchanges import START, SWIFT, Binance, kline, serving
from typer.testing import CliRunner, Result

from clm_core.cli.data import app
from clm_core.domain.errors import DataError, StoredBarsDiffer
from clm_core.market.sources import MarketData

FIELD = Path(__file__).parents[2] / "data" / "field"
FIRST = FIELD / "09a_spy_first_download.csv"
RESTATED = FIELD / "09b_spy_after_dividend_restated.csv"
CLOSED_BY = datetime(2026, 1, 1, tzinfo=UTC)
Clm = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "a home"))
    return tmp_path / "a home"


@pytest.fixture
def clm(home: Path) -> Clm:
    """`clm data …`; an error is raised, as it is for `main`, which prints it."""

    def run(*words: object, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], input=answer, catch_exceptions=False)

    return run


@pytest.fixture
def command(clm: Clm) -> list[str]:
    """The command in the refusal of the restated download, without `clm data`."""
    clm("import", FIRST, "--symbol", "SPY", "--timeframe", "1d")
    with pytest.raises(StoredBarsDiffer) as refusal:
        clm("import", RESTATED, "--symbol", "SPY", "--timeframe", "1d")
    message = str(refusal.value)
    assert "re-adjusted: prices up to 2021-03-31 are multiplied by 0.9962 (a dividend" in message
    words = shlex.split(message[message.index("clm data replace") :])
    assert words[-4:] == ["--from", "2021-01-05", "--to", "2021-03-31"]
    return words[2:]


def test_a_restated_download_is_taken_by_the_command_in_its_refusal(
    clm: Clm, command: list[str], home: Path
) -> None:
    market = MarketData(home)
    before = market.newest("SPY", "1d")
    shown = clm(*command, "--reason", "dividend of March", answer="y\n").output
    assert "60 bars changed, 0 added, 0 removed; first 2021-01-05 00:00, last 2021-03-31 00:00" in shown
    assert "Largest change of a price: 0.38%." in shown
    assert "Recognised: re-adjusted: prices up to 2021-03-31 are multiplied by 0.9962" in shown
    assert market.bars("SPY", "1d", content_hash=before.content_hash, closed_by=CLOSED_BY).close[0] == (
        370.11797887999995
    )
    newest = market.bars("SPY", "1d", closed_by=CLOSED_BY)
    examined = market.examine_file(RESTATED, "SPY", "1d", now=CLOSED_BY)
    assert newest.content_hash == examined.bars.content_hash
    assert "corrected 60 bars in 1 of 2 snapshots" in clm("show", "SPY", "1d").output
    assert "(dividend of March): 60 corrected: re-adjusted" in clm("show", "SPY", "1d").output
    clm("import", RESTATED, "--symbol", "SPY", "--timeframe", "1d")
    assert market.newest("SPY", "1d").snapshots == 2


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_replaced_without_a_yes(clm: Clm, command: list[str], home: Path, answer: str) -> None:
    before = MarketData(home).newest("SPY", "1d")
    assert clm(*command, answer=answer).exit_code == 1
    preview = json.loads(clm(*command, "--json").stdout)
    assert (preview["replaced"], preview["changes"]["changed"]) == (False, 60)
    assert MarketData(home).newest("SPY", "1d") == before


def test_a_script_replaces_a_part_and_is_warned_of_the_old_scale_of_the_rest(
    clm: Clm, command: list[str], home: Path
) -> None:
    part = [*command[:-4], "--from", "2021-03-01", "--to", "2021-03-31"]
    assert "Warning: 37 stored bars outside the span keep the old scale" in clm(*part, "--yes").output
    info = MarketData(home).newest("SPY", "1d")
    assert (info.corrected, info.bars) == (23, 60)
    done = json.loads(clm(*command, "--json", "--yes").stdout)
    assert (done["replaced"], done["changes"]["changed"]) == (True, 37)
    assert done["content_hash"] == MarketData(home).newest("SPY", "1d").content_hash


def test_a_whole_series_is_replaced_by_the_bars_of_a_file(clm: Clm, home: Path, tmp_path: Path) -> None:
    clm("import", FIRST, "--symbol", "SPY", "--timeframe", "1d")
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("\n".join(RESTATED.read_text().splitlines()[:41]))
    shown = clm("replace", "SPY", "1d", shorter, "--yes").output
    assert "40 bars changed, 0 added, 20 removed" in shown
    assert MarketData(home).newest("SPY", "1d").bars == 40


def test_the_calendar_of_a_stored_series_is_replaced(clm: Clm, home: Path) -> None:
    clm("import", FIRST, "--symbol", "SPY", "--timeframe", "1d", "--calendar", "24x7")
    assert "calendar 24x7 -> XNYS" in clm("replace", "SPY", "1d", "--calendar", "XNYS", "--yes").output
    info = MarketData(home).newest("SPY", "1d")
    assert (info.calendar, info.bars, info.gaps) == ("XNYS", 60, 0)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="no source"),
        pytest.param([str(FIRST), "--exchange", "binance"], id="two sources"),
        pytest.param([str(FIRST), "--from", "yesterday"], id="a time that is none"),
    ],
)
def test_a_command_without_a_single_source_or_with_a_malformed_time_is_refused(
    clm: Clm, words: list[str]
) -> None:
    assert clm("replace", "SPY", "1d", *words).exit_code == 2


def test_a_series_that_is_not_stored_cannot_be_replaced(clm: Clm) -> None:
    with pytest.raises(DataError, match="SPY 1d is not stored, so nothing can be replaced"):
        clm("replace", "SPY", "1d", FIRST)


@pytest.fixture
def binance() -> Binance:
    return Binance()


@pytest.fixture
def address(binance: Binance) -> Iterator[str]:
    with serving(binance) as url:
        yield url


def test_bars_of_an_exchange_are_taken_by_the_command_in_the_refusal(
    clm: Clm, home: Path, binance: Binance, address: str
) -> None:
    market = MarketData(home)
    opens = int((START + timedelta(hours=11)).timestamp() * 1000)

    def fetch(hours: float) -> None:
        now = START + timedelta(hours=hours)
        options = {"now": now, "retry_policy": SWIFT, "base_url": address}
        market.fetch("BTCUSDT", "1h", "binance", START, **options)

    fetch(12)
    binance.bars[opens] = kline(opens, offset=2000)
    for hours in (13, 20):
        with pytest.raises(StoredBarsDiffer) as refusal:
            fetch(hours)
    assert "waiting   1 bars differ at the source, first 2024-01-01 11:00 open" in (
        clm("show", "BTCUSDT", "1h").output
    )
    message = str(refusal.value)
    words = shlex.split(message[message.index("clm data replace") : message.index("; to keep the stored")])
    shown = clm(*words[2:], "--yes").output
    assert "1 bars changed, 0 added, 0 removed" in shown
    fetch(21)
    assert (market.newest("BTCUSDT", "1h").bars, market.newest("BTCUSDT", "1h").waiting) == (21, 0)
    assert market.bars("BTCUSDT", "1h", closed_by=CLOSED_BY).open[11] == 42_063.0


def test_stored_bars_are_kept_by_the_other_command_in_the_refusal(
    clm: Clm, home: Path, binance: Binance, address: str
) -> None:
    market = MarketData(home)
    opens = int((START + timedelta(hours=11)).timestamp() * 1000)
    options = {"retry_policy": SWIFT, "base_url": address}
    market.fetch("BTCUSDT", "1h", "binance", START, now=START + timedelta(hours=12), **options)
    binance.bars[opens] = kline(opens, offset=2000)
    with pytest.raises(StoredBarsDiffer) as refusal:
        market.fetch("BTCUSDT", "1h", "binance", now=START + timedelta(hours=13), **options)
    message = str(refusal.value)
    words = shlex.split(message[message.rindex("clm data replace") :])
    assert "0 bars still differ" in clm(*words[2:]).output
    assert market.fetch("BTCUSDT", "1h", "binance", now=START + timedelta(hours=14), **options).bars == 14
