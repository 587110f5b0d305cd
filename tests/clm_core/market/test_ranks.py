"""Ranks of a feature among markets: values, look-ahead, late and missing members, and their store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from panels import HOUR, a_market

from clm_core.domain.errors import UnknownFeature
from clm_core.market.bars import Bars
from clm_core.market.features import compute_features
from clm_core.market.ranks import ranks_among
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore

FEATURE = "log_return_24"
THREE = tuple(a_market(symbol, 300, seed) for seed, symbol in enumerate(("AUSD", "BUSD", "CUSD")))


def values_of(members: tuple[Bars, ...]) -> np.ndarray:
    return np.stack([compute_features(bars, [FEATURE]).values[:, 0] for bars in members])


def test_ranks_run_from_the_smallest_to_the_largest_value_of_a_bar() -> None:
    series = ranks_among(THREE, FEATURE)
    values = values_of(THREE)
    warm = np.flatnonzero(np.isfinite(values[0]))
    for member, ranks in enumerate(series):
        assert ranks.name == "rank_log_return_24"
        np.testing.assert_array_equal(ranks.time, THREE[0].time[warm])
        np.testing.assert_array_equal(ranks.known, ranks.time + HOUR)
        expected = (values[:, warm] < values[member, warm]).sum(axis=0) - 1.0
        np.testing.assert_allclose(ranks.value, expected)


def test_no_rank_uses_a_later_bar_of_any_member() -> None:
    whole = ranks_among(THREE, FEATURE)
    cut = ranks_among(tuple(bars[:200] for bars in THREE), FEATURE)
    for ranks, early in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(early.value, ranks.value[: len(early)])
        assert early.time[-1] == THREE[0].time[199]


def test_a_late_bar_of_one_member_holds_the_ranks_of_its_bar_back_and_a_dead_member_does_not() -> None:
    late = (THREE[0], THREE[1], THREE[2][:-1])
    assert [ranks.time[-1] for ranks in ranks_among(late, FEATURE)] == [THREE[0].time[-2]] * 3
    dead = (THREE[0], THREE[1], THREE[2][:200])
    first, second, third = ranks_among(dead, FEATURE)
    assert first.time[-1] == second.time[-1] == THREE[0].time[-1]
    assert third.time[-1] == THREE[2].time[199]
    assert set(first.value[first.time > third.time[-1]]) == {-1.0, 1.0}


def test_equal_values_share_a_rank_and_a_value_alone_has_none() -> None:
    assert set(ranks_among((THREE[0], THREE[0]), FEATURE)[0].value) == {0.0}
    early = a_market("EARLY", 300, 7)
    after = a_market("AFTER", 100, 8, first=200)
    ranks, _ = ranks_among((early, after), FEATURE)
    assert ranks.time[0] > after.time[0]


def test_an_unknown_feature_is_refused() -> None:
    with pytest.raises(UnknownFeature):
        ranks_among(THREE, "nothing")


def test_ranks_are_appended_once_and_joined_as_known(tmp_path: Path) -> None:
    store = SeriesStore(tmp_path / "data")
    symbols = [bars.symbol for bars in THREE]

    def arrive(count: int) -> datetime:
        for bars in THREE:
            come = bars[:count]
            store.add(come, "tests", come.end.to_pydatetime() + timedelta(hours=1))
        return datetime.fromtimestamp(THREE[0].time[count - 1] / 1e9, UTC) + timedelta(hours=1)

    market = MarketData(tmp_path)
    now = arrive(250)
    first = market.add_ranks(symbols, "1h", FEATURE, now)
    assert first == 3 * (250 - 24)
    assert market.add_ranks(symbols, "1h", FEATURE, now) == 0
    now = arrive(260)
    assert market.add_ranks(symbols, "1h", FEATURE, now) == 30
    bars = market.with_series(market.bars("BUSD", "1h", closed_by=now), ["rank_log_return_24"])
    joined = bars.series["rank_log_return_24"]
    np.testing.assert_array_equal(joined[24:], ranks_among(THREE, FEATURE)[1].value[: 260 - 24])
    assert np.isnan(joined[:24]).all()
