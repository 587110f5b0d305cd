"""Input windows of the forecasting networks, and the returns to forecast."""

from dataclasses import replace

import numpy as np
import pytest

from clm_core.market.bars import FIELDS, Bars
from clm_core.models.networks.windows import targets_of, windows_of


@pytest.mark.parametrize(
    ("features", "warm_up"),
    [((), 96), (("volume_z_24",), 96), (("rsi_14",), 150)],
    ids=["none", "short", "long"],
)
def test_a_window_starts_after_the_warm_up_of_its_stretch_and_never_reaches_over_an_outage(
    bars: Bars, features: tuple[str, ...], warm_up: int
):
    rows = windows_of(bars, 20, features).rows
    # conftest breaks the bars before row 1500
    first = warm_up + 19
    assert rows.tolist() == [*range(first, 1500), *range(1500 + first, len(bars))]


def test_a_constant_price_has_no_volatility_and_no_window(bars: Bars):
    still = {name: np.where(np.arange(len(bars)) < 200, 1.0, getattr(bars, name)) for name in FIELDS}
    rows = windows_of(replace(bars, **still), 20, ()).rows
    # the first return that is not 0 stands in row 200
    assert rows[0] == 219


def test_targets_are_counted_from_the_next_open_in_units_of_volatility(bars: Bars):
    volatility = windows_of(bars, 20, ()).volatility
    targets, end = targets_of(bars, volatility, 6)
    row = 700
    for k in range(1, 7):
        moved = np.log(bars.open[row + 1 + k] / bars.open[row + 1])
        assert targets[row, k - 1] == pytest.approx(moved / (volatility[row] * np.sqrt(k)))
    assert end[row] == row + 7
    assert targets[200:1400].std() == pytest.approx(1, abs=0.25)


def test_targets_that_reach_over_an_outage_are_undefined(bars: Bars):
    targets, end = targets_of(bars, np.ones(len(bars)), 6)
    for undefined in (slice(1493, 1500), slice(len(bars) - 7, len(bars))):
        assert np.isnan(targets[undefined]).all()
        assert np.all(end[undefined] == -1)
    assert np.isfinite(targets[1492]).all()
