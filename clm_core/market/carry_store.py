"""Stored funding rates and dividends: validated imports, kept as immutable, content-addressed snapshots.

<root>/BTCUSDT.P/funding/manifest.json       <root>/SPY/dividends/manifest.json
<root>/BTCUSDT.P/funding/<content hash>.csv  <root>/SPY/dividends/<content hash>.csv
"""

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from clm_core.domain.errors import Finding, InvalidBars, InvalidSymbol, UnknownSeries
from clm_core.domain.spellings import normalise_symbol
from clm_core.market import quarantine
from clm_core.market.bars import Floats
from clm_core.market.carry import Carry, Payments, Times
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
from clm_core.market.times import EPOCH_BOUNDS, EPOCH_UNITS

MAX_FUNDING_RATE = 0.05
"""Largest plausible funding rate of one interval, as a fraction; exchanges cap rates at 0.75 % to 4 %."""
_MINUTE = 60_000_000_000
_FUNDING_TIMES = ("calc_time", "fundingtime", "funding_time", "fundingratetimestamp", "timestamp", "time")
_FUNDING_RATES = ("last_funding_rate", "fundingrate", "funding_rate", "realizedrate", "rate")
_DIVIDEND_DATES = ("ex_date", "exdate", "ex_dividend_date", "date")
_DIVIDEND_AMOUNTS = ("amount", "dividend", "dividends", "cash_amount")


class PaymentKind(StrEnum):
    FUNDING = "funding"
    DIVIDENDS = "dividends"


class CarrySnapshot(ImportedSnapshot):
    """State of a series of payments after an import."""

    payments: int


