"""Horizons chosen by their cost."""

from dataclasses import replace

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams
from clm_core.market.timeframes import Timeframe
from clm_core.models.trees.horizon import (
    LADDER,
    LARGEST_COST_SHARE,
    SHORTEST_HOURS,
    choose_horizon,
    cost_share,
)
from clm_core.models.trees.xgboost import recipe
from clm_core.testing.tick_walks import tick_walk

LONG = tick_walk(20_000, 0.0, seed=0)


def test_a_dearer_market_is_held_longer_until_the_ladder_ends() -> None:
    chosen = [choose_horizon(LONG, bps).bars for bps in (0.0, 0.8, 1.6, 2.0, 1_000)]
    assert chosen == sorted(chosen)
    assert chosen[0] == SHORTEST_HOURS
    assert chosen[-1] == LADDER[-1]
    assert len(set(chosen)) == 3


def test_the_horizon_is_the_shortest_at_which_the_round_trip_is_a_twentieth_of_the_move() -> None:
    chosen = choose_horizon(LONG, 1.8)
    shares = {each: cost_share(LONG, each, 1.8) for each in LADDER}
    assert chosen.cost_share == shares[chosen.bars] <= LARGEST_COST_SHARE
    longer = [each for each in LADDER if SHORTEST_HOURS <= each < chosen.bars]
    assert longer
    assert all(shares[each] > LARGEST_COST_SHARE for each in longer)


def test_the_cost_is_measured_against_the_mean_absolute_move() -> None:
    moves = np.abs(LONG.open[7:] / LONG.open[1:-6] - 1)
    assert cost_share(LONG, 6, 14.0) == pytest.approx(0.0014 / moves.mean())


def test_a_horizon_fits_forty_times_into_the_training_bars() -> None:
    assert choose_horizon(LONG[:1_920], 1_000.0).bars == 48
    assert choose_horizon(LONG[:1_919], 1_000.0).bars == 24
    assert choose_horizon(LONG[:1_919], 1_000.0, n_bars=1_920).bars == 48
    assert choose_horizon(LONG[:100], 1_000.0).bars == LADDER[0]


@pytest.mark.parametrize(
    ("timeframe", "shortest"),
    [(Timeframe.M15, 168), (Timeframe.H1, 48), (Timeframe.H4, 12), (Timeframe.D1, 6)],
)
def test_the_shortest_horizon_is_two_days_or_what_the_ladder_has(timeframe: Timeframe, shortest: int) -> None:
    assert choose_horizon(replace(LONG, timeframe=timeframe), 0.0).bars == shortest


def test_a_market_that_stands_still_is_held_longest() -> None:
    still = replace(LONG, **{name: np.ones(len(LONG)) for name in ("open", "high", "low", "close")})
    assert choose_horizon(still, 14.0).bars == LADDER[-1]


def test_the_cost_of_a_round_trip_is_that_of_the_market_unless_given() -> None:
    costs = Costs(fee_bps=3.0, slippage_bps=1.0)
    assert recipe({}, costs).params.round_trip_bps == 8.0
    assert recipe({"round_trip_bps": 5}, costs).params.round_trip_bps == 5.0
    assert recipe({"horizon": "24"}, costs).params.round_trip_bps is None
    with pytest.raises(InvalidTrainingParams, match="round_trip_bps"):
        recipe({"round_trip_bps": -1}, costs)


def test_each_fit_chooses_by_its_own_training_bars() -> None:
    fitting = recipe({"rounds": 5, "round_trip_bps": 2.0}, Costs())
    # three times the moves of every bar
    wild = replace(LONG, **{name: getattr(LONG, name) ** 3 for name in ("open", "high", "low", "close")})
    calm_model = fitting.fit(LONG, 0)
    wild_model = fitting.fit(wild, 0)
    assert wild_model.train_metrics["horizon"] < calm_model.train_metrics["horizon"]
    assert calm_model.train_metrics["round_trip_share_of_move"] > 0
    horizons = calm_model.train_metrics["horizon"] - wild_model.train_metrics["horizon"]
    assert calm_model.bars_needed - wild_model.bars_needed == (1 + 15) * horizons
    assert fitting.describe()["horizon"] == "auto"
