"""Series on disk: immutable, content-addressed snapshots and a manifest listing the snapshots by age.

    <root>/BTCUSDT/1h/manifest.json
    <root>/BTCUSDT/1h/<content hash>.parquet

Files are never changed in place: an addition writes a new snapshot, then replaces the manifest atomically.
"""

import fcntl
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import DataError, Finding, InvalidBars, InvalidSymbol, StoreCorrupt, UnknownSeries
from clm_core.domain.spellings import native_symbol, same_market
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import validate

NOTHING: Mapping[str, int] = MappingProxyType({})


class Snapshot(BaseModel):
    """State of a series after an import or a fetch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    content_hash: str
    """`Bars.content_hash`, hexadecimal; also the name of the file."""
    file_sha256: str
    """Digest of the parquet file, hexadecimal."""
    source: str
    """Origin of the newest bars: a file or an exchange."""
    bars: int
    start: datetime
    end: datetime
    """Open time of the last bar."""
    gaps: int
    """Number of outages."""
    missing_bars: int
    """Number of bars missing in the outages."""
    written_at: datetime
    allowed: dict[str, int] = {}
    """Rules overruled by the import (`--allow RULE`), each with the number of bars concerned."""
    adjusted: dict[str, int] = {}
    """Corrections made on the way in, each with the number of bars: `rounded`, `empty-rows`, ..."""


class SeriesManifest(BaseModel):
    """A series with all snapshots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    snapshots: tuple[Snapshot, ...]
    """Snapshots, oldest first; the last snapshot is the current state."""
    native: str | None = None
    """Symbol in the spelling of the source: `BTC/USDT:USDT`."""

    @property
    def allowed(self) -> frozenset[str]:
        """Rules overruled by any import of the series: bars that break the rules are stored."""
        return frozenset(rule for snapshot in self.snapshots for rule in snapshot.allowed)