class CarryManifest(BaseModel):
    """A series of payments with all snapshots, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    kind: PaymentKind
    snapshots: tuple[CarrySnapshot, ...]


class _InvalidError(Exception):
    def __init__(self, rule: str, message: str, rows: Any = ()) -> None:
        super().__init__(message)
        self.finding = Finding(rule, tuple(int(row) for row in rows[:20]), len(rows), message)


class CarryStore:
    """Funding rates and dividends below a folder or in a storage; safe for concurrent processes."""

    def __init__(self, root: Path | SeriesStorage, quarantine_folder: Path) -> None:
        self._storage: SeriesStorage = FolderStorage(root) if isinstance(root, Path) else root
        self._quarantine = quarantine_folder

    def manifests(self) -> list[CarryManifest]:
        """All stored series, by symbol."""
        return read_manifests(self._storage, CarryManifest)

    def newest(self, symbol: str) -> Carry:
        """The newest stored payments of a market.

        Raises:
            StoreCorrupt: a file differs from the file that was written.
        """
        name = normalise_symbol(symbol)
        return Carry(self._read(name, PaymentKind.FUNDING), self._read(name, PaymentKind.DIVIDENDS))

    def recorded(self, symbol: str, funding_hash: str | None, dividends_hash: str | None) -> Carry:
        """An earlier state of the payments of a market; None for no payments.

        Raises:
            UnknownSeries: no stored state has a hash.
            StoreCorrupt: a file differs from the file that was written.
        """
        name = normalise_symbol(symbol)
        return Carry(
            None if funding_hash is None else self._read(name, PaymentKind.FUNDING, funding_hash),
            None if dividends_hash is None else self._read(name, PaymentKind.DIVIDENDS, dividends_hash),
        )

    def add(
        self, kind: PaymentKind, path: Path, symbol: str, *, now: datetime, replace: bool = False
    ) -> CarrySnapshot:
        """Add all payments of a CSV file to the stored payments, or none; a refused file goes to quarantine.

        Args:
            replace: payments within the span of the file are replaced; otherwise a payment stored with
                another value is refused.

        Raises:
            InvalidBars: a rule is broken; the file and a report are in quarantine.
        """
        name = normalise_symbol(symbol)
        folder = _folder(name, kind)
        try:
            payments = _parsed(kind, path, name, now)

            def edit(present: StoredFolder) -> tuple[CarrySnapshot, SeriesEdit]:
                if present.manifest is None:
                    return _edited(None, name, kind, payments, path.name, now)
                manifest = parsed_manifest(self._storage, folder, present.manifest, CarryManifest)
                stored = self._load(folder, manifest.snapshots[-1])
                merged = _merged(stored, payments, replace)
                return _edited(manifest, name, kind, merged, path.name, now)

            return self._storage.change(folder, edit)
        except _InvalidError as error:
            refusal = InvalidBars(str(path), [error.finding])
            raise quarantine.keep(self._quarantine, path.name, path.read_bytes(), refusal, now) from error

    def _manifest(self, symbol: str, kind: PaymentKind) -> CarryManifest | None:
        return read_manifest(self._storage, _folder(symbol, kind), CarryManifest)

    def _read(self, symbol: str, kind: PaymentKind, content_hash: str | None = None) -> Payments | None:
        manifest = self._manifest(symbol, kind)
        if manifest is None and content_hash is None:
            return None
        snapshots = () if manifest is None else manifest.snapshots
        matching = [each for each in snapshots if each.content_hash.startswith(content_hash or "")]
        if not matching:
            raise UnknownSeries(
                f"{symbol} has no stored {kind} {content_hash!r}: import them again with "
                f"`clm data import-{kind} FILE --symbol {symbol}`"
            )
        return self._load(_folder(symbol, kind), matching[-1])

    def _load(self, folder: str, snapshot: CarrySnapshot) -> Payments:
        content = read_snapshot(self._storage, folder, snapshot, "csv")
        rows = [line.split(",") for line in content.decode().splitlines()[1:]]
        return Payments(
            np.array([int(time) for time, _ in rows], np.int64), np.array([float(value) for _, value in rows])
        )


def _folder(symbol: str, kind: PaymentKind) -> str:
    return f"{symbol}/{kind.value}"


def _edited(
    manifest: CarryManifest | None,
    symbol: str,
    kind: PaymentKind,
    payments: Payments,
    source: str,
    now: datetime,
) -> tuple[CarrySnapshot, SeriesEdit]:
    earlier = () if manifest is None else manifest.snapshots
    if earlier and earlier[-1].content_hash == payments.content_hash:
        return earlier[-1], UNCHANGED
    content = _csv(payments)
    snapshot = CarrySnapshot(
        content_hash=payments.content_hash,
        file_sha256=hashlib.sha256(content).hexdigest(),
        source=source,
        payments=len(payments),
        start=moment(payments.time[0]),
        end=moment(payments.time[-1]),
        written_at=now,
    )
    grown = CarryManifest(symbol=symbol, kind=kind, snapshots=(*earlier, snapshot))
    return snapshot, edit_of(grown, {file_name(payments.content_hash, "csv"): content})


def _parsed(kind: PaymentKind, path: Path, symbol: str, now: datetime) -> Payments:
    """
    Raises:
        _InvalidError: a rule is broken.
    """
    frame = _table(path)
    _require_own_symbol(frame, symbol)
    if kind is PaymentKind.FUNDING:
        time = _instants(frame[_column(frame, _FUNDING_TIMES, "the time of funding")])
        # Binance stamps funding some milliseconds after the full hour
        time = time // _MINUTE * _MINUTE
        value = _numbers(frame[_column(frame, _FUNDING_RATES, "the funding rate")])
        _require(np.abs(value) <= MAX_FUNDING_RATE, "implausible-rate", value, _RATE_HELP)
        _require(time <= pd.Timestamp(now).value, "in-the-future", time, "funding of the future is unknown")
    else:
        time = _dates(frame[_column(frame, _DIVIDEND_DATES, "the ex-date")])
        value = _numbers(frame[_column(frame, _DIVIDEND_AMOUNTS, "the dividend per unit")])
        _require(value >= 0, "negative-dividend", value, "a dividend is paid, never collected")
        # histories list a 0 for each day without a dividend
        paid = value > 0
        time = time[paid]
        value = value[paid]
    if not len(time):
        raise _InvalidError("empty", f"there are no {kind} in the file")
    order = np.argsort(time, kind="stable")
    same = np.flatnonzero(np.diff(time[order]) == 0)
    if len(same):
        when = moment(time[order][same[0]])
        raise _InvalidError("duplicate-time", f"{when:%Y-%m-%d %H:%M} is listed twice: keep one", order[same])
    return Payments(time[order], value[order])


_RATE_HELP = (
    f"a funding rate is a fraction per interval, at most {MAX_FUNDING_RATE:g} (5 %): divide percent by 100, "
    "and basis points by 10,000"
)


def _table(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=str, skipinitialspace=True)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise _InvalidError("unreadable-file", f"not readable as CSV: {error}") from error
    frame.columns = pd.Index([_plain(str(column)) for column in frame.columns])
    if not len(frame):
        raise _InvalidError("empty", "there are no rows in the file")
    return frame


def _plain(column: str) -> str:
    return "_".join(column.strip().lower().replace("-", " ").split())


def _column(frame: pd.DataFrame, names: tuple[str, ...], meaning: str) -> str:
    matching = [column for column in frame.columns if column in names]
    if not matching:
        have = ", ".join(frame.columns)
        raise _InvalidError("missing-columns", f"no column for {meaning} among {have}: name it {names[0]}")
    if len(matching) > 1 and len(set(matching)) < len(matching):
        raise _InvalidError("ambiguous-columns", f"{matching[0]} is there twice: remove one")
    return min(matching, key=names.index)


def _require_own_symbol(frame: pd.DataFrame, symbol: str) -> None:
    if "symbol" not in frame.columns:
        return
    named = {str(name).strip().upper() for name in frame["symbol"].dropna().unique()}
    # exchanges list a perpetual under the plain name of the pair, or as PAIR_PERP
    pair = symbol.partition(".P")[0]
    own = {symbol, pair, f"{pair}_PERP"}
    if others := sorted(name for name in named - own if _canonical(name) not in own):
        raise _InvalidError(
            "other-symbol", f"the column symbol says {', '.join(others[:3])}: pass --symbol {others[0]}"
        )


def _canonical(name: str) -> str | None:
    try:
        return normalise_symbol(name)
    except InvalidSymbol:
        return None


def _instants(column: "pd.Series[str]") -> Times:
    numbers = pd.to_numeric(column, errors="coerce")
    times: Any
    if numbers.notna().all():
        units = np.unique(np.searchsorted(EPOCH_BOUNDS, np.abs(numbers.to_numpy(np.float64)), side="right"))
        if len(units) > 1 or units[0] == 0:
            raise _InvalidError("unreadable-time", "the times are no counts of s, ms, us or ns since 1970")
        times = pd.to_datetime(numbers, unit=EPOCH_UNITS[units[0] - 1], utc=True, errors="coerce")
    else:
        times = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    return _without_missing(times, "unreadable-time", "ISO 8601 or a count of ms since 1970", column)


def _dates(column: "pd.Series[str]") -> Times:
    # the date of the exchange, whatever time and zone follow
    times = pd.to_datetime(column.str.strip().str[:10], format="%Y-%m-%d", utc=True, errors="coerce")
    return _without_missing(times, "unreadable-date", "YYYY-MM-DD", column)


def _without_missing(times: Any, rule: str, expected: str, column: "pd.Series[str]") -> Times:
    missing = np.flatnonzero(times.isna())
    if len(missing):
        raise _InvalidError(rule, f"{column.iloc[missing[0]]!r} is not {expected}", missing)
    return np.asarray(times.dt.tz_convert(None).to_numpy("datetime64[ns]").astype(np.int64))


def _numbers(column: "pd.Series[str]") -> Floats:
    text = column.str.strip()
    percent = text.str.endswith("%").fillna(False).astype(bool)
    values = pd.to_numeric(text.str.removesuffix("%"), errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise _InvalidError("not-a-number", f"{column.iloc[wrong[0]]!r} is no finite number", wrong)
    return np.where(percent, values / 100, values)


def _require(holds: Any, rule: str, values: Any, reason: str) -> None:
    wrong = np.flatnonzero(~holds)
    if len(wrong):
        raise _InvalidError(rule, f"{values[wrong[0]]}: {reason}", wrong)


def _merged(stored: Payments, new: Payments, replace: bool) -> Payments:
    _, there, here = np.intersect1d(stored.time, new.time, assume_unique=True, return_indices=True)
    differs = stored.value[there] != new.value[here]
    if replace:
        kept = (stored.time < new.time[0]) | (stored.time > new.time[-1])
    elif differs.any():
        row = np.flatnonzero(differs)[0]
        raise _InvalidError(
            "contradicts-store",
            f"{moment(new.time[here[row]]):%Y-%m-%d %H:%M} is stored with {stored.value[there[row]]:g}, the "
            f"file has {new.value[here[row]]:g}: pass --replace to take the values of the file",
            here[differs],
        )
    else:
        kept = ~np.isin(stored.time, new.time)
    time = np.concatenate([stored.time[kept], new.time])
    order = np.argsort(time)
    return Payments(time[order], np.concatenate([stored.value[kept], new.value])[order])


def _csv(payments: Payments) -> bytes:
    rows = (
        f"{time},{value!r}"
        for time, value in zip(payments.time.tolist(), payments.value.tolist(), strict=True)
    )
    return ("time_ns,value\n" + "\n".join(rows) + "\n").encode()
