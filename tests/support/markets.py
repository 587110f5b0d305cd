"""Markets in any number."""

from datetime import UTC, datetime
from pathlib import Path

from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore

BARS = 2_000
IMPORTED = datetime(2026, 3, 1, tzinfo=UTC)


def add_markets(home: Path, count: int) -> list[str]:
    """Import the same bars, enough for a small training, under `count` symbols, and return the symbols."""
    bars = MarketData(home).bars("EURUSD", "1h", closed_by=datetime.now(UTC))[:BARS]
    symbols = [f"M{number:03}USD" for number in range(count)]
    for symbol in symbols:
        _add(home, symbol, bars)
    return symbols


def add_market(home: Path, symbol: str) -> None:
    """Import the bars of EURUSD under a symbol that no other test has jobs of."""
    _add(home, symbol, MarketData(home).bars("EURUSD", "1h", closed_by=datetime.now(UTC)))


def _add(home: Path, symbol: str, bars: Bars) -> None:
    columns = [getattr(bars, name) for name in ("time", "open", "high", "low", "close", "volume")]
    SeriesStore(home / "data").add(Bars(symbol, bars.timeframe, bars.calendar, *columns), "tests", IMPORTED)
