"""Stored series: immutable, content-addressed snapshots and a manifest listing the snapshots by age.

    <root>/BTCUSDT/1h/manifest.json
    <root>/BTCUSDT/1h/<content hash>.parquet

Files are never changed in place: an addition or correction writes a new snapshot, then replaces the manifest
atomically. Every earlier snapshot stays readable by its hash.
"""

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import (
    ConflictError,
    DataError,
    Finding,
    InvalidSymbol,
    StoreCorrupt,
    StoredBarsDiffer,
    UnknownSeries,
)
from clm_core.domain.spellings import native_symbol, same_market
from clm_core.market.arrow_files import read_parquet
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.corrections import (
    RECHECKED_BARS,
    BarComparison,
    Revision,
    compare,
    moment,
)
from clm_core.market.differing import WaitingBar, take_corrections
from clm_core.market.newest_bars import damaged_manifest
from clm_core.market.storage import MANIFEST, FolderStorage, SeriesEdit, SeriesStorage, StoredFolder
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
    revision: Revision | None = None
    """Bars corrected, replaced or filled in since the snapshot before; None if bars were only appended or put
    in front."""
    calendar: Calendar | None = None
    """Calendar of the snapshot if another than the calendar of the manifest."""


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
    differing: tuple[WaitingBar, ...] = ()
    """Stored bars of which a source gives other values, in time order."""

    @property
    def allowed(self) -> frozenset[str]:
        """Rules overruled by any import of the series: bars that break the rules are stored."""
        return frozenset(rule for snapshot in self.snapshots for rule in snapshot.allowed)

    @property
    def waiting(self) -> tuple[WaitingBar, ...]:
        """Differing bars that wait for the decision of a person."""
        return tuple(bar for bar in self.differing if not bar.kept)

    @property
    def revisions(self) -> tuple[tuple[Snapshot, Revision], ...]:
        """Snapshots that corrected or replaced bars, oldest first."""
        return tuple((each, each.revision) for each in self.snapshots if each.revision is not None)


@dataclass(frozen=True, eq=False)
class Replacement:
    """Bars to put in the place of stored bars, compared with the stored bars."""

    first: int
    """Start of the span, nanoseconds since 1970-01-01 UTC, inclusive."""
    last: int
    """Last open time of the span, inclusive."""
    offered: Bars
    """Bars of the source within the span."""
    stored: Bars
    """Stored bars within the span."""
    comparison: BarComparison
    earlier: int
    """Number of stored bars before the span, which keep the stored values."""
    later: int
    """Number of stored bars after the span, which keep the stored values."""
    allowed: Mapping[str, int] = field(default_factory=dict)
    """Rules overruled for the offered bars, each with the number of bars concerned."""

    @property
    def differs(self) -> bool:
        """True if a bar or the calendar differs."""
        return bool(self.comparison) or self.offered.calendar != self.stored.calendar


MOST_BARS_KEPT = 200_000
"""Longest series kept in memory after a read, 10 MB."""


@dataclass(frozen=True)
class SnapshotRecord:
    """Record of a new snapshot, as in `Snapshot` and `SeriesManifest`."""

    revision: Revision | None = None
    native: str | None = None
    allowed: Mapping[str, int] = field(default_factory=dict)
    adjusted: Mapping[str, int] = field(default_factory=dict)


NO_RECORD = SnapshotRecord()


@dataclass(frozen=True)
class _Written:
    """Edit of the folder of a series."""

    manifest: SeriesManifest
    files: Mapping[str, bytes] = field(default_factory=dict)


