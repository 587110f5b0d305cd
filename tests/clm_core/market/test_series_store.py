from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clm_core.domain.errors import InvalidSeries, StoreCorrupt, UnknownSeries
from clm_core.market.bars import Bars
from clm_core.market.series import KnownSeries
from clm_core.market.series_store import ValuesStore
from clm_core.market.sources import MarketData

NOW = datetime(2024, 6, 1, tzinfo=UTC)
DAY = 86_400_000_000_000
FIRST = 1_704_067_200_000_000_000


def series(*values: float, first: int = 0, delay: int = DAY, max_age: int | None = None) -> KnownSeries:
    time = FIRST + DAY * np.arange(first, first + len(values))
    return KnownSeries.of("tone", time, time + delay, np.array(values), max_age)


@pytest.fixture
def store(tmp_path: Path) -> ValuesStore:
    return ValuesStore(tmp_path / "series")


def read(store: ValuesStore, content_hash: str) -> list[float]:
    return store.read({"tone": content_hash}, "BTCUSD")["tone"].value.tolist()


def test_values_are_appended_and_every_state_stays_readable_by_its_hash(store: ValuesStore) -> None:
    before = store.add(series(1, 2), None, "a.csv", NOW)
    after = store.add(series(2, 3, first=1), None, "b.csv", NOW)

    assert store.newest_hashes(["tone"], "BTCUSD") == {"tone": after.content_hash}
    assert read(store, before.content_hash) == [1, 2]
    assert read(store, after.content_hash) == [1, 2, 3]
    [manifest] = store.manifests()
    assert [(each.values, each.revisions, each.source) for each in manifest.snapshots] == [
        (2, 0, "a.csv"),
        (3, 0, "b.csv"),
    ]


def test_a_revision_needs_a_later_time_known(store: ValuesStore) -> None:
    store.add(series(1, 2), None, "a.csv", NOW)
    with pytest.raises(InvalidSeries, match="a revision needs the later time"):
        store.add(series(1, 5), None, "b.csv", NOW)

    assert store.add(series(1, 5, delay=3 * DAY), None, "b.csv", NOW).revisions == 2


def test_equal_values_make_no_new_state(store: ValuesStore) -> None:
    first = store.add(series(1, 2), None, "a.csv", NOW)
    assert store.add(series(1, 2), None, "again.csv", NOW) == first


def test_a_value_known_in_the_future_is_refused(store: ValuesStore) -> None:
    with pytest.raises(InvalidSeries, match="in the future: leave out"):
        store.add(series(*range(200)), None, "a.csv", NOW)


def test_a_series_of_the_market_goes_before_one_of_every_market(store: ValuesStore) -> None:
    every = store.add(series(1), None, "a.csv", NOW)
    bitcoin = store.add(series(9), "BTC/USDT", "b.csv", NOW)

    assert store.newest_hashes(["tone"], "BTCUSDT") == {"tone": bitcoin.content_hash}
    assert store.newest_hashes(["tone"], "EURUSD") == {"tone": every.content_hash}


def test_the_age_limit_is_part_of_the_state_and_kept_unless_given_anew(store: ValuesStore) -> None:
    store.add(series(1, max_age=2 * DAY), None, "a.csv", NOW)
    kept = store.add(series(2, first=1), None, "b.csv", NOW, keep_age=True)
    assert kept.max_age == 2 * DAY
    assert store.add(series(2, first=1), None, "c.csv", NOW).max_age is None


def test_an_absent_series_or_state_is_named_with_the_command(store: ValuesStore) -> None:
    store.add(series(1), "BTCUSDT", "a.csv", NOW)
    with pytest.raises(UnknownSeries, match=r"no series rate .*stored: tone.*import --as series rate FILE"):
        store.newest_hashes(["rate"], "BTCUSDT")
    with pytest.raises(UnknownSeries, match="no stored state 000000000000"):
        store.read({"tone": "0" * 64}, "BTCUSDT")


def test_a_changed_file_is_found(store: ValuesStore, tmp_path: Path) -> None:
    snapshot = store.add(series(1), None, "a.csv", NOW)
    path = tmp_path / "series" / "tone" / "all" / f"{snapshot.content_hash}.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreCorrupt, match="missing or damaged"):
        read(store, snapshot.content_hash)


def test_market_data_joins_the_newest_or_a_recorded_state(tmp_path: Path, walk: Bars) -> None:
    market = MarketData(tmp_path)
    time = walk.time[[0]]
    old = market.own_series.add(KnownSeries.of("tone", time, time, np.array([1.0])), None, "a.csv", NOW)
    market.own_series.add(KnownSeries.of("tone", time, time + 1, np.array([2.0])), None, "b.csv", NOW)

    assert market.with_series(walk, ["tone"]).series["tone"][0] == 2.0
    joined = market.with_series(walk, {"tone": old.content_hash})
    assert joined.series["tone"][0] == 1.0
    assert market.with_series(joined, ["tone"]) is joined
