import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.domain.errors import UnknownFeature
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.features import FEATURES, LOOK_BACK, SETTLED, FeatureTable, compute_features
from clm_core.market.look_ahead import first_leak
from clm_core.market.sources import MarketData
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.testing.tick_walks import tick_walk

MakeWalk = Callable[..., Bars]

every_feature = pytest.mark.parametrize("name", FEATURES)


def column(bars: Bars, name: str) -> Floats:
    return compute_features(bars, [name]).values[:, 0]


def scaled(bars: Bars, price: float, volume: float) -> Bars:
    factors = {name: volume if name == "volume" else price for name in FIELDS}
    return replace(bars, **{name: getattr(bars, name) * factor for name, factor in factors.items()})


def windows(values: Floats, size: int) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(values, size)


def test_values_held_by_somebody_serve_again_for_the_same_bars_and_features_alone(walk: Bars) -> None:
    names = tuple(FEATURES)[:5]
    held = compute_features(walk, names)
    assert compute_features(walk, names).values is held.values
    # other bars and other features have values of their own
    for bars, others in ((walk[:], names), (walk, names[:4])):
        held = compute_features(walk, names)
        again = compute_features(bars, others)
        assert again.values is not held.values
        assert again.values.tobytes() == held.values[:, : len(others)].tobytes()


@every_feature
def test_no_feature_sees_what_comes_after(name: str, walk: Bars) -> None:
    assert first_leak(lambda bars: column(bars, name), walk, [170, 399, 420, 640, 898]) is None


@settings(deadline=None, max_examples=15)
@given(row=st.integers(0, 698), seed=st.integers(0, 2**32 - 1))
def test_no_feature_sees_what_comes_after_any_row_of_any_series(
    row: int, seed: int, make_walk: MakeWalk
) -> None:
    bars = make_walk(700, seed=seed, outages=(250,))

    assert first_leak(lambda changed: compute_features(changed).values, bars, [row]) is None


@every_feature
def test_values_begin_right_after_the_warm_up_of_each_stretch(name: str, walk: Bars) -> None:
    values = column(walk, name)
    warm_up = FEATURES[name].warm_up

    for stretch in walk.stretches():
        assert np.isnan(values[stretch][:warm_up]).all()
        assert np.isfinite(values[stretch][warm_up:]).all()


def test_a_stretch_knows_nothing_of_the_one_before(walk: Bars) -> None:
    table = compute_features(walk)

    for stretch in walk.stretches():
        alone = compute_features(walk[stretch])
        assert np.array_equal(table.values[stretch], alone.values, equal_nan=True)


@every_feature
def test_a_series_begun_later_gives_nearly_the_same_values(name: str, make_walk: MakeWalk) -> None:
    bars = make_walk(1_500)
    values = column(bars, name)
    warm_up = FEATURES[name].warm_up
    tolerance = 1e-3 if warm_up == SETTLED else 1e-9

    for first in range(100, 1_200, 97):
        later = column(bars[first:], name)[warm_up:]
        assert np.abs(later - values[first + warm_up :]).max() < tolerance * np.nanstd(values)


@pytest.fixture(scope="module")
def bundled() -> Bars:
    return MarketData(Path("nothing stored")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))


@pytest.fixture(scope="module")
def of_all_history(bundled: Bars) -> FeatureTable:
    return compute_features(bundled)


@every_feature
def test_memory_plus_one_bars_give_the_value_of_all_history_to_the_bit(
    name: str, bundled: Bars, of_all_history: FeatureTable
) -> None:
    memory = FEATURES[name].memory
    values = of_all_history.values[:, of_all_history.names.index(name)]

    for last in np.random.default_rng(3).integers(memory + 1, len(bundled), 100).tolist():
        assert column(bundled[last - memory : last + 1], name)[-1] == values[last]


@pytest.mark.parametrize("standstill", [0.0, 0.5, 0.8])
def test_memory_plus_one_bars_suffice_on_a_coarse_tick_grid(standstill: float) -> None:
    """Where many prices are equal, a rounding error would make a difference of none and of little."""
    bars = tick_walk(3_000, standstill, seed=5)
    table = compute_features(bars)

    for feature in FEATURES.values():
        values = table.values[:, table.names.index(feature.name)]
        for last in range(900, len(bars), 211):
            window = bars[last - feature.memory : last + 1]
            assert column(window, feature.name)[-1] == values[last], feature.name


def test_the_memory_of_a_finite_window_is_the_window() -> None:
    memories = {name: FEATURES[name].memory for name in ("body", "log_return_72", "return_z_96", "rsi_14")}

    assert memories == {"body": 0, "log_return_72": 72, "return_z_96": 96, "rsi_14": 746}
    assert all(feature.memory >= feature.warm_up for feature in FEATURES.values())