class SeriesStore:
    """Series below a folder; safe for concurrent processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def manifests(self) -> list[SeriesManifest]:
        return [_read_manifest(path) for path in sorted(self.root.glob("*/*/manifest.json"))]

    def manifest(self, symbol: str, timeframe: Timeframe) -> SeriesManifest | None:
        path = self._folder(symbol, timeframe) / "manifest.json"
        return _read_manifest(path) if path.exists() else None

    def read(self, manifest: SeriesManifest, content_hash: str | None = None) -> Bars:
        """Bars of the newest snapshot, or of the snapshot whose hash begins with `content_hash`.

        Raises:
            UnknownSeries: no snapshot, or more than one, has the hash.
            StoreCorrupt: the file differs from the file that was written.
        """
        prefix = manifest.snapshots[-1].content_hash if content_hash is None else content_hash
        matching = [snapshot for snapshot in manifest.snapshots if snapshot.content_hash.startswith(prefix)]
        if len(matching) != 1:
            have = ", ".join(snapshot.content_hash[:12] for snapshot in manifest.snapshots)
            raise UnknownSeries(
                f"{manifest.symbol} {manifest.timeframe} has no snapshot {prefix!r}; there is {have}"
            )
        path = self._folder(manifest.symbol, manifest.timeframe) / f"{matching[0].content_hash}.parquet"
        return _load(path, manifest, matching[0])

    def add(
        self,
        bars: Bars,
        source: str,
        now: datetime,
        *,
        native: str | None = None,
        allowed: Mapping[str, int] = NOTHING,
        adjusted: Mapping[str, int] = NOTHING,
    ) -> SeriesManifest:
        """Merge bars with the stored bars; overlapping bars must have equal values.

        Args:
            native: symbol in the spelling of the source.
            allowed, adjusted: as in `Snapshot`, for the new bars.

        Raises:
            InvalidBars: an overlapping bar contradicts the stored one, or the merged series breaks a rule.
            InvalidSymbol: the name is taken by another symbol of the source.
        """
        self._refuse_other_market(bars.symbol, native)
        folder = self._folder(bars.symbol, bars.timeframe)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            manifest = self.manifest(bars.symbol, bars.timeframe)
            merged = (
                bars
                if manifest is None
                else merge(
                    self.read(manifest), bars, source, now, allow=manifest.allowed | frozenset(allowed)
                )
            )
            if manifest is not None and merged.content_hash == manifest.snapshots[-1].content_hash:
                return manifest
            earlier = () if manifest is None else manifest.snapshots
            known = None if manifest is None else manifest.native
            if native is None or native_symbol(native) == bars.symbol:
                native = known
            return write_snapshot(
                folder, merged, source, now, earlier, native=native, allowed=allowed, adjusted=adjusted
            )

    def _refuse_other_market(self, symbol: str, native: str | None) -> None:
        for path in sorted(self.root.glob(f"{symbol}/*/manifest.json")):
            stored = _read_manifest(path).native
            if native is not None and stored is not None and not same_market(stored, native):
                other = re.sub(r"[^A-Za-z0-9]+", "-", native)
                raise InvalidSymbol(
                    f"{native} and the stored {stored} are different markets with the same canonical name "
                    f"{symbol}: pass another name, e.g. --symbol {other}"
                )

    def _folder(self, symbol: str, timeframe: Timeframe) -> Path:
        return self.root / symbol / timeframe.value


def merge(
    stored: Bars, new: Bars, source: str, now: datetime, *, allow: frozenset[str] = frozenset()
) -> Bars:
    """Both series merged, in time order.

    Args:
        allow: rules that the stored or the new bars break knowingly.

    Raises:
        DataError: the calendars differ.
        InvalidBars: an overlapping bar has other values, or the merged series breaks a rule.
    """
    if stored.calendar != new.calendar:
        raise DataError(
            f"{stored.symbol} {stored.timeframe} is stored with calendar {stored.calendar}: "
            f"pass --calendar {stored.calendar}"
        )
    _, there, here = np.intersect1d(stored.time, new.time, assume_unique=True, return_indices=True)
    differs = np.zeros(len(here), dtype=np.bool_)
    for field in FIELDS:
        differs |= getattr(stored, field)[there] != getattr(new, field)[here]
    if differs.any():
        raise InvalidBars(source, [_contradiction(stored, new, there[differs], here[differs])])
    both = pd.concat([stored.to_frame(), new.to_frame()])
    both = both[~both.index.duplicated()].sort_index()
    origin = f"{source} together with the stored bars"
    return validate(
        both, stored.symbol, stored.timeframe, stored.calendar, now=now, origin=origin, allow=allow
    )


def _contradiction(stored: Bars, new: Bars, there: Any, here: Any) -> Finding:
    old = stored.to_frame().iloc[there[0]]
    offered = new.to_frame().iloc[here[0]]
    message = (
        f"the bar is stored with other values. First: {offered.name} has {offered.tolist()}, "
        f"stored is {old.tolist()}; another source, or one of them was taken while the bar was open"
    )
    return Finding("contradicts-store", tuple(here[:20].tolist()), len(here), message)


def write_snapshot(
    folder: Path,
    bars: Bars,
    source: str,
    now: datetime,
    earlier: tuple[Snapshot, ...] = (),
    *,
    native: str | None = None,
    allowed: Mapping[str, int] = NOTHING,
    adjusted: Mapping[str, int] = NOTHING,
) -> SeriesManifest:
    """Write the bars as the newest snapshot of the series in `folder`; the caller holds the lock of the
    series."""
    content = _parquet(bars)
    snapshot = Snapshot(
        content_hash=bars.content_hash,
        file_sha256=hashlib.sha256(content).hexdigest(),
        source=source,
        bars=len(bars),
        start=bars.start.to_pydatetime(),
        end=bars.end.to_pydatetime(),
        gaps=len(bars.gaps),
        missing_bars=sum(gap.missing for gap in bars.gaps),
        written_at=now,
        allowed=dict(allowed),
        adjusted=dict(adjusted),
    )
    manifest = SeriesManifest(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        calendar=bars.calendar,
        snapshots=(*earlier, snapshot),
        native=native,
    )
    write_atomically(folder / f"{bars.content_hash}.parquet", content)
    write_atomically(folder / "manifest.json", manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers see the old or the complete new file, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclusive file lock between processes, released by the system on the death of the holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_manifest(path: Path) -> SeriesManifest:
    try:
        return SeriesManifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise StoreCorrupt(f"{path} is damaged: restore it from a backup, or delete its folder") from error


def _parquet(bars: Bars) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"timestamp": pa.array(bars.time).cast(pa.timestamp("ns", tz="UTC"))}
    columns |= {field: pa.array(getattr(bars, field)) for field in FIELDS}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _load(path: Path, manifest: SeriesManifest, snapshot: Snapshot) -> Bars:
    import pyarrow.parquet as pq

    damaged = f"{path} is missing or damaged: restore it from a backup, or delete its folder and import again"
    if not path.exists():
        raise StoreCorrupt(damaged)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != snapshot.file_sha256:
        raise StoreCorrupt(damaged)
    table = pq.read_table(io.BytesIO(content))
    arrays = {field: table[field].to_numpy().copy() for field in FIELDS}
    time = table["timestamp"].to_numpy().astype(np.int64)
    bars = Bars(manifest.symbol, manifest.timeframe, manifest.calendar, time, **arrays)
    if bars.content_hash != snapshot.content_hash:
        raise StoreCorrupt(damaged)
    return bars
