"""Panel: common axis of time, cuts at a moment, and the rows that a fit uses."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from panels import HOUR, START, a_market, a_panel

from clm_core.domain.errors import DataError, FeatureMismatch
from clm_core.market import panel as panels
from clm_core.market.panel import Panel, thinned
from clm_core.market.timeframes import Calendar

UNEVEN = Panel("POOL", (a_market("AAA", 100, 1), a_market("BBB", 40, 2, first=80)))


def test_the_axis_has_every_moment_with_a_bar_of_any_member_once() -> None:
    assert UNEVEN.time.tolist() == [START + HOUR * hour for hour in range(120)]


def test_a_cut_at_a_moment_leaves_out_members_without_a_bar() -> None:
    early = UNEVEN.between(START, START + 50 * HOUR)
    assert early is not None
    assert [(member.symbol, len(member)) for member in early] == [("AAA", 50)]
    assert UNEVEN.between(START - HOUR, START) is None
    later = UNEVEN.between(START + 90 * HOUR, START + 200 * HOUR)
    assert later is not None
    assert [(member.symbol, len(member)) for member in later] == [("AAA", 10), ("BBB", 30)]


def test_bars_closed_by_a_moment_exclude_the_bar_still_open() -> None:
    closed = UNEVEN.closed_by(datetime(2024, 1, 1, 10, 30, tzinfo=UTC))
    assert closed is not None
    assert len(closed["AAA"]) == 10


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"symbol": "AAA"}, "names a symbol twice"),
        ({"calendar": Calendar("24x5")}, "share the calendar"),
        ({"gap_rules": 1}, "share the gap rules"),
    ],
    ids=["same symbol", "other calendar", "other gap rules"],
)
def test_members_that_differ_in_more_than_the_symbol_are_refused(
    changed: dict[str, object], message: str
) -> None:
    one, other = UNEVEN.members
    with pytest.raises(DataError, match=message):
        Panel("POOL", (one, replace(other, **changed)))  # type: ignore[arg-type]


def test_a_symbol_that_is_no_member_is_refused_with_the_names_of_the_members() -> None:
    with pytest.raises(FeatureMismatch, match="POOL has no member CCC: give bars of one of AAA, BBB"):
        UNEVEN["CCC"]


def test_the_hash_depends_on_every_member_and_on_the_name() -> None:
    one, other = UNEVEN.members
    hashes = {
        UNEVEN.content_hash,
        Panel("OTHER", (one, other)).content_hash,
        Panel("POOL", (one, other[:-1])).content_hash,
        Panel("POOL", (one,)).content_hash,
    }
    assert len(hashes) == 4
    assert Panel("POOL", (one, replace(other))).content_hash == UNEVEN.content_hash


def test_the_index_compounds_the_mean_return_of_the_members() -> None:
    index = UNEVEN.index_bars()
    own, other = UNEVEN.members
    mean = (own.close[85] / own.close[84] + other.close[5] / other.close[4]) / 2
    assert index.close[85] / index.close[84] == pytest.approx(mean, rel=1e-12)
    alone = other.close[39] / other.close[38]
    assert index.close[119] / index.close[118] == pytest.approx((alone - 1) / 2 + 1, rel=1e-12)
    assert index.symbol == "POOL"


def test_a_small_pool_is_fitted_on_every_row() -> None:
    panel = a_panel(["A", "B", "C"], 1000)
    assert all(thinned(panel, number).all() for number in range(3))


def test_a_large_pool_is_thinned_to_little_more_than_its_longest_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(panels, "FEW_ROWS", 0)
    panel = a_panel([f"S{number}" for number in range(10)], 1000)
    kept = [thinned(panel, number) for number in range(10)]
    assert 0.9 * 1000 <= sum(mask.sum() for mask in kept) <= panels.MAX_SHARE * 1000
    # every moment is seen through some member
    assert np.any(kept, axis=0).all()


def test_later_bars_change_no_choice_of_rows_while_the_lengths_stay_in_proportion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(panels, "FEW_ROWS", 0)
    long = a_panel([f"S{number}" for number in range(5)], 1000)
    short = long.between(START, START + 600 * HOUR)
    assert short is not None
    for number in range(5):
        assert thinned(long, number)[:600].tolist() == thinned(short, number).tolist()
