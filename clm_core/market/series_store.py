"""Stored own series: append-only imports, kept as immutable, content-addressed snapshots.

<root>/funding/all/manifest.json             a series for every market
<root>/funding/BTCUSDT/manifest.json         a series of one market, which takes precedence
<root>/funding/BTCUSDT/<content hash>.parquet
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import DataError, InvalidSeries, UnknownSeries
from clm_core.domain.spellings import normalise_symbol
from clm_core.market.arrow_files import read_parquet
from clm_core.market.series import KnownSeries
from clm_core.market.snapshots import (
    UNCHANGED,
    ImportedSnapshot,
    edit_of,
    file_name,
    moment,
    parsed_manifest,
    read_manifest,
    read_manifests,
    read_snapshot,
)
from clm_core.market.storage import FolderStorage, SeriesEdit, SeriesStorage, StoredFolder

EVERY_MARKET = "all"


class ValuesSnapshot(ImportedSnapshot):
    """State of an own series after an import."""

    values: int
    known_until: datetime
    """Time at which the last value became known."""
    revisions: int
    """Number of values that revise an earlier value of the same time."""
    max_age: int | None
    """Nanoseconds after becoming known from which on a value is too old; None for no limit."""


class ValuesManifest(BaseModel):
    """An own series with all snapshots, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    symbol: str | None
    """Symbol of the market, None for a series of every market."""
    snapshots: tuple[ValuesSnapshot, ...]


class ValuesStore:
    """Own series below a folder or in a storage; safe for concurrent processes."""

    def __init__(self, root: Path | SeriesStorage) -> None:
        self._storage: SeriesStorage = FolderStorage(root) if isinstance(root, Path) else root

    def manifests(self) -> list[ValuesManifest]:
        """All stored series, by name and symbol."""
        return read_manifests(self._storage, ValuesManifest)

    def newest_hashes(self, names: Iterable[str], symbol: str) -> dict[str, str]:
        """Content hash of the newest state of each series, by name.

        Raises:
            UnknownSeries: a series is not stored; the message names the stored series and the command.
        """
        return {name: self._manifest_for(name, symbol).snapshots[-1].content_hash for name in names}

    def newest_time(self, name: str, symbol: str) -> int | None:
        """Greatest time of the newest state of a market's own series, nanoseconds; None without values.

        A series of every market does not count.
        """
        folder = _folder(name, normalise_symbol(symbol))
        manifest = self._manifest(folder)
        if manifest is None:
            return None
        newest = self._load(folder, manifest, manifest.snapshots[-1])
        return int(newest.time.max()) if len(newest) else None

    def read(self, hashes: Mapping[str, str], symbol: str) -> dict[str, KnownSeries]:
        """Series by name, each in the state of a content hash.

        Raises:
            UnknownSeries: a state is not stored.
            StoreCorrupt: a file differs from the file that was written.
        """
        return {name: self._read(name, symbol, content_hash) for name, content_hash in hashes.items()}

    def add(
        self, series: KnownSeries, symbol: str | None, source: str, now: datetime, *, keep_age: bool = False
    ) -> ValuesSnapshot:
        """Append the values of a series to the stored values.

        Args:
            keep_age: take the stored age limit instead of that of the series.

        Raises:
            InvalidSeries: a value is stored with another value and the same times, or became known after
                `now`.
        """
        _require_past(series, now)
        name = _folder(series.name, None if symbol is None else normalise_symbol(symbol))

        def edit(folder: StoredFolder) -> tuple[ValuesSnapshot, SeriesEdit]:
            if folder.manifest is None:
                return _edited(folder, series, None, symbol, source, now)
            manifest = parsed_manifest(self._storage, name, folder.manifest, ValuesManifest)
            stored = self._load(name, manifest, manifest.snapshots[-1])
            united = _united(stored, series, stored.max_age if keep_age else series.max_age)
            return _edited(folder, united, manifest, symbol, source, now)

        return self._storage.change(name, edit)

    def _read(self, name: str, symbol: str, content_hash: str) -> KnownSeries:
        for place in (normalise_symbol(symbol), EVERY_MARKET):
            folder = _folder(name, place)
            manifest = self._manifest(folder)
            if manifest is None:
                continue
            matching = [each for each in manifest.snapshots if each.content_hash == content_hash]
            if matching:
                return self._load(folder, manifest, matching[-1])
        raise UnknownSeries(
            f"the series {name} has no stored state {content_hash[:12]}: restore the folder "
            f"{self._storage.address(name)} from a backup"
        )

    def _manifest_for(self, name: str, symbol: str) -> ValuesManifest:
        for place in (normalise_symbol(symbol), EVERY_MARKET):
            manifest = self._manifest(_folder(name, place))
            if manifest is not None:
                return manifest
        have = ", ".join(dict.fromkeys(each.name for each in self.manifests()))
        raise UnknownSeries(
            f"there is no series {name} for {symbol} (stored: {have or 'none'}): "
            f"`clm data import --as series {name} FILE` adds it"
        )

    def _manifest(self, folder: str) -> ValuesManifest | None:
        return read_manifest(self._storage, folder, ValuesManifest)

    def _load(self, folder: str, manifest: ValuesManifest, snapshot: ValuesSnapshot) -> KnownSeries:
        content = read_snapshot(self._storage, folder, snapshot, "parquet")
        return _series(content, manifest.name, snapshot.max_age)