class SeriesStore:
    """Series below a folder or in a storage; safe for concurrent processes."""

    def __init__(self, root: Path | SeriesStorage) -> None:
        self._storage: SeriesStorage = FolderStorage(root) if isinstance(root, Path) else root
        self._last_read: tuple[tuple[str, ...], Bars] | None = None

    def manifests(self) -> list[SeriesManifest]:
        return [self._parsed(folder, content) for folder, content in self._storage.manifests()]

    def manifest(self, symbol: str, timeframe: Timeframe) -> SeriesManifest | None:
        return self._manifest_in(_folder(symbol, timeframe))

    def read(self, manifest: SeriesManifest, content_hash: str | None = None) -> Bars:
        """Bars of the newest snapshot, or of the snapshot whose hash begins with `content_hash`.

        Raises:
            UnknownSeries: no snapshot, or more than one, has the hash.
            StoreCorrupt: the file differs from the file that was written.
        """
        prefix = manifest.snapshots[-1].content_hash if content_hash is None else content_hash
        # a replacement may restore an earlier state: then two snapshots share a file
        matching = {
            each.content_hash: each for each in manifest.snapshots if each.content_hash.startswith(prefix)
        }
        if len(matching) != 1:
            have = ", ".join(dict.fromkeys(each.content_hash[:12] for each in manifest.snapshots))
            raise UnknownSeries(
                f"{manifest.symbol} {manifest.timeframe} has no snapshot {prefix!r}; there is {have}"
            )
        [snapshot] = matching.values()
        return self._load(manifest, snapshot)

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
            StoredBarsDiffer: an overlapping bar has other values than the stored bar.
            InvalidBars: the merged series breaks a rule.
            InvalidSymbol: the name is taken by another symbol of the source.
        """
        self._refuse_other_market(bars.symbol, native)

        def edit(folder: StoredFolder, manifest: SeriesManifest | None) -> _Written:
            record = SnapshotRecord(native=native, allowed=allowed, adjusted=adjusted)
            if manifest is None:
                return self._snapshot(folder, bars, source, now, record=record)
            stored = self.read(manifest)
            merged = merge(stored, bars, source, now, allow=manifest.allowed | frozenset(allowed))
            return self._merged(folder, manifest, stored, merged, source, now, record)

        return self._change(bars.symbol, bars.timeframe, edit)

    def update(
        self,
        bars: Bars,
        source: str,
        now: datetime,
        base: str | None,
        rechecked: int = RECHECKED_BARS,
        *,
        native: str | None = None,
        allowed: Mapping[str, int] = NOTHING,
        adjusted: Mapping[str, int] = NOTHING,
    ) -> SeriesManifest:
        """Append bars of an exchange, and take the exchange's corrections of the newest stored bars.

        A difference that needs a person (an older bar, a larger change, a bar that is gone) is kept in the
        manifest; the stored bar stays and the other bars are added.

        Args:
            base: content hash of the stored series when the exchange was asked, or None if nothing was
                stored. A bar that another process has written since stays as written.
            rechecked: number of the newest stored bars that may be corrected.
            native: symbol in the spelling of the exchange.
            allowed, adjusted: as in `Snapshot`, for the new bars.

        Raises:
            InvalidBars: the merged series breaks a rule.
            InvalidSymbol: the name is taken by another symbol of the source.
        """
        self._refuse_other_market(bars.symbol, native)

        def edit(folder: StoredFolder, manifest: SeriesManifest | None) -> _Written:
            record = SnapshotRecord(native=native, allowed=allowed, adjusted=adjusted)
            if manifest is None:
                return self._snapshot(folder, bars, source, now, record=record)
            stored = self.read(manifest)
            _require_calendar(stored, bars)
            known = stored[:0] if base is None else self.read(manifest, base)
            corrected, differing = take_corrections(
                manifest.differing, stored, known, bars, source, now, rechecked
            )
            known_breaks = manifest.allowed | frozenset(allowed)
            merged = _validated(_united(stored, corrected, bars), stored, source, now, allow=known_breaks)
            compared = manifest.model_copy(update={"differing": differing})
            return self._merged(folder, compared, stored, merged, source, now, record)

        return self._change(bars.symbol, bars.timeframe, edit)

    def replace(
        self,
        manifest: SeriesManifest,
        replacement: Replacement,
        source: str,
        now: datetime,
        reason: str,
        actor: str,
    ) -> SeriesManifest:
        """Put bars in the place of the stored bars of a span, as a new snapshot.

        Raises:
            ConflictError: the stored bars of the span have changed since the comparison.
            InvalidBars: the series with the replaced bars breaks a rule.
        """
        offered = replacement.offered

        def edit(folder: StoredFolder, current: SeriesManifest | None) -> _Written:
            if current is None:
                raise UnknownSeries(f"{manifest.symbol} {manifest.timeframe} is no longer stored")
            stored = self.read(current)
            inside = _inside(stored, replacement.first, replacement.last)
            if inside.content_hash != replacement.stored.content_hash:
                raise ConflictError(
                    f"{manifest.symbol} {manifest.timeframe} has changed meanwhile: run the command again"
                )
            if len(stored) > len(inside):
                _require_calendar(stored, offered)
            frame = pd.concat(
                [
                    stored.to_frame()[stored.time < replacement.first],
                    offered.to_frame(),
                    stored.to_frame()[stored.time > replacement.last],
                ]
            )
            merged = _validated(
                frame, offered, source, now, allow=current.allowed | frozenset(replacement.allowed)
            )
            revision = _revision_of_replacement(stored, merged, reason, actor)
            differing = tuple(
                bar
                for bar in current.differing
                if not replacement.first <= pd.Timestamp(bar.time).value <= replacement.last
            )
            record = SnapshotRecord(revision=revision, allowed=replacement.allowed)
            settled = current.model_copy(update={"differing": differing})
            return self._merged(folder, settled, stored, merged, source, now, record)

        return self._change(offered.symbol, offered.timeframe, edit)

    def keep(self, symbol: str, timeframe: Timeframe, first: int, last: int) -> SeriesManifest:
        """Decide for the stored values of a span: the differing values are ignored from now on."""

        def edit(_: StoredFolder, manifest: SeriesManifest | None) -> _Written:
            if manifest is None:
                raise UnknownSeries(f"{symbol} {timeframe} is not stored")
            kept = tuple(
                bar.model_copy(update={"kept": True})
                if first <= pd.Timestamp(bar.time).value <= last
                else bar
                for bar in manifest.differing
            )
            return _Written(manifest.model_copy(update={"differing": kept}))

        return self._change(symbol, timeframe, edit)

    def _change(
        self,
        symbol: str,
        timeframe: Timeframe,
        edit: Callable[[StoredFolder, SeriesManifest | None], _Written],
    ) -> SeriesManifest:
        """Change a series on the basis of the present manifest."""
        name = _folder(symbol, timeframe)

        def change(folder: StoredFolder) -> tuple[SeriesManifest, SeriesEdit]:
            before = None if folder.manifest is None else self._parsed(name, folder.manifest)
            written = edit(folder, before)
            return written.manifest, SeriesEdit(_content_of(written.manifest), written.files)

        return self._storage.change(name, change)

    def _merged(
        self,
        folder: StoredFolder,
        manifest: SeriesManifest,
        stored: Bars,
        merged: Bars,
        source: str,
        now: datetime,
        record: "SnapshotRecord",
    ) -> _Written:
        """The merged bars as a snapshot if any bar differs, and the manifest."""
        if merged.content_hash == stored.content_hash:
            return _Written(manifest)
        if record.revision is None:
            inside = _inside(merged, stored.time[0], stored.time[-1])
            record = replace(record, revision=compare(stored, inside).revision())
        return self._snapshot(folder, merged, source, now, manifest, record)

    def _snapshot(
        self,
        folder: StoredFolder,
        bars: Bars,
        source: str,
        now: datetime,
        before: SeriesManifest | None = None,
        record: SnapshotRecord = NO_RECORD,
    ) -> _Written:
        """The bars as the newest snapshot of the series.

        Args:
            before: manifest of the series so far.
        """
        earlier = () if before is None else _with_calendar(before, bars.calendar)
        known = None if before is None else before.native
        native = record.native
        if native is None or native_symbol(native) == bars.symbol:
            native = known
        same = next((each for each in earlier if each.content_hash == bars.content_hash), None)
        file = _file_name(bars.content_hash)
        content = b""
        if same is None or not self._storage.holds(_folder(bars.symbol, bars.timeframe), file):
            same = None
            content = _whole(folder.left.get(file), bars) or parquet(bars)
        snapshot = Snapshot(
            content_hash=bars.content_hash,
            file_sha256=hashlib.sha256(content).hexdigest() if same is None else same.file_sha256,
            source=source,
            bars=len(bars),
            start=bars.start.to_pydatetime(),
            end=bars.end.to_pydatetime(),
            gaps=len(bars.gaps),
            missing_bars=sum(gap.missing for gap in bars.gaps),
            written_at=now,
            allowed=dict(record.allowed),
            adjusted=dict(record.adjusted),
            revision=record.revision,
        )
        manifest = SeriesManifest(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            calendar=bars.calendar,
            snapshots=(*earlier, snapshot),
            native=native,
            differing=() if before is None else before.differing,
        )
        return _Written(manifest, {file: content} if same is None else {})

    def _refuse_other_market(self, symbol: str, native: str | None) -> None:
        if native is None:
            return
        for folder in self._storage.folders(within=symbol):
            manifest = self._manifest_in(folder)
            stored = None if manifest is None else manifest.native
            if stored is not None and not same_market(stored, native):
                other = re.sub(r"[^A-Za-z0-9]+", "-", native)
                raise InvalidSymbol(
                    f"{native} and the stored {stored} are different markets with the same canonical name "
                    f"{symbol}: pass another name, e.g. --symbol {other}"
                )

    def _manifest_in(self, folder: str) -> SeriesManifest | None:
        content = self._storage.manifest(folder)
        return None if content is None else self._parsed(folder, content)

    def _parsed(self, folder: str, content: bytes) -> SeriesManifest:
        try:
            return SeriesManifest.model_validate_json(content)
        except ValueError as error:
            raise damaged_manifest(self._storage.address(folder, MANIFEST)) from error

    def _load(self, manifest: SeriesManifest, snapshot: Snapshot) -> Bars:
        folder = _folder(manifest.symbol, manifest.timeframe)
        file = _file_name(snapshot.content_hash)
        damaged = (
            f"{self._storage.address(folder, file)} is missing or damaged: restore it from a backup, or "
            "delete its folder and import again"
        )
        content = self._storage.read(folder, file, snapshot.file_sha256, damaged)
        calendar = snapshot.calendar or manifest.calendar
        contents = (folder, calendar, snapshot.content_hash, snapshot.file_sha256)
        last = self._last_read
        # a file with the verified digest is the file of the last time: a retrain asks for the same bars often
        if last is not None and last[0] == contents:
            return last[1]
        bars = _bars(content, manifest.symbol, manifest.timeframe, calendar)
        if bars.content_hash != snapshot.content_hash:
            raise StoreCorrupt(damaged)
        self._last_read = (contents, bars) if len(bars) <= MOST_BARS_KEPT else None
        return bars


def _folder(symbol: str, timeframe: Timeframe) -> str:
    return f"{symbol}/{timeframe.value}"


def _file_name(content_hash: str) -> str:
    return f"{content_hash}.parquet"


def merge(
    stored: Bars, new: Bars, source: str, now: datetime, *, allow: frozenset[str] = frozenset()
) -> Bars:
    """Both series merged, in time order.

    Args:
        allow: rules that the stored or the new bars break knowingly.

    Raises:
        DataError: the calendars differ.
        StoredBarsDiffer: an overlapping bar has other values than the stored bar.
        InvalidBars: the merged series breaks a rule.
    """
    _require_calendar(stored, new)
    comparison = compare(stored, new)
    if comparison.differs.any():
        raise StoredBarsDiffer(source, [_contradiction(new, comparison)])
    return _validated(_united(stored, stored[:0], new), stored, source, now, allow=allow)


def replacement(stored: Bars, offered: Bars, first: int | None, last: int | None) -> Replacement:
    """The stored bars of a span beside the bars to put in their place.

    Args:
        first, last: first and last open time of the span, nanoseconds since 1970-01-01 UTC, inclusive; None
            for the beginning or end of both series.
    """
    first = int(min(stored.time[0], offered.time[0])) if first is None else first
    last = int(max(stored.time[-1], offered.time[-1])) if last is None else last
    inside = _inside(stored, first, last)
    new = _inside(offered, first, last)
    if not len(new) and not len(inside):
        raise DataError(
            f"there is no bar from {moment(first):%Y-%m-%d %H:%M} to {moment(last):%Y-%m-%d %H:%M} UTC"
        )
    return Replacement(
        first=first,
        last=last,
        offered=new,
        stored=inside,
        comparison=compare(inside, new),
        earlier=int(np.count_nonzero(stored.time < first)),
        later=int(np.count_nonzero(stored.time > last)),
    )


def _revision_of_replacement(stored: Bars, merged: Bars, reason: str, actor: str) -> Revision | None:
    between = compare(stored, _inside(merged, stored.time[0], stored.time[-1]))
    # bars that are only appended count too where a person gave a reason
    revision = between.revision(reason, actor) or compare(stored, merged).revision(reason, actor)
    if stored.calendar == merged.calendar:
        return revision
    calendar = f"calendar {stored.calendar} -> {merged.calendar}"
    if revision is None:
        empty = Revision.without_changes(merged, reason, actor)
        return empty.model_copy(update={"cause": calendar})
    causes = [calendar, *([revision.cause] if revision.cause else [])]
    return revision.model_copy(update={"cause": "; ".join(causes), "first": moment(merged.time[0])})


def _inside(bars: Bars, first: int, last: int) -> Bars:
    return bars[int(np.searchsorted(bars.time, first)) : int(np.searchsorted(bars.time, last, side="right"))]


def _require_calendar(stored: Bars, new: Bars) -> None:
    if stored.calendar != new.calendar:
        raise DataError(
            f"{stored.symbol} {stored.timeframe} is stored with calendar {stored.calendar}: "
            f"pass --calendar {stored.calendar}"
        )


def _united(stored: Bars, corrected: Bars, new: Bars) -> pd.DataFrame:
    """Corrected bars, else stored bars, else new bars, in time order."""
    frames = [bars.to_frame() for bars in (corrected, stored, new) if len(bars)]
    both = pd.concat(frames)
    return both[~both.index.duplicated()].sort_index()


def _validated(frame: pd.DataFrame, like: Bars, source: str, now: datetime, *, allow: frozenset[str]) -> Bars:
    origin = f"{source} together with the stored bars"
    return validate(frame, like.symbol, like.timeframe, like.calendar, now=now, origin=origin, allow=allow)


def _contradiction(new: Bars, comparison: BarComparison) -> Finding:
    rows = np.flatnonzero(np.isin(new.time, comparison.common[comparison.differs]))
    first = next(comparison.values())
    largest = comparison.price_changes.max(initial=0.0)
    cause = f"{comparison.cause}. " if comparison.cause else ""
    message = (
        f"the bar is stored with other values ({comparison.changed:,} of {len(comparison.common):,} common "
        f"bars, prices by up to {largest:.2%}). {cause}First: {first}"
    )
    return Finding("contradicts-store", tuple(rows[:20].tolist()), len(rows), message)


def _with_calendar(manifest: SeriesManifest, calendar: Calendar) -> tuple[Snapshot, ...]:
    """Snapshots that stay readable after a change of the calendar of the series."""
    if manifest.calendar == calendar:
        return manifest.snapshots
    return tuple(
        each.model_copy(update={"calendar": each.calendar or manifest.calendar})
        for each in manifest.snapshots
    )


def _content_of(manifest: SeriesManifest) -> bytes:
    return manifest.model_dump_json(indent=1, exclude_defaults=True).encode() + b"\n"


def parquet(bars: Bars) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"timestamp": pa.array(bars.time).cast(pa.timestamp("ns", tz="UTC"))}
    columns |= {field: pa.array(getattr(bars, field)) for field in FIELDS}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _bars(content: bytes, symbol: str, timeframe: Timeframe, calendar: Calendar) -> Bars:
    table = read_parquet(content)
    arrays = {field: table[field].to_numpy().copy() for field in FIELDS}
    time = table["timestamp"].to_numpy().astype(np.int64)
    return Bars(symbol, timeframe, calendar, time, **arrays)


def _whole(content: bytes | None, bars: Bars) -> bytes | None:
    """Content written by another process, if the bars are equal: the encoding may differ by release."""
    if content is None:
        return None
    try:
        stored = _bars(content, bars.symbol, bars.timeframe, bars.calendar)
    except (DataError, ValueError, KeyError, OSError):
        return None
    return content if stored.content_hash == bars.content_hash else None
