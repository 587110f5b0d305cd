"""Sources of bars: imported and fetched series, and the series shipped with the package."""

import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from clm_core.domain.errors import (
    Finding,
    InvalidBars,
    SourceUnavailable,
    StoredBarsDiffer,
    UnknownSeries,
)
from clm_core.domain.spellings import normalise_symbol
from clm_core.market import calendars, quarantine
from clm_core.market.arrow_files import parquet_of
from clm_core.market.bar_rules import refuse_unknown_rules
from clm_core.market.bar_source import BarSource, ExchangeSource
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.carry import Carry
from clm_core.market.carry_store import CarryStore
from clm_core.market.corrections import RECHECKED_BARS, moment
from clm_core.market.differing import why_waiting
from clm_core.market.exchange import RetryPolicy
from clm_core.market.newest_bars import BUNDLED, PLANTED_SOURCE, NewestBar, newest_bars
from clm_core.market.ranks import newer_than, ranks_among
from clm_core.market.reading import Layout, content_of, read
from clm_core.market.same_market import DailyReturns, daily_log_returns
from clm_core.market.series import with_series
from clm_core.market.series_store import ValuesStore
from clm_core.market.storage import FolderStorage, SeriesStorage
from clm_core.market.store import Replacement, SeriesManifest, SeriesStore, parquet, replacement
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import Examined, examine

UNBOUNDED = "pass closed_by=<moment> to MarketData.bars: the next release requires the bound"
TABLE = "table.parquet"
"""Name of a table that comes without a file."""


@dataclass(frozen=True)
class SeriesInfo:
    """Newest state of a series."""

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    source: str
    bars: int
    start: datetime
    end: datetime
    """Open time of the last bar."""
    gaps: int
    """Number of outages."""
    missing_bars: int
    """Number of bars missing in the outages."""
    content_hash: str
    """SHA-256 of the bars, hexadecimal; `MarketData.bars(..., content_hash=...)` reads the same state
    again."""
    native: str | None = None
    """Symbol in the spelling of the source, where the spelling differs: `BTC/USDT:USDT`."""
    allowed: Mapping[str, int] = field(default_factory=dict)
    """Rules overruled by imports of the series, each with the number of bars."""
    adjusted: Mapping[str, int] = field(default_factory=dict)
    """Corrections of imports, each with the number of bars: `rounded`, `empty-rows`."""
    snapshots: int = 1
    """Number of snapshots, each readable by its hash."""
    corrected: int = 0
    """Number of bars corrected, replaced or filled in, over all snapshots."""
    waiting: int = 0
    """Number of stored bars with other values at the source, which wait for `clm data replace`."""