def _folder(name: str, symbol: str | None) -> str:
    return f"{name}/{EVERY_MARKET if symbol is None else symbol}"


def _require_past(series: KnownSeries, now: datetime) -> None:
    late = np.flatnonzero(series.known > int(now.timestamp() * 1e9))
    if len(late):
        raise InvalidSeries(
            f"the series {series.name} has a value known from "
            f"{moment(series.known[late[0]]):%Y-%m-%d %H:%M} UTC on, which is in the future: leave out what "
            "is not known yet"
        )


def _united(stored: KnownSeries, new: KnownSeries, max_age: int | None) -> KnownSeries:
    time, known, value = (
        np.concatenate([getattr(stored, name), getattr(new, name)]) for name in ("time", "known", "value")
    )
    return KnownSeries.of(stored.name, time, known, value, max_age)


def _edited(
    folder: StoredFolder,
    series: KnownSeries,
    manifest: ValuesManifest | None,
    symbol: str | None,
    source: str,
    now: datetime,
) -> tuple[ValuesSnapshot, SeriesEdit]:
    earlier = () if manifest is None else manifest.snapshots
    if earlier and earlier[-1].content_hash == series.content_hash:
        return earlier[-1], UNCHANGED
    file = file_name(series.content_hash, "parquet")
    content = _whole(folder.left.get(file), series) or _parquet(series)
    snapshot = ValuesSnapshot(
        content_hash=series.content_hash,
        file_sha256=hashlib.sha256(content).hexdigest(),
        source=source,
        values=len(series),
        start=moment(series.time.min()),
        end=moment(series.time.max()),
        known_until=moment(series.known[-1]),
        revisions=len(series) - len(np.unique(series.time)),
        max_age=series.max_age,
        written_at=now,
    )
    grown = ValuesManifest(
        name=series.name,
        symbol=None if symbol is None else normalise_symbol(symbol),
        snapshots=(*earlier, snapshot),
    )
    return snapshot, edit_of(grown, {file: content})


def _parquet(series: KnownSeries) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(series, name)) for name in ("time", "known", "value")}
    sink = io.BytesIO()
    # times grow by steps that repeat, and a series that grows by the hour is written as often
    pq.write_table(
        pa.table(columns),
        sink,
        compression="zstd",
        use_dictionary=["value"],
        column_encoding=dict.fromkeys(("time", "known"), "DELTA_BINARY_PACKED"),
    )
    return sink.getvalue()


def _series(content: bytes, name: str, max_age: int | None) -> KnownSeries:
    table = read_parquet(content)
    time, known, value = (table[name].to_numpy().copy() for name in ("time", "known", "value"))
    return KnownSeries(name, time, known, value, max_age)


def _whole(content: bytes | None, series: KnownSeries) -> bytes | None:
    """Content written by another process, if the series is equal: the encoding may differ by release."""
    if content is None:
        return None
    try:
        stored = _series(content, series.name, series.max_age)
    except (DataError, ValueError, KeyError, OSError):
        return None
    return content if stored.content_hash == series.content_hash else None
