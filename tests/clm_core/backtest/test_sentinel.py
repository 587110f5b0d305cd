"""Leak test: features, positions and recipes with knowledge of the future are flagged by name."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.backtest import sentinel
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, LookAhead
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import FEATURES, FeatureTable, compute_features
from clm_core.market.sources import MarketData
from clm_core.market.validation import validate
from clm_core.models import catalog


@pytest.fixture(scope="module")
def market() -> Bars:
    with tempfile.TemporaryDirectory() as home:
        return MarketData(Path(home)).bars("BTCUSD", "1h", days=70, closed_by=datetime.now(UTC))


@dataclass(frozen=True)
class FunctionModel:
    """A model made of a function of the bars, and its own recipe."""

    positions: Callable[[Bars], Floats]
    bars_needed: int | None = None

    def fit(self, bars: Bars, seed: int, progress: Any = None) -> "FunctionModel":
        return self


def momentum(bars: Bars) -> Floats:
    return np.sign(np.append(0.0, np.diff(bars.close)))


def clairvoyant(bars: Bars) -> Floats:
    """Sign of the move of the bar after the next open, at which the position is executed."""
    return np.sign(np.append(bars.close[2:] - bars.open[1:-1], [0.0, 0.0]) if len(bars) > 2 else bars.close)


def by_the_end(bars: Bars) -> Floats:
    """A level taken from all bars: the leak of a scaler fitted on the whole series."""
    return np.where(bars.close > bars.close.mean(), 1.0, -1.0)


@pytest.mark.parametrize("model_type", [ModelType.XGBOOST, ModelType.LIGHTGBM], ids=str)
def test_a_recipe_without_knowledge_of_later_bars_passes(model_type: ModelType, market: Bars) -> None:
    recipe = catalog.recipe(model_type, {"rounds": 20}, Costs())
    sentinel.examine(recipe, recipe.fit(market, 3), market, 3)


def test_a_rule_that_takes_no_position_on_shuffled_bars_passes(market: Bars) -> None:
    threshold = {"threshold": 0.3}
    recipe = catalog.recipe(ModelType.OTHER, threshold, Costs(), "momentum")
    shuffled = sentinel.shuffle(market, np.random.default_rng(0))[: len(market) * 2 // 3]
    with pytest.raises(InvalidTrainingParams, match="takes no position"):
        recipe.fit(shuffled, 0)
    sentinel.examine_learning(recipe, market, 0)


def test_every_feature_is_examined() -> None:
    assert set(sentinel.FEATURE_COLUMNS) == set(FEATURES)


@pytest.mark.parametrize("row", [300, 1500])
def test_a_feature_with_knowledge_of_the_next_bar_is_flagged_by_name(row: int, market: Bars) -> None:
    columns = {"honest": momentum, "peeking": sentinel.next_return}
    with pytest.raises(LookAhead, match="the feature peeking sees the future: value"):
        sentinel.examine_features(columns, market, [row])


def test_a_built_in_feature_that_leaks_is_flagged_by_name(
    market: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_peeking(bars: Bars, names: Sequence[str] | None = None) -> FeatureTable:
        table = compute_features(bars, names)
        values = np.where(
            np.equal(table.names, "log_return_1"), sentinel.next_return(bars)[:, None], table.values
        )
        return replace(table, values=values)

    monkeypatch.setattr(sentinel, "compute_features", with_peeking)
    with pytest.raises(LookAhead, match="the feature log_return_1 sees the future: value"):
        sentinel.examine_built_in_features(market, [300, 1500])
    # the feature is the culprit, also where the positions follow it
    model = FunctionModel(clairvoyant)
    with pytest.raises(LookAhead, match="the feature log_return_1 sees the future: value"):
        sentinel.examine(model, model, market, 0)  # type: ignore[arg-type]


def test_an_experiment_that_misses_the_positive_control_proves_nothing(
    market: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel, "first_leak", lambda *_: None)
    with pytest.raises(LookAhead, match=r"positive control.*proves nothing"):
        sentinel.examine_features({}, market, [300])


@pytest.mark.parametrize("peeking", [clairvoyant, by_the_end], ids=lambda model: model.__name__)
def test_positions_that_move_with_the_future_are_flagged(
    peeking: Callable[[Bars], Floats], market: Bars
) -> None:
    model = FunctionModel(peeking)
    with pytest.raises(LookAhead, match="the model's positions sees the future"):
        sentinel.examine(model, model, market, 0)  # type: ignore[arg-type]


def test_a_recipe_that_earns_on_shuffled_bars_is_flagged(market: Bars) -> None:
    with pytest.raises(LookAhead, match="the recipe sees the future: a mean return of"):
        sentinel.examine_learning(FunctionModel(clairvoyant), market, 0)  # type: ignore[arg-type]


def test_shuffled_bars_are_valid_bars_without_drift_or_memory(market: Bars) -> None:
    shuffled = sentinel.shuffle(market, np.random.default_rng(1))
    validate(
        shuffled.to_frame().reset_index(),
        symbol=shuffled.symbol,
        timeframe=shuffled.timeframe,
        calendar=shuffled.calendar,
        now=shuffled.end.to_pydatetime() + timedelta(hours=2),
        origin="shuffled",
    )
    assert shuffled.close[-1] == pytest.approx(shuffled.open[0], rel=0.02)
    np.testing.assert_allclose(np.sort(shuffled.volume), np.sort(market.volume))
    returns = np.diff(np.log(shuffled.close))
    assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 4 / np.sqrt(len(returns))


def test_the_same_seed_shuffles_the_same_way(market: Bars) -> None:
    one, other, another = (sentinel.shuffle(market, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.content_hash == other.content_hash != another.content_hash


def test_positions_that_never_trade_earn_nothing(market: Bars) -> None:
    assert sentinel.return_score(market, np.zeros(len(market))) == 0.0


@pytest.mark.parametrize(("memory", "bars"), [(None, 1000), (400, 1000), (700, 1400)])
def test_positions_are_examined_where_they_depend_on_no_more_history(
    memory: int | None, bars: int, market: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel, "NEWEST", 1000)
    model = FunctionModel(momentum, memory)
    assert len(sentinel.settled_bars(market, model)) == bars  # type: ignore[arg-type]
