"""Data drift: planted drift is found, and stationary features show none."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.drift import CALENDAR, MIN_STRETCHES, drift, largest_distance, stability_index
from clm_core.market.features import FEATURES, LOOK_BACK, FeatureTable, compute_features
from clm_core.market.sources import MarketData

NAMES = ("wandering", "still", "calm")
LENGTH = 336
STRETCHES = 26
YEAR = 8760
"""Bars in a year of hourly bars."""


def market(seed: int, stretches: int = STRETCHES + 1) -> Floats:
    """Stationary, autocorrelated features, shape (stretches * LENGTH, 3)."""
    noise = np.random.default_rng(seed).normal(size=(stretches * LENGTH, 3))
    noise[0] = 0.0
    columns = [lfilter([1.0], [1.0, -kept], noise[:, column]) for column, kept in enumerate((0.98, 0.0, 0.7))]
    return np.column_stack(columns)


def split(values: Floats) -> tuple[Floats, Floats]:
    return values[:-LENGTH], values[-LENGTH:].copy()


@pytest.fixture(scope="module")
def btc() -> tuple[Bars, FeatureTable]:
    bars = MarketData(Path("nothing stored")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[LOOK_BACK:]
    return bars, compute_features(bars, [name for name in FEATURES if name not in CALENDAR])


def fortnights(table: FeatureTable) -> Iterator[int]:
    """First rows of the fortnights with a full year before."""
    return iter(range(LOOK_BACK + YEAR, len(table.values) - LENGTH, LENGTH))


def test_few_real_fortnights_drift_from_the_year_before(btc: tuple[Bars, FeatureTable]) -> None:
    values = btc[1].values
    names = btc[1].names
    scores = list[float]()
    for first in fortnights(btc[1]):
        measured = drift(values[first - YEAR : first], values[first : first + LENGTH], names)
        assert measured is not None
        scores.append(measured.score)
    assert np.mean(np.array(scores) > 1.25) <= 0.05


@pytest.mark.parametrize(("times", "min_share"), [(3.0, 0.4), (5.0, 0.8)], ids=["3 times", "5 times"])
def test_unprecedented_volatility_is_found(
    times: float, min_share: float, btc: tuple[Bars, FeatureTable]
) -> None:
    bars, table = btc
    scores = list[float]()
    for first in fortnights(table):
        moved = wilder(bars[first - LOOK_BACK : first + LENGTH], times)
        newest = compute_features(moved, table.names).values[LOOK_BACK:]
        measured = drift(table.values[first - YEAR : first], newest, table.names)
        assert measured is not None
        scores.append(measured.score)
    assert np.mean(np.array(scores) > 1.25) >= min_share


def wilder(bars: Bars, times: float) -> Bars:
    """Bars with every log price move multiplied by `times`."""
    prices = {name: bars.open[0] * (getattr(bars, name) / bars.open[0]) ** times for name in FIELDS[:4]}
    return replace(bars, **prices)


def test_autocorrelated_features_without_drift_are_seldom_reported() -> None:
    scores = [
        measured.score for seed in range(60) if (measured := drift(*split(market(seed)), NAMES)) is not None
    ]
    assert len(scores) == 60
    assert np.mean(np.array(scores) > 1.0) <= 0.1
    assert np.mean(np.array(scores) > 1.25) <= 0.05


@pytest.mark.parametrize(
    ("column", "change"),
    [(0, lambda x: x + 12.0), (1, lambda x: x * 3.0), (2, lambda x: x + 1.5), (1, lambda x: x * 0.0)],
    ids=["level of a wandering feature", "spread", "level", "constant"],
)
def test_planted_drift_is_found_and_the_feature_named(column: int, change: "np.ufunc") -> None:
    for seed in range(10):
        reference, newest = split(market(seed))
        newest[:, column] = change(newest[:, column])
        measured = drift(reference, newest, NAMES)
        assert measured is not None
        assert measured.score > 1.25
        assert measured.features[0] == NAMES[column]
        assert measured.stretches == STRETCHES


def test_the_statistics_of_other_monitors_are_those_worked_by_hand() -> None:
    reference = np.arange(100.0)
    # all new values in the highest of ten bins, the nine others at the least share
    expected = 0.9 * np.log(10.0) + 9 * (1e-4 - 0.1) * np.log(1e-4 / 0.1)
    assert stability_index(reference, np.full(10, 99.0)) == pytest.approx(expected)
    assert stability_index(reference, reference) == 0.0
    assert largest_distance(reference, np.arange(50.0, 150.0)) == pytest.approx(0.5)
    assert largest_distance(reference, reference) == 0.0
    rng = np.random.default_rng(5)
    one = rng.normal(size=300)
    other = rng.normal(0.3, 1.0, 70)
    expected = pytest.approx(float(ks_2samp(one, other).statistic))
    assert largest_distance(np.sort(one), np.sort(other)) == expected


def test_the_score_does_not_depend_on_units() -> None:
    reference, newest = split(market(1))
    scale = np.array([1e-6, 1.0, 1e9])
    plain = drift(reference, newest, NAMES)
    scaled = drift(reference * scale, newest * scale, NAMES)
    assert plain is not None
    assert scaled is not None
    assert scaled.score == pytest.approx(plain.score)


@pytest.mark.parametrize(
    ("reference", "newest"),
    [
        (market(0, MIN_STRETCHES)[1:], market(1, 1)),
        (market(0), market(0)[:0]),
        (np.ones((STRETCHES * LENGTH, 3)), np.ones((LENGTH, 3))),
    ],
    ids=["a short training", "no new bars", "nothing varies"],
)
def test_too_few_bars_or_constant_features_give_no_drift(reference: Floats, newest: Floats) -> None:
    assert drift(reference, newest, NAMES) is None


def test_a_feature_that_never_varied_is_left_out() -> None:
    reference, newest = split(market(2))
    reference[:, 1] = 0.5
    measured = drift(reference, newest, NAMES)
    assert measured is not None
    assert "still" not in measured.features
