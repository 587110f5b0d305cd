"""Regimes: labels use completed days only, stay as they were given, and keep their meaning."""

import numpy as np
import pandas as pd
import pytest

from clm_core.market.bars import Bars, Floats
from clm_core.market.look_ahead import first_leak
from clm_core.market.regimes import DEFAULT, SHU_2024, UNKNOWN, RegimeRules, current, features_of, regimes
from clm_core.market.timeframes import Calendar, Timeframe

DAY = 86_400_000_000_000
START = pd.Timestamp("2019-02-11", tz="UTC").value
TURBULENT = slice(480, 560)


def bars_of(close: Floats, timeframe: Timeframe = Timeframe.D1) -> Bars:
    time = START + np.arange(len(close), dtype=np.int64) * timeframe.nanoseconds
    return Bars("MADE", timeframe, Calendar.ALWAYS, time, close, close, close, close, np.ones(len(close)))


def closes(days: int, per_day: int = 1, seed: int = 4) -> Floats:
    """Prices whose moves are four times as large on the turbulent days and now and then in the first year."""
    rng = np.random.default_rng(seed)
    day = np.arange(days * per_day) // per_day
    large = ((day >= TURBULENT.start) & (day < TURBULENT.stop)) | ((day > 120) & (day < 200))
    moves = np.where(large, 0.04, 0.01) * rng.standard_normal(days * per_day) / np.sqrt(per_day)
    return np.asarray(100 * np.exp(np.cumsum(moves)))


@pytest.mark.parametrize("rules", [DEFAULT, SHU_2024], ids=["default", "Shu 2024"])
def test_features_are_the_exponential_averages_of_pandas(rules: RegimeRules) -> None:
    close = closes(200)
    ends = START + np.arange(1, 201) * DAY
    returns = pd.Series(close).pct_change()
    squares = (returns.clip(upper=0) ** 2).where(returns.notna())

    def deviation(half_life: float) -> "pd.Series[float]":
        return squares.ewm(halflife=half_life).mean() ** 0.5

    expected = [np.log(deviation(each)) for each in rules.deviation_half_lives]
    expected += [returns.ewm(halflife=h).mean() / deviation(h) for h in rules.sortino_half_lives]
    values = features_of(close, ends, DAY, rules)
    assert values.shape[1] == len(rules.features)
    np.testing.assert_allclose(values[20:], np.column_stack(expected)[20:], rtol=1e-12)


def test_labels_stay_the_same_to_the_bit_whatever_comes_later() -> None:
    bars = bars_of(closes(660))
    # quarters begin on days 415, 506 and 598: fits lie before, between and after the cuts
    rows = [*np.linspace(380, 650, 44).astype(int).tolist(), 414, 415, 505, 506, 597, 598]

    def labels(some: Bars) -> Floats:
        return regimes(some).labels.astype(np.float64)

    assert len(regimes(bars).fits) == 3
    assert set(labels(bars)) == {-1.0, 0.0, 1.0}
    assert first_leak(labels, bars, rows) is None


def test_fits_stay_the_same_to_the_bit_whatever_comes_later() -> None:
    bars = bars_of(closes(660))
    whole = regimes(bars).fits
    for fit, same in zip(whole, regimes(bars[:520]).fits, strict=False):
        assert fit.at == same.at
        assert fit.centroids.tobytes() == same.centroids.tobytes()


def test_turbulence_is_found_and_named_and_ends() -> None:
    market_regimes = regimes(bars_of(closes(660)))
    labels = market_regimes.labels
    assert market_regimes.states == ("calm", "turbulent")
    assert np.all(labels[420 : TURBULENT.start] == 0)
    assert np.all(labels[TURBULENT.start + 40 : TURBULENT.stop] == 1)
    assert np.all(labels[TURBULENT.stop + 60 :] == 0)
    assert market_regimes.switches == 2
    assert all(fit.centroids[1, 0] > fit.centroids[0, 0] for fit in market_regimes.fits)


def test_a_bar_has_the_label_of_the_last_day_completed_at_its_close() -> None:
    close = closes(600, per_day=4)
    by_bar = regimes(bars_of(close, Timeframe.H6)).labels
    by_day = regimes(bars_of(close[3::4])).labels
    assert {0, 1} <= set(by_day.tolist())
    assert by_bar[3::4].tolist() == by_day.tolist()
    for within_day in range(3):
        assert by_bar[4 + within_day :: 4].tolist() == by_day[:-1].tolist()


def test_the_current_regime_says_since_when_and_how_far() -> None:
    bars = bars_of(closes(660))[:540]
    labels = regimes(bars).labels
    first = int(np.flatnonzero(labels == 0)[-1]) + 1
    regime = current(bars)
    assert regime is not None
    assert (regime.label, regime.name) == (1, "turbulent")
    assert regime.since.value == bars.time[first] + DAY
    assert regime.day.value == bars.time[-1] + DAY
    assert regime.distances[1] < regime.distances[0]


def test_the_regime_of_an_earlier_moment_is_the_one_known_then() -> None:
    bars = bars_of(closes(660))
    market_regimes = regimes(bars)
    for row in (100, 450, TURBULENT.stop - 1, 659):
        label = market_regimes.labels[row]
        closed = bars.index[row] + pd.Timedelta("1D")
        assert market_regimes.known_at(closed) == (None if label == UNKNOWN else market_regimes.states[label])
    just_before = bars.index[-1] + pd.Timedelta("23h")
    assert market_regimes.known_at(just_before) == market_regimes.states[market_regimes.labels[-2]]


@pytest.mark.parametrize("days", [0, 1, 365, 414])
def test_the_regime_is_unknown_before_the_first_quarter_after_a_year(days: int) -> None:
    bars = bars_of(closes(660))[:days]
    market_regimes = regimes(bars)
    assert market_regimes.labels.tolist() == [UNKNOWN] * days
    assert market_regimes.labels.dtype == np.int8
    assert current(bars) is None


def test_a_long_break_makes_no_return_of_a_day() -> None:
    close = np.append(closes(100), 1.0)
    ends = START + np.arange(1, 102) * DAY
    ends[-1] += 8 * DAY
    values = features_of(close, ends, DAY, SHU_2024)
    assert values[-1].tolist() == values[-2].tolist()
    ends[-1] -= DAY
    assert features_of(close, ends, DAY, SHU_2024)[-1].tolist() != values[-2].tolist()


def test_a_constant_price_has_one_regime() -> None:
    bars = bars_of(np.full(500, 7.0))
    assert set(regimes(bars).labels[420:].tolist()) == {0}


def test_longer_bars_are_used_as_they_are() -> None:
    close = closes(660)
    time = pd.Timestamp("2005-01-03", tz="UTC").value + np.arange(660) * Timeframe.W1.nanoseconds
    columns = (close, close, close, close, np.ones(660))
    market_regimes = regimes(Bars("MADE", Timeframe.W1, Calendar.ALWAYS, time, *columns))
    assert len(market_regimes.days.ends) == 660
    assert market_regimes.labels.tolist() == market_regimes.days.labels.tolist()
    assert np.all(market_regimes.labels[TURBULENT.start + 40 : TURBULENT.stop] == 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_states": 1},
        {"n_states": 6},
        {"jump_penalty": -1.0},
        {"jump_penalty": float("nan")},
        {"deviation_half_lives": ()},
        {"sortino_half_lives": (0.0,)},
    ],
    ids=str,
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"regimes|penalty"):
        RegimeRules(**wrong)  # type: ignore[arg-type]
