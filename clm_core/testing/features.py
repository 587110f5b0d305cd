"""Contract of own features, for the tests of their authors.

from clm_core.testing.features import examine_features

def test_my_features_keep_the_contract():
    examine_features(Path("my_features.py"))
"""

from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np

from clm_core.market import own_features
from clm_core.market.bars import Bars
from clm_core.market.feature_check import ExaminedFeature, examine
from clm_core.market.features import Stretch
from clm_core.market.look_ahead import first_leak
from clm_core.market.own_features import OwnFeature
from clm_core.market.sources import MarketData

SEEDS = (0, 1, 2)
"""Seeds of the rows examined."""


def examine_features(source: Path | ModuleType, bars: Bars | None = None) -> list[ExaminedFeature]:
    """Examine every feature of a file or module: look-ahead, memory, warm-up, and answers to the last bit.

    Args:
        bars: real bars, with the own series that the features take (`market.series.with_series`); default:
            the bundled hourly bars of BTCUSD.

    Raises:
        LookAhead: a feature uses later bars.
        FeatureFailed: a feature raises, gives no number, or remembers more bars than declared.
    """
    features = (
        own_features.load_module(source) if isinstance(source, ModuleType) else own_features.load_file(source)
    )
    given = bundled_bars() if bars is None else bars
    return [_examined(each, given) for each in features.values()]


def bundled_bars() -> Bars:
    """Hourly bars of BTCUSD that come with the package."""
    return MarketData(Path("nothing stored")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))


def _examined(feature: OwnFeature, bars: Bars) -> ExaminedFeature:
    for seed in SEEDS:
        examined = examine(feature, bars, np.random.default_rng(seed))
    _require_exact(feature, bars)
    return examined


def _require_exact(feature: OwnFeature, bars: Bars) -> None:
    """Compare the values that models get: the last bars alone, bars cut off and bars changed later."""
    newest = bars[list(bars.stretches())[-1]][-4 * feature.memory - 1_000 :]
    values = feature.compute(Stretch(newest))
    rows = np.random.default_rng(SEEDS[0]).integers(feature.memory, len(newest) - 1, 20).tolist()
    for row in rows:
        window = newest[row - feature.memory : row + 1]
        assert feature.compute(Stretch(window))[-1] == values[row], f"{feature.origin} at {newest.index[row]}"
    leak = first_leak(lambda changed: feature.compute(Stretch(changed)), newest, rows[:5])
    assert leak is None, f"{feature.origin}: {leak}"
