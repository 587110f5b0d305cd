"""Market data: the series of the installation, without the bars themselves."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Path
from pydantic import AwareDatetime, BaseModel

from clm_core.api.context import Connected
from clm_core.domain.errors import NotFound, UnknownSeries
from clm_core.domain.spellings import TIMEFRAMES
from clm_core.services import Services

if TYPE_CHECKING:
    from clm_core.market.sources import SeriesInfo
    from clm_core.market.store import Snapshot

SymbolInPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$", examples=["BTCUSD"])]
TimeframeInPath = Annotated[
    str, Path(pattern=f"^({'|'.join(TIMEFRAMES)})$", examples=["1h"], description="Length of a bar.")
]


class StoredSeries(BaseModel):
    """Newest state of a series of bars."""

    symbol: str
    timeframe: str
    calendar: str
    source: str
    bars: int
    start: AwareDatetime
    end: AwareDatetime
    """Open time of the last bar."""
    gaps: int
    """Number of outages."""
    missing_bars: int
    """Number of bars missing in the outages."""
    content_hash: str
    """SHA-256 of the bars, hexadecimal."""
    native: str | None
    """Symbol in the spelling of the source, where the spelling differs."""
    allowed: Mapping[str, int]
    """Rules overruled by imports, each with the number of bars."""
    adjusted: Mapping[str, int]
    """Corrections of imports, each with the number of bars."""
    snapshots: int
    """Number of snapshots, each readable by hash."""
    corrected: int
    """Number of bars corrected, replaced or filled in, over all snapshots."""
    waiting: int
    """Number of stored bars with other values at the source, waiting for `clm data replace`."""
    newest_close: AwareDatetime
    """Close time of the last bar."""
    late_bars: int
    """Bars that the calendar of the market requires after the last bar, up to now."""
    is_stale: bool
    """True from `watch.stale_bars` late bars on."""


class SeriesSnapshot(BaseModel):
    """State of a series after an import or a fetch."""

    content_hash: str
    source: str
    bars: int
    start: AwareDatetime
    end: AwareDatetime
    written_at: AwareDatetime
    changed: int
    """Number of bars changed, added between others, or removed; 0 if bars were only appended."""
    reason: str
    """Reason given by the person who replaced bars; empty otherwise."""
    by: str
    """Person who replaced bars; empty otherwise."""


class SeriesHistory(StoredSeries):
    history: list[SeriesSnapshot]
    """Snapshots, oldest first."""


def list_series(clm: Connected) -> list[StoredSeries]:
    """Every series of bars: imported, fetched or bundled."""
    return [StoredSeries.model_validate(_facts(clm, info)) for info in clm.market.series()]


def one_series(symbol: SymbolInPath, timeframe: TimeframeInPath, clm: Connected) -> SeriesHistory:
    """One series with the history of the snapshots."""
    try:
        info = clm.market.newest(symbol, timeframe)
        manifest = clm.market.manifest(symbol, timeframe)
    except UnknownSeries as error:
        raise NotFound(str(error)) from error
    history = [_snapshot(each) for each in manifest.snapshots]
    return SeriesHistory.model_validate(_facts(clm, info) | {"history": history})


def _facts(clm: Services, info: "SeriesInfo") -> dict[str, Any]:
    # imported here: the libraries of bars
    from clm_core.decisions.staleness import age_of
    from clm_core.market.newest_bars import NewestBar

    newest = NewestBar(info.symbol, info.timeframe, info.calendar, info.end)
    age = age_of(newest, clm.clock(), clm.settings.watch.stale_bars)
    return asdict(info) | age.model_dump(include={"newest_close", "late_bars", "is_stale"})


def _snapshot(snapshot: "Snapshot") -> dict[str, Any]:
    revision = snapshot.revision
    changes = (0, "", "") if revision is None else (revision.bars, revision.reason, revision.actor)
    facts = snapshot.model_dump(include={"content_hash", "source", "bars", "start", "end", "written_at"})
    return facts | dict(zip(("changed", "reason", "by"), changes, strict=True))
