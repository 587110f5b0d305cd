"""Labels by one fit and a finite memory."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from clm_core.domain.errors import SeriesMissing
from clm_core.market.bars import Bars, Floats
from clm_core.market.look_ahead import first_leak
from clm_core.market.regime_reader import FEATURE_DAYS, RegimeReader, windowed_features
from clm_core.market.regimes import DAY, DEFAULT, completed_days, features_of, regimes, with_regimes
from clm_core.market.timeframes import Calendar, Timeframe

A_DAY = 6
FIRST = 420 * A_DAY
"""First bar of the training."""
END = 840 * A_DAY
"""End of the training, within a quarter."""


@pytest.fixture(scope="module")
def whole() -> Bars:
    """Bars of 4 hours over 1,000 days, whose moves are four times as large in every second 120 days."""
    day = np.arange(1_000 * A_DAY) // A_DAY
    moves = np.where(day // 120 % 2, 0.016, 0.004) * np.random.default_rng(2).standard_normal(len(day))
    close = 100 * np.exp(np.cumsum(moves))
    start = np.datetime64("2019-02-11", "ns").astype(np.int64)
    time = start + np.arange(len(day)) * Timeframe.H4.nanoseconds
    return Bars("MADE", Timeframe.H4, Calendar.ALWAYS, time, close, close, close, close, np.ones(len(day)))


@pytest.fixture(scope="module")
def reader(whole: Bars) -> RegimeReader:
    return RegimeReader.of(with_regimes(whole[FIRST:END], whole))


def test_a_reader_gives_the_labels_that_follow_its_training(whole: Bars, reader: RegimeReader) -> None:
    labels = reader.labels(whole[FIRST:])
    known = regimes(whole).labels[FIRST:]
    after = slice(END - FIRST, None)
    assert set(labels[after]) == {0, 1}
    assert np.mean(labels[after] == known[after]) > 0.95


def test_no_label_uses_a_later_bar_and_the_bars_needed_give_every_label(
    whole: Bars, reader: RegimeReader
) -> None:
    def labels(bars: Bars) -> Floats:
        return reader.labels(bars).astype(np.float64)

    bars = whole[FIRST:]
    assert reader.bars_needed == 152 * A_DAY
    assert first_leak(labels, bars, [1_200, 2_000, 2_003]) is None
    known = labels(bars)
    for end in range(reader.bars_needed, len(bars), 97):
        assert labels(bars[end - reader.bars_needed : end])[-1] == known[end - 1]
    assert known[: 149 * A_DAY].max() == -1


def test_windowed_features_are_weighted_means_over_sixty_days(whole: Bars) -> None:
    ends, closes = completed_days(whole)
    windowed = windowed_features(whole, ends, closes)
    assert np.isnan(windowed[:FEATURE_DAYS]).all()
    returns = closes[1:] / closes[:-1] - 1.0
    for row in (FEATURE_DAYS, 500, 999):
        newest_first = np.minimum(returns[row - FEATURE_DAYS : row][::-1], 0.0)
        for column, half_life in enumerate(DEFAULT.deviation_half_lives):
            weights = 0.5 ** (np.arange(FEATURE_DAYS) / half_life)
            expected = np.log(np.sqrt(np.average(newest_first**2, weights=weights)))
            assert windowed[row, column] == pytest.approx(expected)
    every = features_of(closes, ends, DAY, DEFAULT)
    np.testing.assert_allclose(windowed[FEATURE_DAYS:], every[FEATURE_DAYS:], atol=0.2)


def test_parts_of_bars_know_the_fits_up_to_their_end_alone(whole: Bars) -> None:
    known = with_regimes(whole, whole)
    ends = (FIRST, END, len(whole))
    dates = [each.at for each in regimes(whole).fits]
    for end in ends:
        part = known[:end]
        assert part.regime_fits is not None
        closed = part.end + pd.Timedelta(hours=4)
        assert len(part.regime_fits) == sum(date <= closed for date in dates)
        assert part.content_hash == with_regimes(whole[:end], whole[:end]).content_hash
    assert known.regime_fits is not None
    other = replace(known, regime_fits=known.regime_fits * 2)
    assert other.content_hash != known.content_hash


def test_before_the_first_fit_every_day_is_calm_and_bars_without_regimes_are_refused(whole: Bars) -> None:
    first = whole[: 360 * A_DAY]
    reader = RegimeReader.of(with_regimes(first, whole))
    assert set(reader.labels(first)[reader.bars_needed :]) == {0}
    assert RegimeReader.model_validate_json(reader.model_dump_json()) == reader
    with pytest.raises(SeriesMissing, match="with_regimes"):
        RegimeReader.of(first)