def test_bars_under_the_rules_of_release_0_1_0_keep_its_values(walk: Bars) -> None:
    """Rounding apart, the same values; their last bits are those of stored golden rows."""
    table = compute_features(walk)
    before = compute_features(walk.under(1))

    np.testing.assert_allclose(before.values, table.values, rtol=1e-9, atol=1e-12)
    assert not np.array_equal(before.values, table.values, equal_nan=True)


@every_feature
def test_features_of_ten_times_the_price_and_a_thousand_times_the_volume_are_the_same(
    name: str, walk: Bars
) -> None:
    before = column(walk, name)
    after = column(scaled(walk, price=10.0, volume=1_000.0), name)

    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9 * np.nanstd(before))


@pytest.mark.parametrize("price", [2.0**-45, 2.0**40], ids=["tiny", "huge"])
def test_features_of_a_price_of_another_magnitude_are_the_same_to_the_bit(price: float, walk: Bars) -> None:
    before = compute_features(walk)
    after = compute_features(scaled(walk, price, volume=1.0))

    assert np.array_equal(after.values, before.values, equal_nan=True)


@st.composite
def awkward_bars(draw: st.DrawFn) -> Bars:
    """Spells of movement, standstill and no trades in any order, at tiny and huge prices and volumes."""
    spells = draw(
        st.lists(
            st.tuples(st.integers(1, 300), st.sampled_from([0.0, 1e-9, 0.01, 0.2])), min_size=1, max_size=5
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    price = draw(st.sampled_from([1e-12, 1e-3, 1.0, 1e5, 1e12]))
    volume = draw(st.sampled_from([0.0, 1e-9, 1.0, 1e15]))
    size = np.concatenate([np.full(n, s) for n, s in spells])
    steps = size * rng.uniform(-1, 1, len(size))
    close = price * np.exp(np.cumsum(steps))
    open_ = np.concatenate([[price], close[:-1]])
    wick = 1 + size * rng.random(len(size)) * rng.integers(0, 2)
    traded = (
        volume * rng.random(len(size)) * (rng.random(len(size)) < draw(st.sampled_from([0.02, 0.5, 1.0])))
    )
    return Bars(
        "TEST",
        Timeframe.H1,
        Calendar.ALWAYS,
        np.arange(len(size)) * Timeframe.H1.nanoseconds,
        open_,
        np.maximum(open_, close) * wick,
        np.minimum(open_, close) / wick,
        close,
        traded,
    )


@settings(deadline=None, max_examples=60)
@given(bars=awkward_bars())
def test_every_value_after_the_warm_up_is_finite(bars: Bars) -> None:
    table = compute_features(bars)

    for name, values in zip(table.names, table.values.T, strict=True):
        assert np.isfinite(values[FEATURES[name].warm_up :]).all(), name


NEUTRAL = {
    "close_location": 0.5,
    "bollinger_position_20": 0.5,
    "stochastic_k_14": 0.5,
    "stochastic_d_14": 0.5,
    "channel_position_72": 0.5,
    "rsi_7": 0.5,
    "rsi_14": 0.5,
    "volatility_ratio_12_96": 1.0,
}


@pytest.mark.parametrize("name", [name for name in FEATURES if not name.startswith(("hour", "weekday"))])
def test_a_market_that_never_moves_nor_trades_is_neutral(name: str, walk: Bars) -> None:
    still = {field: np.full(300, 0.0 if field == "volume" else 0.1) for field in FIELDS}
    values = column(replace(walk[:300], **still), name)

    np.testing.assert_allclose(values[FEATURES[name].warm_up :], NEUTRAL.get(name, 0.0), atol=1e-14)


def obv_change_72(bars: Bars) -> Floats:
    change = np.diff(talib.OBV(bars.close, bars.volume), prepend=0)
    return windows(change, 72).sum(axis=1) / windows(bars.volume, 72).sum(axis=1)


def atr_14(bars: Bars) -> Floats:
    return talib.NATR(bars.high, bars.low, bars.close, 14) / 100


def bollinger_width_20(bars: Bars) -> Floats:
    upper, middle, lower = talib.BBANDS(bars.close, 20, 2, 2)
    return (upper - lower) / middle


def bollinger_position_20(bars: Bars) -> Floats:
    upper, _, lower = talib.BBANDS(bars.close, 20, 2, 2)
    return (bars.close - lower) / (upper - lower)


def vwap_gap_24(bars: Bars) -> Floats:
    value = windows(bars.close * bars.volume, 24).sum(axis=1) / windows(bars.volume, 24).sum(axis=1)
    return bars.close[23:] / value - 1


def parkinson_24(bars: Bars) -> Floats:
    return np.sqrt((windows(np.log(bars.high / bars.low), 24) ** 2).sum(axis=1) / (24 * 4 * np.log(2)))


def return_z_24(bars: Bars) -> Floats:
    returns = windows(np.diff(np.log(bars.close)), 24)
    return (returns[:, -1] - returns.mean(axis=1)) / returns.std(axis=1)


PUBLISHED = {
    "log_return_8": lambda bars: np.log(bars.close[8:] / bars.close[:-8]),
    "mean_gap_24": lambda bars: np.log(bars.close[23:]) - windows(np.log(bars.close), 24).mean(axis=1),
    "volatility_96": lambda bars: windows(np.diff(np.log(bars.close)), 96).std(axis=1),
    "volume_z_24": lambda bars: (
        (bars.volume[23:] - windows(bars.volume, 24).mean(axis=1)) / windows(bars.volume, 24).std(axis=1)
    ),
    "return_z_24": return_z_24,
    "parkinson_24": parkinson_24,
    "vwap_gap_24": vwap_gap_24,
    "obv_change_72": obv_change_72,
    "rsi_14": lambda bars: talib.RSI(bars.close, 14) / 100,
    "atr_14": atr_14,
    "adx_10": lambda bars: talib.ADX(bars.high, bars.low, bars.close, 10) / 100,
    "macd": lambda bars: talib.MACD(bars.close)[0] / bars.close,
    "stochastic_k_14": lambda bars: talib.STOCHF(bars.high, bars.low, bars.close, 14, 3)[0] / 100,
    "stochastic_d_14": lambda bars: talib.STOCHF(bars.high, bars.low, bars.close, 14, 3)[1] / 100,
    "bollinger_position_20": bollinger_position_20,
    "bollinger_width_20": bollinger_width_20,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_values_are_those_of_the_formula(name: str, make_walk: MakeWalk) -> None:
    """TA-Lib on unscaled prices, or the definition written out."""
    bars = make_walk(240)
    expected = PUBLISHED[name](bars)[-(240 - LOOK_BACK) :]

    np.testing.assert_allclose(column(bars, name)[LOOK_BACK:], expected, rtol=1e-7, atol=1e-9)


def test_the_calendar_turns_once_a_day_and_once_a_week(make_walk: MakeWalk) -> None:
    bars = make_walk(24 * 14)
    hour = compute_features(bars, ["hour_sin", "hour_cos"]).values
    weekday = compute_features(bars, ["weekday_sin", "weekday_cos"]).values

    # 2020-01-01 00:00 UTC, a Wednesday
    np.testing.assert_allclose(hour[[0, 6, 12]], [[0, 1], [1, 0], [0, -1]], atol=1e-12)
    assert np.array_equal(hour[:-24], hour[24:])
    np.testing.assert_allclose(weekday[0], [np.sin(4 * np.pi / 7), np.cos(4 * np.pi / 7)])
    assert np.array_equal(weekday[: 24 * 7], weekday[24 * 7 :])
    assert len(np.unique(weekday, axis=0)) == 7


def test_chosen_features_are_the_same_columns_in_the_same_order(walk: Bars) -> None:
    table = compute_features(walk)
    part = compute_features(walk, ["macd", "body", "rsi_14"])

    assert table.names == tuple(FEATURES)
    assert part.names == ("body", "rsi_14", "macd")
    assert np.array_equal(
        part.values, table.values[:, [table.names.index(n) for n in part.names]], equal_nan=True
    )


def test_rows_are_complete_after_the_look_back_of_a_long_enough_stretch(walk: Bars) -> None:
    complete = compute_features(walk).complete

    assert np.array_equal(np.flatnonzero(complete), [*range(LOOK_BACK, 400), *range(460 + LOOK_BACK, 900)])


def test_values_cannot_be_changed_afterwards(walk: Bars) -> None:
    with pytest.raises(ValueError, match="read-only"):
        compute_features(walk).values[0, 0] = 1.0


@pytest.mark.parametrize("n", [0, 1, 2, 3, 13, 26, 40])
def test_hardly_any_bars_give_hardly_any_values(n: int, walk: Bars) -> None:
    table = compute_features(walk[:n])

    assert table.values.shape == (n, len(FEATURES))
    assert not table.complete.any()


def test_an_unknown_name_is_refused_with_the_known_ones(walk: Bars) -> None:
    with pytest.raises(
        UnknownFeature, match=r"no feature is called rsi_15\. Choose from: log_return_1, .*rsi_14"
    ):
        compute_features(walk, ["rsi_14", "rsi_15"])


def test_the_documentation_lists_every_feature_with_warm_up_and_memory() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "features.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)

    assert rows == [(f.name, f.description, str(f.warm_up), str(f.memory)) for f in FEATURES.values()]
