"""Sources of bars: imported and fetched series, and the series shipped with the package."""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from clm_core.domain.errors import InvalidBars, SourceUnavailable, UnknownSeries
from clm_core.domain.spellings import normalise_symbol
from clm_core.market import calendars, quarantine
from clm_core.market.bars import Bars
from clm_core.market.carry import Carry
from clm_core.market.carry_store import CarryStore
from clm_core.market.exchange import ExchangeSeries, RetryPolicy
from clm_core.market.reading import Layout, content_of, read
from clm_core.market.store import SeriesManifest, SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import Examined, examine, refuse_unknown_rules

UNBOUNDED = "pass closed_by=<moment> to MarketData.bars: the next release requires the bound"
BUNDLED = Path(__file__).parent / "bundled"


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


class MarketData:
    """All series: the series stored under `home`, and the bundled series unless stored under the same
    name."""

    def __init__(self, home: Path) -> None:
        self._store = SeriesStore(home / "data")
        self._bundled = SeriesStore(BUNDLED)
        self._quarantine = home / "quarantine"
        self.payments = CarryStore(home / "carry", self._quarantine)

    def series(self) -> list[SeriesInfo]:
        manifests = [*self._bundled.manifests(), *self._store.manifests()]
        newest = {(manifest.symbol, manifest.timeframe): manifest for manifest in manifests}
        return [_info(newest[key]) for key in sorted(newest)]

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

    def stored(self, symbol: str, timeframe: str) -> SeriesInfo | None:
        """The stored series, bundled series excluded, or None if nothing is stored."""
        manifest = self._store.manifest(normalise_symbol(symbol), _timeframe(timeframe))
        return None if manifest is None else _info(manifest)

    def newest(self, symbol: str, timeframe: str) -> SeriesInfo:
        """The newest state of a series: the stored one, or the bundled one if nothing is stored.

        Raises:
            UnknownSeries: the series does not exist; the message lists the available series.
        """
        _, manifest = self._sources(symbol, timeframe)[0]
        return _info(manifest)

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
            allow: names of rules that the bars of the file may break, see `validation.OVERRULABLE`.

        Raises:
            InvalidBars: a rule is broken; the file and a report are in quarantine.
            DataError: the file cannot be read, or an option does not fit.
        """
        content = content_of(path)
        try:
            examined = self.examine_content(
                str(path),
                content,
                symbol,
                timeframe,
                calendar,
                now=as_of or now,
                layout=layout,
                reverse=reverse,
                drop_open_bar=drop_open_bar,
                allow=allow,
            )
            manifest = self._store.add(
                examined.bars,
                path.name,
                now,
                native=symbol,
                allowed=examined.allowed,
                adjusted=examined.adjusted,
            )
            return _info(manifest)
        except InvalidBars as refusal:
            raise quarantine.keep(self._quarantine, path.name, content, refusal, now) from refusal

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

    def fetch(
        self,
        symbol: str,
        timeframe: str,
        exchange: str,
        since: datetime | None = None,
        *,
        now: datetime,
        calendar: str = calendars.AUTO,
        retry_policy: RetryPolicy | None = None,
        base_url: str | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> SeriesInfo:
        """Add the closed bars of an exchange from `since`, or from the last stored bar, up to `now`.

        The last stored bar is requested again and must be equal. Bars received before a failure of the
        exchange are stored, so that the next fetch continues from there.

        Args:
            since: required if nothing is stored; a moment before the first stored bar adds the bars between.
            calendar: name of the trading calendar, `auto` or `learn`: see `calendars.chosen`.
            base_url: alternative address of the exchange's API, such as a proxy.
            progress: called with the completed share of the work, 0..1.

        Raises:
            SourceUnavailable: no valid answer of the exchange before the deadline.
            UnknownSeries: the exchange or the market does not exist.
            InvalidBars: a rule is broken; the bars and a report are in quarantine.
        """
        name = normalise_symbol(symbol)
        step = _timeframe(timeframe)
        spans = _spans(self._store.manifest(name, step), since, now)
        series = ExchangeSeries(exchange, symbol, step, retry_policy or RetryPolicy(), base_url)
        info = None
        for span in spans:
            pages: list[pd.DataFrame] = []
            keep = partial(
                self._keep, pages, symbol=name, timeframe=step, calendar=calendar, exchange=exchange, now=now
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
            info = keep() if pages else info
        if info is None:
            raise UnknownSeries(f"{exchange} has no closed bar of {name} {step} yet; try an earlier --since")
        return info

    def _keep(
        self,
        pages: list[pd.DataFrame],
        *,
        symbol: str,
        timeframe: Timeframe,
        calendar: str,
        exchange: str,
        now: datetime,
    ) -> SeriesInfo:
        frame = pd.concat(pages, ignore_index=True)
        origin = f"{symbol} {timeframe} from {exchange}"
        try:
            examined = self._valid(frame, symbol, timeframe, calendar, now=now, origin=origin)
            return _info(self._store.add(examined.bars, exchange, now, adjusted=examined.adjusted))
        except InvalidBars as refusal:
            content = frame.to_csv(index=False).encode()
            file = f"{exchange}_{symbol}_{timeframe}.csv"
            raise quarantine.keep(self._quarantine, file, content, refusal, now) from refusal

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


Span = tuple[int, int]
"""Start and end of a span, milliseconds since 1970-01-01 UTC."""


def _spans(manifest: SeriesManifest | None, since: datetime | None, now: datetime) -> list[Span]:
    """Spans to fetch: before the stored bars, if `since` is earlier, and after the stored bars."""
    if manifest is None:
        if since is None:
            raise UnknownSeries(
                "nothing of this series is stored yet: pass the first day, e.g. --since 2024-01-01"
            )
        return [(_ms(since), _ms(now))]
    stored = manifest.snapshots[-1]
    onward = (_ms(stored.end), _ms(now))
    if since is None or since >= stored.start:
        return [onward]
    return [(_ms(since), _ms(stored.start)), onward]


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
    )


def _totals(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for each in counts:
        totals.update(each)
    return dict(totals)
