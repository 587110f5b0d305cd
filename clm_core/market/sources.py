"""Where bars come from: what was imported or fetched, and the series that ship with the package."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from clm_core.domain.errors import InvalidBars, UnknownSeries
from clm_core.market import quarantine
from clm_core.market.bars import Bars
from clm_core.market.reading import Layout, read_bars
from clm_core.market.store import Manifest, SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import normalise_symbol, validate

BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class SeriesInfo:
    """The newest state of one series."""

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    source: str
    bars: int
    start: datetime
    end: datetime
    """Open time of the last bar."""
    gaps: int
    """Outages."""
    missing_bars: int
    """Bars missing in the outages."""
    content_hash: str
    """SHA-256 of the bars, hexadecimal; `MarketData.bars(..., content_hash=...)` reads this very state."""


class MarketData:
    """All bars there are: those stored under `home`, and where nothing is stored, the bundled ones."""

    def __init__(self, home: Path) -> None:
        self._store = SeriesStore(home / "data")
        self._bundled = SeriesStore(BUNDLED)
        self._quarantine = home / "quarantine"

    def series(self) -> list[SeriesInfo]:
        manifests = [*self._bundled.manifests(), *self._store.manifests()]
        newest = {(manifest.symbol, manifest.timeframe): manifest for manifest in manifests}
        return [_info(newest[key]) for key in sorted(newest)]

    def bars(
        self, symbol: str, timeframe: str, days: int | None = None, content_hash: str | None = None
    ) -> Bars:
        """The newest `days` of a series, or all of it; `content_hash` picks an earlier state of the whole.

        Raises:
            UnknownSeries: there is no such series or state; the message lists what there is.
            StoreCorrupt: the stored file is not the one that was written.
        """
        name = normalise_symbol(symbol)
        step = _timeframe(timeframe)
        stores = [self._store, self._bundled]
        found = [(store, manifest) for store in stores if (manifest := store.manifest(name, step))]
        if not found:
            have = ", ".join(f"{info.symbol} {info.timeframe}" for info in self.series())
            raise UnknownSeries(
                f"there is no series {name} {step}; there is {have}. "
                "Add it with `clm data import` or `clm data fetch`"
            )
        store, manifest = next((pair for pair in found if _has(pair[1], content_hash)), found[0])
        bars = store.read(manifest, content_hash)
        return bars if days is None else bars.last_days(days)

    def import_file(
        self,
        path: Path,
        symbol: str,
        timeframe: str,
        calendar: Calendar = Calendar.ALWAYS,
        *,
        now: datetime,
        layout: Layout | None = None,
        reverse: bool = False,
        drop_open_bar: bool = False,
    ) -> SeriesInfo:
        """Add a file's bars to the store, all or none; a refused file is kept in quarantine.

        Raises:
            InvalidBars: a rule is broken; the file and a report lie in quarantine.
        """
        step = _timeframe(timeframe)
        try:
            frame = read_bars(path, symbol, layout or Layout())
            frame = frame[::-1].reset_index(drop=True) if reverse else frame
            bars = validate(
                frame, symbol, step, calendar, now=now, origin=str(path), drop_open_bar=drop_open_bar
            )
            return _info(self._store.add(bars, path.name, now))
        except InvalidBars as refusal:
            raise quarantine.keep(self._quarantine, path.name, path.read_bytes(), refusal, now) from refusal

    def fetch(
        self,
        symbol: str,
        timeframe: str,
        exchange: str,
        since: datetime | None = None,
        *,
        now: datetime,
    ) -> SeriesInfo:
        raise NotImplementedError


def _timeframe(name: str) -> Timeframe:
    if name not in list(Timeframe):
        raise UnknownSeries(f"there is no timeframe {name!r}; use one of {', '.join(Timeframe)}")
    return Timeframe(name)


def _has(manifest: Manifest, content_hash: str | None) -> bool:
    wanted = content_hash or ""
    return any(snapshot.content_hash.startswith(wanted) for snapshot in manifest.snapshots)


def _info(manifest: Manifest) -> SeriesInfo:
    newest = manifest.snapshots[-1]
    return SeriesInfo(
        symbol=manifest.symbol,
        timeframe=manifest.timeframe,
        calendar=manifest.calendar,
        source=newest.source,
        bars=newest.bars,
        start=newest.start,
        end=newest.end,
        gaps=newest.gaps,
        missing_bars=newest.missing_bars,
        content_hash=newest.content_hash,
    )