class MarketData:
    """All series: the stored series, and the bundled series unless stored under the same name."""

    def __init__(self, home: Path, storage: SeriesStorage | None = None) -> None:
        """
        Args:
            storage: place of the stored series; by default the home.
        """
        storage = storage or FolderStorage(home)
        self._storage = storage
        self._store = SeriesStore(storage.below("data"))
        self._bundled = SeriesStore(BUNDLED)
        self._quarantine = home / "quarantine"
        self.payments = CarryStore(storage.below("carry"), self._quarantine)
        self.own_series = ValuesStore(storage.below("series"))
        self._daily: dict[tuple[str, str], tuple[str, DailyReturns]] = {}

    def series(self) -> list[SeriesInfo]:
        manifests = [*self._bundled.manifests(), *self._store.manifests()]
        newest = {(manifest.symbol, manifest.timeframe): manifest for manifest in manifests}
        return [_info(newest[key]) for key in sorted(newest)]

    def newest_bars(self, markets: Iterable[tuple[str, str]]) -> Iterator[NewestBar]:
        """Newest bars of the given markets, pairs of symbol and timeframe, that have any.

        Raises:
            StorageUnavailable: the bucket does not answer.
            StoreCorrupt: a manifest is damaged.
        """
        return newest_bars(self._storage, markets)

    def carry(self, symbol: str) -> Carry:
        """The newest stored funding rates and dividends of a market.

        Raises:
            StoreCorrupt: a stored file differs from the file that was written.
        """
        return self.payments.newest(symbol)

    def recorded_carry(self, symbol: str, funding_hash: str | None, dividends_hash: str | None) -> Carry:
        """Stored payments by the hashes of an earlier state; None for no payments.

        Raises:
            UnknownSeries: the state is no longer stored.
        """
        return self.payments.recorded(symbol, funding_hash, dividends_hash)

    def newest_series(self, names: Iterable[str], symbol: str) -> dict[str, str]:
        """Content hash of the newest state of each own series, by name.

        Raises:
            UnknownSeries: a series is not stored.
        """
        return self.own_series.newest_hashes(names, symbol)

    def with_series(self, bars: Bars, series: Iterable[str] | Mapping[str, str]) -> Bars:
        """The bars with own series, joined as known at the close of each bar.

        Args:
            series: names, for the newest state of each, or content hashes by name, for the states at an
                earlier moment. Series the bars have already are left alone.

        Raises:
            UnknownSeries: a series or state is not stored.
            StoreCorrupt: a stored file differs from the file that was written.
        """
        missing = [name for name in series if name not in bars.series]
        hashes = (
            {name: series[name] for name in missing}
            if isinstance(series, Mapping)
            else self.newest_series(missing, bars.symbol)
        )
        return with_series(bars, self.own_series.read(hashes, bars.symbol))

    def add_ranks(self, symbols: Sequence[str], timeframe: str, feature: str, now: datetime) -> int:
        """Compute the ranks of a feature among markets and append the new ones to the members' own series.

        Returns:
            Number of new values over all members.

        Raises:
            UnknownSeries: a member has no bars.
            UnknownFeature: no feature has the name.
        """
        members = [self.bars(symbol, timeframe, closed_by=now) for symbol in symbols]
        added = 0
        for bars, ranks in zip(members, ranks_among(members, feature), strict=True):
            stored = self.own_series.newest_time(ranks.name, bars.symbol)
            new = ranks if stored is None else newer_than(ranks, stored)
            if len(new):
                self.own_series.add(new, bars.symbol, f"ranks among {', '.join(symbols)}", now)
                added += len(new)
        return added

    def stored(self, symbol: str, timeframe: str) -> SeriesInfo | None:
        """The stored series, bundled series excluded, or None if nothing is stored."""
        manifest = self._store.manifest(normalise_symbol(symbol), _timeframe(timeframe))
        return None if manifest is None else _info(manifest)

    def manifest(self, symbol: str, timeframe: str) -> SeriesManifest:
        """All snapshots of a series, with the corrections of each.

        Raises:
            UnknownSeries: the series does not exist; the message lists the available series.
        """
        return self._sources(symbol, timeframe)[0][1]

    def newest(self, symbol: str, timeframe: str) -> SeriesInfo:
        """The newest state of a series: the stored one, or the bundled one if nothing is stored.

        Raises:
            UnknownSeries: the series does not exist; the message lists the available series.
        """
        _, manifest = self._sources(symbol, timeframe)[0]
        return _info(manifest)

    def daily_returns(self, symbol: str, timeframe: str) -> DailyReturns:
        """Daily log returns of the newest state of a series; read once for each content.

        Raises:
            UnknownSeries: the series does not exist.
            StoreCorrupt: the stored file differs from the file that was written.
        """
        store, manifest = self._sources(symbol, timeframe)[0]
        newest = manifest.snapshots[-1].content_hash
        known = self._daily.get((symbol, timeframe))
        if known is None or known[0] != newest:
            known = self._daily[symbol, timeframe] = newest, daily_log_returns(store.read(manifest))
        return known[1]

    def bars(
        self,
        symbol: str,
        timeframe: str,
        days: int | None = None,
        content_hash: str | None = None,
        *,
        closed_by: datetime | None = None,
    ) -> Bars:
        """The bars of a series that have closed by a moment.

        Args:
            days: only the newest `days` x 24 h of the closed bars; by default all of them.
            content_hash: first digits of the hash of an earlier state of the whole series; by default
                the newest state. The bound applies to any state: the same hash and the same moment
                always give the same bars.
            closed_by: upper bound of the close times (open time + timeframe), inclusive: the present,
                or the moment that is replayed. Required from the next release on; without a bound
                every stored bar is given, with a DeprecationWarning.

        Raises:
            UnknownSeries: no such series or state (the message lists those available), or no closed bar.
            StoreCorrupt: the stored file differs from the one that was written.
        """
        sources = self._sources(symbol, timeframe)
        store, manifest = next((pair for pair in sources if _has(pair[1], content_hash)), sources[0])
        bars = store.read(manifest, content_hash)
        if closed_by is None:
            warnings.warn(UNBOUNDED, DeprecationWarning, stacklevel=2)
        else:
            bars = bars.closed_by(closed_by)
            if not len(bars):
                until = f"{closed_by:%Y-%m-%d %H:%M}"
                raise UnknownSeries(
                    f"{manifest.symbol} {manifest.timeframe} has no bar that closed by {until}"
                )
        return bars if days is None else bars.last_days(days)

    def _sources(self, symbol: str, timeframe: str) -> list[tuple[SeriesStore, SeriesManifest]]:
        """Stores that have the series, the user's before the bundled one; at least one."""
        name = normalise_symbol(symbol)
        step = _timeframe(timeframe)
        stores = [self._store, self._bundled]
        sources = [(store, manifest) for store in stores if (manifest := store.manifest(name, step))]
        if not sources:
            have = ", ".join(f"{info.symbol} {info.timeframe}" for info in self.series())
            raise UnknownSeries(
                f"there is no series {name} {step}; there is {have}. "
                "Add it with `clm data import` or `clm data fetch`"
            )
        return sources

    def import_file(
        self,
        path: Path,
        symbol: str,
        timeframe: str,
        calendar: str = calendars.AUTO,
        *,
        now: datetime,
        as_of: datetime | None = None,
        layout: Layout | None = None,
        reverse: bool = False,
        drop_open_bar: bool = False,
        allow: Collection[str] = (),
    ) -> SeriesInfo:
        """Add all bars of a file to the store, or none; a refused file goes to quarantine.

        Args:
            symbol: canonical symbol, or the spelling of the source, which is kept beside the canonical one.
            calendar: name of the trading calendar, `auto` or `learn`: see `calendars.chosen`.
            as_of: download time of the file if not now, to recognise a last bar still open at the time.
            allow: names of rules that the bars of the file may break, see `bar_rules.OVERRULABLE`.

        Raises:
            InvalidBars: a rule is broken; the file and a report are in quarantine.
            DataError: the file cannot be read, or an option does not fit.
        """
        content, examined = self._examined_file(
            path,
            symbol,
            timeframe,
            calendar,
            now=now,
            as_of=as_of,
            layout=layout,
            reverse=reverse,
            drop_open_bar=drop_open_bar,
            allow=allow,
        )
        return self._import(path.name, content, examined, symbol, now)

    def import_table(
        self,
        table: pd.DataFrame,
        symbol: str,
        timeframe: str,
        calendar: str = calendars.AUTO,
        *,
        now: datetime,
        layout: Layout | None = None,
        allow: Collection[str] = (),
    ) -> SeriesInfo:
        """Add all rows of a table to the store, or none, as `import_file` does with a file of its columns.

        Args:
            table: a row a bar, with the open times as a column or as the index.
            symbol, timeframe, calendar, allow: as for `import_file`.

        Raises:
            InvalidBars: a rule is broken; the table and a report are in quarantine.
            DataError: an option does not fit.
        """
        content = parquet_of(table)
        try:
            examined = self.examine_content(
                TABLE, content, symbol, timeframe, calendar, now=now, layout=layout, allow=allow
            )
        except InvalidBars as refusal:
            raise quarantine.keep(self._quarantine, TABLE, content, refusal, now) from refusal
        return self._import(TABLE, content, examined, symbol, now)

    def _import(
        self, name: str, content: bytes, examined: Examined, symbol: str, now: datetime
    ) -> SeriesInfo:
        try:
            manifest = self._store.add(
                examined.bars,
                name,
                now,
                native=symbol,
                allowed=examined.allowed,
                adjusted=examined.adjusted,
            )
        except StoredBarsDiffer as refusal:
            advised = self._with_command(examined, refusal, now)
            raise quarantine.keep(self._quarantine, name, content, advised, now) from refusal
        except InvalidBars as refusal:
            raise quarantine.keep(self._quarantine, name, content, refusal, now) from refusal
        return _info(manifest)

    def examine_file(
        self,
        path: Path,
        symbol: str,
        timeframe: str,
        calendar: str = calendars.AUTO,
        *,
        now: datetime,
        as_of: datetime | None = None,
        layout: Layout | None = None,
        reverse: bool = False,
        drop_open_bar: bool = False,
        allow: Collection[str] = (),
    ) -> Examined:
        """Validated bars of a file, as for `import_file`; nothing is stored.

        Raises:
            InvalidBars: a rule is broken; the file and a report are in quarantine.
            DataError: the file cannot be read, or an option does not fit.
        """
        _, examined = self._examined_file(
            path,
            symbol,
            timeframe,
            calendar,
            now=now,
            as_of=as_of,
            layout=layout,
            reverse=reverse,
            drop_open_bar=drop_open_bar,
            allow=allow,
        )
        return examined

    def _examined_file(
        self,
        path: Path,
        symbol: str,
        timeframe: str,
        calendar: str,
        *,
        now: datetime,
        as_of: datetime | None,
        **options: Any,
    ) -> tuple[bytes, Examined]:
        content = content_of(path)
        try:
            examined = self.examine_content(
                str(path), content, symbol, timeframe, calendar, now=as_of or now, **options
            )
        except InvalidBars as refusal:
            raise quarantine.keep(self._quarantine, path.name, content, refusal, now) from refusal
        return content, examined

    def _with_command(self, examined: Examined, refusal: StoredBarsDiffer, now: datetime) -> StoredBarsDiffer:
        """The refusal with the command that puts the bars of the file in the place of the stored ones.

        The command names a copy of the bars as read, so that no option of the import has to be repeated.
        """
        bars = examined.bars
        content = parquet(bars)
        name = f"{bars.symbol}_{bars.timeframe}.parquet"
        quarantine.keep(self._quarantine, name, content, refusal, now)
        copy = quarantine.folder_of(self._quarantine, content) / name
        command = replace_command(bars, bars.time[0], bars.time[-1], str(copy))
        command += "".join(f" --allow {rule}" for rule in examined.allowed)
        advice = f"To see what changes and to take the new values: {command}"
        finding = refusal.findings[0]
        return StoredBarsDiffer(refusal.origin, [replace(finding, message=f"{finding.message}. {advice}")])

    def examine_content(
        self,
        origin: str,
        content: bytes,
        symbol: str,
        timeframe: str,
        calendar: str = calendars.AUTO,
        *,
        now: datetime,
        layout: Layout | None = None,
        reverse: bool = False,
        drop_open_bar: bool = False,
        allow: Collection[str] = (),
    ) -> Examined:
        """Validated bars of the content of a file, as for `import_file`; nothing is stored.

        Raises:
            InvalidBars: a rule is broken; the error carries all findings.
            DataError: an option does not fit.
        """
        step = _timeframe(timeframe)
        normalise_symbol(symbol)
        refuse_unknown_rules(allow)
        file = read(origin, content, symbol, layout or Layout(), step)
        frame = file.frame[::-1].reset_index(drop=True) if reverse else file.frame
        stated = [finding for finding in file.findings if finding.rule not in allow]
        try:
            examined = self._valid(
                frame,
                symbol,
                step,
                calendar,
                now=now,
                origin=origin,
                drop_open_bar=drop_open_bar,
                allow=frozenset(allow),
            )
        except InvalidBars as refusal:
            raise InvalidBars(origin, [*stated, *refusal.findings]) from refusal
        if stated:
            raise InvalidBars(origin, stated)
        overruled = {finding.rule: max(finding.count, 1) for finding in file.findings}
        return replace(
            examined,
            allowed={**overruled, **examined.allowed},
            adjusted={**file.adjusted, **examined.adjusted},
        )

    def replacement(
        self, offered: Examined, first: datetime | None = None, last: datetime | None = None
    ) -> Replacement:
        """The stored bars of a span beside bars to put in their place; nothing is stored.

        Args:
            offered: bars of `examine_file` or `examine_source`; bars outside the span are ignored.
            first, last: first and last open time of the span, inclusive; None for the beginning or end of the
                series.

        Raises:
            UnknownSeries: the series is not stored.
        """
        bars = offered.bars
        stored = self._store.read(self._stored(bars.symbol, bars.timeframe))
        compared = replacement(stored, bars, _nanoseconds(first), _nanoseconds(last))
        return replace(compared, allowed=offered.allowed)

    def replace(
        self, replacement: Replacement, source: str, *, reason: str, actor: str, now: datetime
    ) -> SeriesInfo:
        """Put the offered bars of a replacement in the place of the stored ones, as a new snapshot.

        The snapshot before stays readable by its hash.

        Args:
            source: file or exchange of the bars.
            reason, actor: recorded with the snapshot.

        Raises:
            ConflictError: the stored bars of the span have changed since the comparison.
            InvalidBars: the series with the replaced bars breaks a rule; nothing is stored.
        """
        manifest = self._stored(replacement.offered.symbol, replacement.offered.timeframe)
        return _info(self._store.replace(manifest, replacement, source, now, reason, actor))

    def with_calendar(self, symbol: str, timeframe: str, calendar: str) -> Examined:
        """Stored bars with another calendar, to replace the stored ones; nothing is stored.

        Raises:
            InvalidBars: bars open while the market of the calendar is closed.
            UnknownCalendar: no calendar has the name.
        """
        manifest = self._stored(normalise_symbol(symbol), _timeframe(timeframe))
        bars = self._store.read(manifest)
        return self._valid(
            bars.to_frame(),
            manifest.symbol,
            manifest.timeframe,
            calendar,
            now=manifest.snapshots[-1].written_at,
            origin=f"{manifest.symbol} {manifest.timeframe}",
            allow=manifest.allowed,
        )

    def keep_stored(
        self, symbol: str, timeframe: str, first: datetime | None = None, last: datetime | None = None
    ) -> SeriesInfo:
        """Decide for the stored values where a source gives others; the fetch no longer reports the bars."""
        manifest = self._stored(normalise_symbol(symbol), _timeframe(timeframe))
        begin = _nanoseconds(first)
        end = _nanoseconds(last)
        whole = pd.Timestamp.min.value, pd.Timestamp.max.value
        kept = self._store.keep(
            manifest.symbol,
            manifest.timeframe,
            whole[0] if begin is None else begin,
            whole[1] if end is None else end,
        )
        return _info(kept)

    def _stored(self, symbol: str, timeframe: Timeframe) -> SeriesManifest:
        manifest = self._store.manifest(symbol, timeframe)
        if manifest is None:
            raise UnknownSeries(
                f"{symbol} {timeframe} is not stored, so nothing can be replaced: use `clm data import` or "
                "`clm data fetch`"
            )
        return manifest

    def examine_source(
        self,
        symbol: str,
        timeframe: str,
        source: BarSource | str,
        first: datetime | None = None,
        last: datetime | None = None,
        *,
        now: datetime,
        calendar: str = calendars.AUTO,
        retry_policy: RetryPolicy | None = None,
        base_url: str | None = None,
        progress: Callable[[float], None] | None = None,
        allow: Collection[str] = (),
    ) -> Examined:
        """Closed bars of a source for a span of a stored series; nothing is stored.

        Args:
            first, last: first and last open time, inclusive; None for the first stored bar and for `now`.
            source: source, or the name of an exchange in ccxt.
            calendar: name of the trading calendar; `auto` for that of the stored series.
            retry_policy, base_url: of an exchange by name.
            allow: names of rules that the bars may break, see `bar_rules.OVERRULABLE`.

        Raises:
            DataError: a rule in `allow` cannot be overruled.
            SourceUnavailable: no valid answer of the source before the deadline.
            UnknownSeries: the series is not stored, or the source has no bar of the span.
            InvalidBars: a rule is broken; the bars and a report are in quarantine.
        """
        refuse_unknown_rules(allow)
        source = _source(source, retry_policy, base_url)
        manifest = self._stored(normalise_symbol(symbol), _timeframe(timeframe))
        step = manifest.timeframe
        begin = _ms(first or manifest.snapshots[-1].start)
        end = _ms(now) if last is None else min(_ms(now), _ms(last) + step.seconds * 1000)
        series = source.series(symbol, step)
        pages: list[pd.DataFrame] = []
        for page in series.pages(begin, end):
            pages.append(page)
            if progress is not None:
                progress(_share([(begin, end)], (begin, end), page))
        if not pages:
            raise UnknownSeries(f"{source.name} has no closed bar of {manifest.symbol} {step} in the span")
        frame = pd.concat(pages, ignore_index=True)
        return self._validated_fetch(frame, manifest.symbol, step, calendar, source.name, now, allow)

    def fetch(
        self,
        symbol: str,
        timeframe: str,
        source: BarSource | str,
        since: datetime | None = None,
        *,
        now: datetime,
        calendar: str = calendars.AUTO,
        retry_policy: RetryPolicy | None = None,
        base_url: str | None = None,
        progress: Callable[[float], None] | None = None,
        rechecked: int = RECHECKED_BARS,
        allow: Collection[str] = (),
    ) -> SeriesInfo:
        """Add the closed bars of a source from `since`, or from the newest stored bars, up to `now`.

        The newest `rechecked` stored bars are requested again: small corrections are stored as a new
        snapshot. Where a stored bar needs the decision of a person, the stored bar stays, all other bars are
        added, and the fetch fails at the end. Bars received before a failure of the source are stored, so
        that the next fetch continues from there.

        Args:
            source: source, or the name of an exchange in ccxt.
            since: required if nothing is stored; a moment before the first stored bar adds the bars between.
            calendar: name of the trading calendar, `auto` or `learn`: see `calendars.chosen`.
            retry_policy, base_url: of an exchange by name.
            progress: called with the completed share of the work, 0..1.
            rechecked: number of the newest stored bars to read again, at least one.
            allow: names of rules that the fetched bars may break, see `bar_rules.OVERRULABLE`.

        Raises:
            DataError: a rule in `allow` cannot be overruled.
            SourceUnavailable: no valid answer of the source before the deadline.
            UnknownSeries: the source or the market does not exist.
            StoredBarsDiffer: stored bars differ from the source's by more than a correction; all other bars
                are stored, and the message has the command that replaces the bars.
            InvalidBars: a rule is broken; the bars and a report are in quarantine.
        """
        refuse_unknown_rules(allow)
        source = _source(source, retry_policy, base_url)
        name = normalise_symbol(symbol)
        step = _timeframe(timeframe)
        manifest = self._store.manifest(name, step)
        spans = self._spans(manifest, since, now, max(rechecked, 1))
        series = source.series(symbol, step)
        base = None if manifest is None else manifest.snapshots[-1].content_hash
        for span in spans:
            pages: list[pd.DataFrame] = []
            keep = partial(
                self._keep,
                pages,
                symbol=name,
                native=symbol,
                timeframe=step,
                calendar=calendar,
                exchange=source.name,
                now=now,
                base=base,
                rechecked=max(rechecked, 1),
                allow=allow,
            )
            try:
                for page in series.pages(*span):
                    pages.append(page)
                    if progress is not None:
                        progress(_share(spans, span, page))
            except (SourceUnavailable, KeyboardInterrupt):
                # an unfinished span before the stored bars would leave a hole that is never fetched
                if pages and span is spans[-1]:
                    keep()
                raise
            manifest = keep() if pages else manifest
        if manifest is None:
            raise UnknownSeries(
                f"{source.name} has no closed bar of {name} {step} yet; try an earlier --since"
            )
        if manifest.waiting:
            raise self._waiting(manifest, symbol, source, now)
        return _info(manifest)

    def _spans(
        self, manifest: SeriesManifest | None, since: datetime | None, now: datetime, rechecked: int
    ) -> list["Span"]:
        """Spans to fetch: before the stored bars, if `since` is earlier, and from the newest stored on."""
        if manifest is None:
            if since is None:
                raise UnknownSeries(
                    "nothing of this series is stored yet: pass the first day, e.g. --since 2024-01-01"
                )
            return [(_ms(since), _ms(now))]
        stored = self._store.read(manifest)
        onward = (int(stored.time[-min(rechecked, len(stored))]) // 1_000_000, _ms(now))
        start = manifest.snapshots[-1].start
        if since is None or since >= start:
            return [onward]
        return [(_ms(since), _ms(start)), onward]

    def _keep(
        self,
        pages: list[pd.DataFrame],
        *,
        symbol: str,
        native: str,
        timeframe: Timeframe,
        calendar: str,
        exchange: str,
        now: datetime,
        base: str | None,
        rechecked: int,
        allow: Collection[str],
    ) -> SeriesManifest:
        frame = pd.concat(pages, ignore_index=True)
        manifest = self._store.manifest(symbol, timeframe)
        keep = partial(
            self._store.update, source=exchange, now=now, base=base, rechecked=rechecked, native=native
        )
        try:
            examined = self._validated_fetch(frame, symbol, timeframe, calendar, exchange, now, allow)
        except InvalidBars:
            # an invalid answer about stored bars must not hold up the bars after them
            later = frame[frame["timestamp"] > (manifest.snapshots[-1].end if manifest else now)]
            if 0 < len(later) < len(frame):
                valid = self._validated_fetch(later, symbol, timeframe, calendar, exchange, now, allow)
                keep(valid.bars, allowed=valid.allowed, adjusted=valid.adjusted)
            raise
        try:
            return keep(examined.bars, allowed=examined.allowed, adjusted=examined.adjusted)
        except InvalidBars as refusal:
            rows = examined.bars.to_frame().reset_index()
            raise self._refused(rows, examined.bars, exchange, refusal, now) from refusal

    def _validated_fetch(
        self,
        frame: pd.DataFrame,
        symbol: str,
        timeframe: Timeframe,
        calendar: str,
        exchange: str,
        now: datetime,
        allow: Collection[str] = (),
    ) -> Examined:
        origin = f"{symbol} {timeframe} from {exchange}"
        allowed = frozenset(allow)
        try:
            return self._valid(frame, symbol, timeframe, calendar, now=now, origin=origin, allow=allowed)
        except InvalidBars as refusal:
            file = f"{exchange}_{symbol}_{timeframe}.csv"
            content = frame.to_csv(index=False).encode()
            raise quarantine.keep(self._quarantine, file, content, refusal, now) from refusal

    def add_planted(self, n_bars: int, now: datetime) -> SeriesInfo:
        """Store the planted market, a made-up series with a known edge, unless the series is stored.

        Raises:
            InvalidSymbol: the name is taken by another market.
        """
        from clm_core.market import planted

        stored = self._store.manifest(planted.SYMBOL, Timeframe.H1)
        if stored is not None:
            return _info(stored)
        bars = planted.planted_bars(n_bars)
        options = {"now": now, "origin": "the planted market"}
        checked = self._valid(bars.to_frame(), planted.SYMBOL, Timeframe.H1, Calendar.ALWAYS.value, **options)
        return _info(self._store.add(checked.bars, PLANTED_SOURCE, now))

    def _valid(
        self, frame: pd.DataFrame, symbol: str, timeframe: Timeframe, calendar: str, **options: Any
    ) -> Examined:
        """Validated bars with the chosen calendar, which may be found in the bars themselves."""
        manifest = self._store.manifest(normalise_symbol(symbol), timeframe)
        stored = None if manifest is None else manifest.calendar
        named = None if calendar in (calendars.AUTO, calendars.LEARN) else Calendar(calendar)
        examined = examine(frame, symbol, timeframe, named or stored or Calendar.ALWAYS, **options)
        bars = examined.bars
        chosen = calendars.chosen(calendar, bars.time, timeframe, stored)
        return replace(examined, bars=replace(bars, calendar=chosen))

    def _refused(
        self,
        frame: pd.DataFrame,
        series: Bars | SeriesManifest,
        exchange: str,
        refusal: InvalidBars,
        now: datetime,
    ) -> InvalidBars:
        file = f"{exchange}_{series.symbol}_{series.timeframe}.csv"
        content = frame.to_csv(index=False).encode()
        return quarantine.keep(self._quarantine, file, content, refusal, now)

    def _waiting(
        self, manifest: SeriesManifest, symbol: str, source: BarSource, now: datetime
    ) -> InvalidBars:
        """Refusal of the differing bars; equal in every pass until a person has decided."""
        waiting = manifest.waiting
        first = pd.Timestamp(waiting[0].time).value
        last = pd.Timestamp(waiting[-1].time).value
        command = replace_command(manifest, first, last, source.options, symbol=symbol)
        keep = replace_command(manifest, first, last, "--keep-stored", symbol=symbol)
        causes = "; ".join(dict.fromkeys(why_waiting(bar) for bar in waiting))
        listed = "; ".join(str(bar) for bar in waiting[:3])
        message = (
            f"{source.name} gives other values than the stored ones, which stay; all other bars are added. "
            f"{causes}. First: {listed}. To see what changes and to take the new values: {command}; to keep "
            f"the stored ones: {keep}"
        )
        finding = Finding("contradicts-store", (), len(waiting), message)
        refusal = StoredBarsDiffer(f"{manifest.symbol} {manifest.timeframe} from {source.name}", [finding])
        rows = [(bar.time, *bar.offered) for bar in waiting if bar.offered is not None]
        frame = pd.DataFrame(rows, columns=["timestamp", *FIELDS])
        return self._refused(frame, manifest, source.name, refusal, now)


def _source(source: BarSource | str, retry_policy: RetryPolicy | None, base_url: str | None) -> BarSource:
    return ExchangeSource(source, retry_policy, base_url) if isinstance(source, str) else source


Span = tuple[int, int]
"""Start and end of a span, milliseconds since 1970-01-01 UTC."""


def replace_command(
    series: Bars | SeriesManifest, first: int, last: int, source: str, *, symbol: str | None = None
) -> str:
    """Command that puts the bars of a source in the place of stored bars.

    Args:
        first, last: first and last open time, nanoseconds since 1970-01-01 UTC.
        source: path of a file, or the options that name an exchange.
        symbol: spelling of the symbol; by default the stored one.
    """
    style = "%Y-%m-%d" if series.timeframe.seconds % 86400 == 0 else "%Y-%m-%dT%H:%M"
    name = shlex.quote(symbol or series.symbol)
    named = source if source.startswith("--") else shlex.quote(source)
    span = f"--from {moment(first):{style}} --to {moment(last):{style}}"
    return f"clm data replace {name} {series.timeframe} {named} {span}"


def _nanoseconds(when: datetime | None) -> int | None:
    return None if when is None else int(pd.Timestamp(when).value)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _share(spans: list[Span], current: Span, page: pd.DataFrame) -> float:
    """Completed share of the work, 0..1, after a page of the current span."""
    before = sum(until - since for since, until in spans[: spans.index(current)])
    reached = _ms(page["timestamp"].iloc[-1]) - current[0]
    return (before + reached) / sum(until - since for since, until in spans)


def _timeframe(name: str) -> Timeframe:
    try:
        return Timeframe(name)
    except ValueError as error:
        hint = ": 1M is a month, a minute is 1m" if name == "1M" else ""
        have = ", ".join(Timeframe)
        raise UnknownSeries(f"there is no timeframe {name!r}{hint}; use one of {have}") from error


def _has(manifest: SeriesManifest, content_hash: str | None) -> bool:
    prefix = content_hash or ""
    return any(snapshot.content_hash.startswith(prefix) for snapshot in manifest.snapshots)


def _info(manifest: SeriesManifest) -> SeriesInfo:
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
        native=manifest.native,
        allowed=_totals(snapshot.allowed for snapshot in manifest.snapshots),
        adjusted=_totals(snapshot.adjusted for snapshot in manifest.snapshots),
        snapshots=len(manifest.snapshots),
        corrected=sum(revision.bars for _, revision in manifest.revisions),
        waiting=len(manifest.waiting),
    )


def _totals(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for each in counts:
        totals.update(each)
    return dict(totals)
