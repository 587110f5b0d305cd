import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clm_core.domain.errors import DataError, InvalidBars, StoreCorrupt, UnknownSeries
from clm_core.market.bars import FIELDS, Bars
from clm_core.market.store import SeriesManifest, SeriesStore
from clm_core.market.timeframes import Calendar

NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path) -> SeriesStore:
    return SeriesStore(tmp_path)


def newest(store: SeriesStore, bars: Bars) -> Bars:
    return store.read(manifest_of(store, bars))


def manifest_of(store: SeriesStore, bars: Bars) -> SeriesManifest:
    manifest = store.manifest(bars.symbol, bars.timeframe)
    assert manifest is not None
    return manifest


def test_bars_come_back_as_they_went_in(store, walk):
    store.add(walk, "a file", NOW)
    assert newest(store, walk).content_hash == walk.content_hash


def test_later_bars_are_appended_and_earlier_ones_put_in_front(store, walk):
    for part in (walk[300:600], walk[600:], walk[:300]):
        store.add(part, "a file", NOW)
    assert newest(store, walk).content_hash == walk.content_hash


def test_every_earlier_state_can_be_read_by_its_hash(store, walk):
    store.add(walk[:500], "a file", NOW)
    store.add(walk[400:], "another", NOW)
    manifest = manifest_of(store, walk)
    assert [snapshot.source for snapshot in manifest.snapshots] == ["a file", "another"]
    assert store.read(manifest, walk[:500].content_hash[:12]).content_hash == walk[:500].content_hash


def test_the_same_bars_again_make_no_snapshot(store, walk):
    store.add(walk, "a file", NOW)
    assert len(store.add(walk[10:50], "again", NOW).snapshots) == 1


def test_a_bar_that_contradicts_the_stored_one_is_refused_with_its_row(store, walk):
    store.add(walk[:500], "a file", NOW)
    close = walk.close.copy()
    close[420] = (walk.high[420] + walk.low[420]) / 2
    other = Bars(
        walk.symbol,
        walk.timeframe,
        walk.calendar,
        walk.time,
        walk.open,
        walk.high,
        walk.low,
        close,
        walk.volume,
    )
    with pytest.raises(InvalidBars, match="contradicts-store") as refusal:
        store.add(other[400:], "another", NOW)
    assert refusal.value.findings[0].rows == (20,)
    assert newest(store, walk).content_hash == walk[:500].content_hash


def test_bars_that_fit_nowhere_beside_the_stored_ones_are_refused(store, walk):
    store.add(walk[:500], "a file", NOW)
    prices = [100 * getattr(walk, name) for name in ("open", "high", "low", "close")]
    cents = Bars(walk.symbol, walk.timeframe, walk.calendar, walk.time, *prices, walk.volume)
    with pytest.raises(InvalidBars, match="scale-jump"):
        store.add(cents[500:], "in cents", NOW)


def test_a_series_has_a_single_calendar(store, walk):
    store.add(walk, "a file", NOW)
    other = Bars(
        walk.symbol, walk.timeframe, Calendar.WEEKDAYS, *(getattr(walk, n) for n in ("time", *FIELDS))
    )
    with pytest.raises(DataError, match="--calendar 24x7"):
        store.add(other, "another", NOW)


def test_an_unwritten_hash_is_unknown(store, walk):
    store.add(walk, "a file", NOW)
    with pytest.raises(UnknownSeries, match=walk.content_hash[:12]):
        store.read(manifest_of(store, walk), "0000")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut short"),
        pytest.param(
            lambda path: path.write_bytes(bytes([*path.read_bytes()[:-9], 1, *path.read_bytes()[-8:]])),
            id="a byte",
        ),
        pytest.param(Path.unlink, id="gone"),
    ],
)
@pytest.mark.parametrize("read_before", [False, True], ids=["unread", "read before"])
def test_a_damaged_snapshot_is_never_read(store, walk, damage, read_before, tmp_path):
    store.add(walk, "a file", NOW)
    if read_before:
        assert newest(store, walk).content_hash == walk.content_hash
    damage(next(tmp_path.glob("*/*/*.parquet")))
    with pytest.raises(StoreCorrupt, match="import again"):
        newest(store, walk)


def test_a_damaged_manifest_is_named(store, walk, tmp_path):
    store.add(walk, "a file", NOW)
    (tmp_path / "TEST" / "1h" / "manifest.json").write_text("{}")
    with pytest.raises(StoreCorrupt, match=r"manifest\.json is damaged"):
        store.manifest(walk.symbol, walk.timeframe)


def _add_parts(root: Path, bars: Bars, offset: int) -> None:
    for first in range(offset, len(bars), 150):
        SeriesStore(root).add(bars[first : first + 75], f"from {first}", NOW)


def test_two_processes_lose_nothing_of_each_other(store, walk, tmp_path):
    # a forked child of a process that has used numba's threads is ended by them
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_add_parts, args=(tmp_path, walk, offset)) for offset in (0, 75)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert newest(store, walk).content_hash == walk.content_hash
    assert len(manifest_of(store, walk).snapshots) == 12


def test_no_partial_file_stays_behind(store, walk, tmp_path):
    store.add(walk, "a file", NOW)
    names = {path.suffix or path.name for path in (tmp_path / "TEST" / "1h").iterdir()}
    assert names == {".parquet", ".json", ".lock"}
