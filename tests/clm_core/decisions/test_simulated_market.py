"""Simulated market: volatility, win rate and sides are as stated, and noise pays no side."""

from dataclasses import replace

import numpy as np
import pytest

from clm_core.decisions.payoffs import draw_payoffs, payoff_ratio, win_rate_of
from clm_core.decisions.return_streams import Shape
from clm_core.decisions.simulated_market import (
    SIZING,
    SimulatedMarket,
    World,
    draw_sides,
    planted_edge,
    simulate_market,
)
from clm_core.market.timeframes import Timeframe
from clm_core.models.sizing import size_positions

DAILY = World(timeframe=Timeframe.D1)


def market(world: World, bars: int = 20_000, edge: float = 0.0) -> SimulatedMarket:
    return simulate_market(world, bars, edge, np.random.default_rng(3))


def trade_returns(simulated: SimulatedMarket) -> np.ndarray:
    """Sum of the market's returns along the hidden side, of each trade."""
    hidden = simulated.hidden
    moves = simulated.bars.close / simulated.bars.open - 1.0
    earned_by = np.append(-1, hidden.trade[:-1])
    inside = earned_by >= 0
    return np.bincount(earned_by[inside], (moves * hidden.earning)[inside])


@pytest.mark.parametrize("win_rate", [0.35, 0.5, 0.9])
def test_payoffs_have_the_stated_win_rate_and_ratio_and_no_mean(win_rate: float) -> None:
    drawn = draw_payoffs(win_rate, 200_000, np.random.default_rng(1))
    assert np.mean(drawn > 0) == pytest.approx(win_rate, abs=0.005)
    assert drawn.mean() == pytest.approx(0.0, abs=0.01)
    assert drawn.std() == pytest.approx(1.0, abs=0.02)
    gains = drawn[drawn > 0].mean()
    losses = -drawn[drawn < 0].mean()
    assert gains / losses == pytest.approx(payoff_ratio(win_rate), rel=0.03)


def test_a_payoff_is_a_name_or_a_ratio() -> None:
    assert win_rate_of("trend-like") == 0.35
    assert win_rate_of("1.5") == pytest.approx(0.4)
    for text in ("cauchy", "nan", "0", "-1", "1e9"):
        with pytest.raises(ValueError, match="is no payoff"):
            win_rate_of(text)


@pytest.mark.parametrize("shape", [Shape.NORMAL, Shape.AUTOREGRESSIVE, Shape.GARCH])
@pytest.mark.parametrize("win_rate", [0.35, 0.5, 0.9])
def test_trades_have_the_stated_win_rate_and_the_market_its_volatility(shape: Shape, win_rate: float) -> None:
    world = replace(DAILY, shape=shape, win_rate=win_rate, volatility=0.2)
    simulated = market(world)
    moves = simulated.bars.close / simulated.bars.open - 1.0
    assert moves.std() * np.sqrt(365) == pytest.approx(0.2, rel=0.05)
    trades = trade_returns(simulated)
    assert np.mean(trades[trades != 0.0] > 0) == pytest.approx(win_rate, abs=0.03)
    assert trades.mean() == pytest.approx(0.0, abs=4 * trades.std() / np.sqrt(len(trades)))


def test_positions_are_held_for_the_stated_days_by_the_stated_number_of_trades() -> None:
    world = World(trades_per_year=50.0, held_days=5.0, timeframe=Timeframe.H4)
    trade = market(world, bars=100_000).hidden.trade
    years = 100_000 / world.bars_per_year
    assert np.mean(trade >= 0) == pytest.approx(50 * 5 / 365, rel=0.05)
    assert (trade.max() + 1) / years == pytest.approx(50, rel=0.05)


def test_one_sizing_serves_any_sides_exactly() -> None:
    simulated = market(World(timeframe=Timeframe.H4), bars=5_000)
    for seed in range(3):
        sides = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), len(simulated.hidden.sides))
        sized = size_positions(simulated.bars, simulated.hidden.signal(sides), SIZING)
        assert np.array_equal(simulated.positions(sides, slice(0, 5_000)), sized)


def test_returns_of_retrains_correlate_as_stated() -> None:
    world = replace(DAILY, retrain_correlation=0.8)
    simulated = market(world)
    sides = draw_sides(world, simulated.hidden.sides, 2, np.random.default_rng(5))
    moves = simulated.bars.close[1:] / simulated.bars.open[1:] - 1.0
    first, second = (simulated.positions(each, slice(0, 20_000))[:-1] * moves for each in sides)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.8, abs=0.05)


def test_more_costs_need_a_larger_edge_and_less_alignment_more_drift() -> None:
    cheap, dear = (planted_edge(replace(DAILY, cost_bps=costs)) for costs in (1.0, 20.0))
    assert 0.0 < cheap < dear
    assert planted_edge(replace(DAILY, cost_bps=0.0)) == 0.0
    assert planted_edge(replace(DAILY, retrain_correlation=0.25)) == pytest.approx(
        2 * planted_edge(replace(DAILY, retrain_correlation=1.0))
    )


def test_a_market_that_cannot_be_simulated_says_what_to_state() -> None:
    assert DAILY.problem == ""
    assert "fewer trades" in replace(DAILY, trades_per_year=400.0).problem
    assert "fewer days held" in replace(DAILY, held_days=5.0).problem
    assert "no costs" in replace(DAILY, retrain_correlation=0.0).problem
    assert replace(DAILY, retrain_correlation=0.0, cost_bps=0.0).problem == ""
