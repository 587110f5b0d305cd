"""Positions of a recipe over successive versions, each on the bars served."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from clm_core.domain.errors import RegistryUnavailable
from clm_core.domain.promotions import Succession
from clm_core.lifecycle.recipe_in_production import FOLDER, ServedMarket, ServedRows, held_since
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
LONG = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
"""Position of each version on every bar."""
Held = Callable[..., tuple[Bars, Floats]]


def bars_of(n: int) -> Bars:
    time = np.datetime64(BEGIN.replace(tzinfo=None), "ns").astype(np.int64) + np.arange(n) * 3_600_000_000_000
    price = np.full(n, 100.0)
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, price, price, price, price, price)


@pytest.fixture
def held(tmp_path: Path) -> Held:
    """Bars and positions of a succession of versions with ten bars each, the last with five."""

    def followed(versions: str, lost: str = "") -> tuple[Bars, Floats]:
        begun = tuple(BEGIN + timedelta(hours=10 * number) for number in range(len(versions)))
        bars = bars_of(10 * (len(versions) - 1) + 5)
        own = ServedMarket(bars, len(bars) - 7, np.full(7, LONG[versions[-1]]))

        def positions_of(stint: ServedRows) -> dict[str, Floats]:
            if stint.version in lost:
                raise RegistryUnavailable("the files were removed")
            first, last = stint.rows["TEST"]
            return {"TEST": np.full(last - first, LONG[stint.version])}

        [record] = held_since(tmp_path, "m", Succession(tuple(versions), begun, None), [own], positions_of)
        return record

    return followed


def test_each_version_counts_on_the_bars_that_it_served(held: Held) -> None:
    bars, positions = held("abc")
    assert bars.time[0] == bars_of(1).time[0]
    assert positions.tolist() == [0.1] * 10 + [0.2] * 10 + [0.3] * 5


def test_positions_of_former_versions_are_computed_once(held: Held, tmp_path: Path) -> None:
    held("abc")
    _, positions = held("abcd", lost="ab")
    assert positions.tolist() == [0.1] * 10 + [0.2] * 10 + [0.3] * 10 + [0.4] * 5
    file = tmp_path / FOLDER / "m.npz"
    file.write_bytes(b"damaged")
    _, positions = held("abcd")
    assert len(positions) == 35
    with np.load(file) as stored:
        assert len(stored.files) == 3


def test_the_record_begins_after_a_version_that_cannot_be_read(held: Held) -> None:
    bars, positions = held("abcd", lost="b")
    assert bars.time[0] == bars_of(21).time[-1]
    assert positions.tolist() == [0.3] * 10 + [0.4] * 5


def test_positions_of_older_versions_outlast_an_outage(held: Held) -> None:
    held("abc")
    _, during = held("abcd", lost="abc")
    assert during.tolist() == [0.4] * 5
    _, after = held("abcd", lost="ab")
    assert after.tolist() == [0.1] * 10 + [0.2] * 10 + [0.3] * 10 + [0.4] * 5
