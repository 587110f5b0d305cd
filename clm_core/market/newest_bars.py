"""Newest bar of each stored series, from the manifests alone: neither bars nor their libraries are loaded."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from clm_core.domain.errors import StoreCorrupt
from clm_core.domain.spellings import normalise_symbol
from clm_core.market.storage import MANIFEST, FolderStorage, SeriesStorage
from clm_core.market.timeframes import Calendar, Timeframe

if TYPE_CHECKING:
    from clm_core.market.bars import Bars

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the series shipped with the package."""
PLANTED_SOURCE = "planted by clm demo"
"""Source of the made-up series of the demo."""
GAP_RULES = 2
"""Current rules of closures and outages. Rules 1, of release 0.1.0: `24x5` closes at weekends only, and every
outage starts a new stretch. Rules 2: `24x5` has holidays and a daily break too, and short outages are carried
through (`bars.BRIDGED_BARS`). A model keeps the rules of its training."""
BY_THE_HOUR = 60 * 86_400 * 1_000_000_000
"""Length of a gap in nanoseconds above which bars shorter than an hour are counted by required hours: minute
bars of years would take seconds to count, and of so long a gap nobody needs the exact number."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class NewestBar:
    """Newest bar of a series."""

    symbol: str
    timeframe: Timeframe
    calendar: Calendar
    opened: datetime
    """Open time."""
    is_demo: bool = False
    """True for a bundled series and for the made-up series of the demo, without new bars."""

    @classmethod
    def of(cls, bars: "Bars") -> Self:
        """Newest of at least one bar."""
        return cls(bars.symbol, bars.timeframe, bars.calendar, bars.end.to_pydatetime())

    @property
    def closed(self) -> datetime:
        return self.opened + timedelta(seconds=self.timeframe.seconds)

    def late_bars(self, now: datetime) -> int:
        """Bars that the calendar requires after the newest bar, up to the bar under way at a moment."""
        return missing_until(_nanoseconds(self.opened), now, self.timeframe, self.calendar)


def newest_bars(storage: SeriesStorage, markets: Iterable[tuple[str, str]]) -> Iterator[NewestBar]:
    """Newest bars of the given markets that have any, of the stored series before the bundled one.

    Args:
        storage: place of the stored series.
        markets: pairs of symbol and timeframe.

    Raises:
        StorageUnavailable: the bucket does not answer.
        StoreCorrupt: a manifest is damaged.
    """
    stores = (storage.below("data"), FolderStorage(BUNDLED))
    for symbol, timeframe in markets:
        folder = f"{normalise_symbol(symbol)}/{Timeframe(timeframe)}"
        contents = ((store, store.manifest(folder)) for store in stores)
        stored = next(((store, content) for store, content in contents if content is not None), None)
        if stored is not None:
            store, content = stored
            yield _parsed(content, store.address(folder, MANIFEST), is_bundled=store is stores[1])


def missing_until(
    opened: int, now: datetime, timeframe: Timeframe, calendar: Calendar, gap_rules: int = GAP_RULES
) -> int:
    """Bars that the calendar requires between a bar and the bar under way at a moment.

    Args:
        opened: open time of the bar, nanoseconds since 1970-01-01 UTC.
    """
    step = timeframe.nanoseconds
    start = timeframe.grid_start
    under_way = (_nanoseconds(now) - start) // step * step + start
    if under_way <= opened:
        return 0
    if calendar == Calendar.ALWAYS:
        return (under_way - opened) // step - 1
    return _missing_between(opened, under_way, timeframe, calendar, gap_rules)


@lru_cache(maxsize=1024)
def _missing_between(
    opened: int, under_way: int, timeframe: Timeframe, calendar: Calendar, gap_rules: int
) -> int:
    import numpy as np

    # loads pandas and the library of the calendars, which markets that never close do without
    from clm_core.market.calendars import missing_after

    edges = np.array([opened, under_way])
    hour = Timeframe.H1.nanoseconds
    if timeframe.nanoseconds < hour and under_way - opened > BY_THE_HOUR:
        hours = missing_after(edges // hour * hour, Timeframe.H1, calendar, gap_rules)
        return int(hours[0]) * (hour // timeframe.nanoseconds)
    return int(missing_after(edges, timeframe, calendar, gap_rules)[0])


def _parsed(content: bytes, place: str, is_bundled: bool) -> NewestBar:
    """Newest bar by a manifest; a year of hourly fetches leaves thousands of snapshots, and one is read."""
    try:
        manifest = json.loads(content)
        newest = manifest["snapshots"][-1]
        return NewestBar(
            manifest["symbol"],
            Timeframe(manifest["timeframe"]),
            Calendar(manifest["calendar"]),
            datetime.fromisoformat(newest["end"]).astimezone(UTC),
            is_bundled or newest["source"] == PLANTED_SOURCE,
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise damaged_manifest(place) from error


def damaged_manifest(place: str) -> StoreCorrupt:
    """Error about an unreadable manifest."""
    return StoreCorrupt(f"{place} is damaged: restore it from a backup, or delete its folder")


def _nanoseconds(moment: datetime) -> int:
    """Since 1970-01-01 UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND * 1000
