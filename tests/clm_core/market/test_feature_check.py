"""Own features that leak are refused with their name, and harmless ones pass."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import leaking_features
import numpy as np
import pandas as pd
import pytest

from clm_core.domain.errors import FeatureFailed, LookAhead, NotEnoughBars
from clm_core.market import own_features
from clm_core.market.bars import Bars, Floats
from clm_core.market.feature_check import examine
from clm_core.market.own_features import OwnFeature, feature
from clm_core.market.sources import MarketData
from clm_core.testing.features import examine_features

SEEDS = range(5)


@pytest.fixture(scope="module")
def bundled() -> Bars:
    return MarketData(Path("nothing stored")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[-6_000:]


def own(name: str) -> OwnFeature:
    return own_features.load_module(leaking_features)[name]


def of_function(function: Callable[[Bars], Floats], warm_up: int, memory: int | None = None) -> OwnFeature:
    declared = feature(warm_up=warm_up, memory=memory, name="tried")(function)
    origin = own_features.FeatureOrigin(name="tried", source="tried.py", function="tried", digest="0" * 64)
    return OwnFeature(declared, origin)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [each.name for each in leaking_features.LEAKS])
def test_a_leaking_feature_is_refused_with_its_name_whatever_rows_are_drawn(
    name: str, seed: int, bundled: Bars
) -> None:
    with pytest.raises(
        LookAhead, match=rf"^the feature {name} \(leaking_features\) sees the future: .*bar of"
    ):
        examine(own(name), bundled, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [each.name for each in leaking_features.HARMLESS])
def test_a_harmless_feature_is_accused_of_nothing(name: str, seed: int, bundled: Bars) -> None:
    assert examine(own(name), bundled, np.random.default_rng(seed)).name == name


@pytest.mark.parametrize("name", [each.name for each in leaking_features.WITH_STATE])
def test_state_between_calls_is_called_state_and_no_look_ahead(name: str, bundled: Bars) -> None:
    with pytest.raises(FeatureFailed, match=rf"{name} .*gives two answers to the same bars"):
        examine(own(name), bundled, np.random.default_rng(0))


def test_rounding_changed_by_later_bars_is_called_rounding(bundled: Bars) -> None:
    """A causal filter by FFT over the whole series: later bars change the last digits."""
    kernel = np.ones(24) / 24

    def smooth(bars: Bars) -> Floats:
        size = len(bars) + len(kernel)
        product = np.fft.rfft(bars.close, size) * np.fft.rfft(kernel, size)
        return bars.close / np.fft.irfft(product, size)[: len(bars)] - 1

    with pytest.raises(LookAhead, match="as an FFT does, so that later bars change the rounding"):
        examine(of_function(smooth, 23), bundled, np.random.default_rng(0))


def exponential_gap(bars: Bars) -> Floats:
    close = pd.Series(bars.close)
    return (close / close.ewm(span=50, adjust=False).mean() - 1).to_numpy()


def test_an_undeclared_memory_is_measured_and_the_measured_memory_is_accepted(bundled: Bars) -> None:
    with pytest.raises(FeatureFailed, match=r"declares memory=50, but .* declare memory=(\d+)$") as refused:
        examine(of_function(exponential_gap, 50), bundled, np.random.default_rng(0))
    measured = int(str(refused.value).rpartition("=")[2])
    assert 200 < measured < 600

    examined = examine(of_function(exponential_gap, 50, measured + 100), bundled, np.random.default_rng(0))

    assert examined.memory == measured + 100
    assert examined.bars_needed >= examined.memory


def test_a_sum_since_the_first_bar_has_no_memory_that_suffices(bundled: Bars) -> None:
    with pytest.raises(
        FeatureFailed, match=r"no number of bars up to .* does\. A value may not depend on the start"
    ):
        examine(of_function(lambda bars: np.cumsum(bars.volume), 0), bundled, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            lambda n: np.r_[np.full(30, np.nan), np.ones(n - 30)][:n], "declare warm_up=30", id="late"
        ),
        pytest.param(
            lambda n: np.r_[np.ones(40), np.inf, np.ones(n)][:n], "an infinite value for bar 40", id="inf"
        ),
        pytest.param(lambda n: np.r_[np.ones(60), np.nan, np.ones(n)][:n], "a neutral value", id="hole"),
    ],
)
def test_a_missing_value_after_the_warm_up_is_refused_with_the_bar(
    values: Callable[[int], Floats], message: str, bundled: Bars
) -> None:
    with pytest.raises(FeatureFailed, match=message):
        examine(of_function(lambda bars: values(len(bars)), 10), bundled, np.random.default_rng(0))


def test_too_few_bars_for_the_memory_are_refused(bundled: Bars) -> None:
    with pytest.raises(NotEnoughBars, match=r"remembers 1000 bars.* give at least 2400 bars"):
        examine(of_function(exponential_gap, 50, 1_000), bundled[:2_300], np.random.default_rng(0))


def test_the_contract_for_authors_passes_a_module_and_names_a_fault(bundled: Bars) -> None:
    module = ModuleType("harmless")
    module.__file__ = __file__
    module.__dict__["gap"] = feature(warm_up=50, memory=900, name="gap")(exponential_gap)
    sys.modules["harmless"] = module

    assert [each.name for each in examine_features(module, bundled)] == ["gap"]
    with pytest.raises((LookAhead, FeatureFailed), match="leaking_features"):
        examine_features(leaking_features, bundled)
