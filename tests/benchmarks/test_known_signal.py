"""Goals of the default sizings on a signal that is known to predict."""

import numpy as np
import pytest

from benchmarks.known_signal import GOAL, OF_SIDES, SIZINGS, TURNOVER_GOAL, compare, sides
from clm_core.domain.costs import Costs


@pytest.mark.parametrize("net_sharpe", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("name", SIZINGS)
def test_sizing_keeps_the_net_sharpe_of_a_signal_with_a_half_life_of_two_days(
    name: str, net_sharpe: float
) -> None:
    results = [compare(48, net_sharpe, SIZINGS[name], seed, of_sides=name in OF_SIDES) for seed in range(2)]
    assert np.mean([each.unsized.sharpe_ratio for each in results]) == pytest.approx(net_sharpe, abs=0.01)
    assert np.mean([each.kept for each in results]) >= GOAL
    for each in results:
        assert 0.07 <= each.sized.volatility <= 0.12
        assert each.sized.turnover <= TURNOVER_GOAL
        assert each.sized.max_drawdown >= -0.35


@pytest.mark.parametrize("half_life", [48, 12])
def test_sides_in_a_calm_market_turn_over_at_most_as_often_as_their_limit(half_life: float) -> None:
    cheap = Costs(fee_bps=0.7, slippage_bps=0.0)
    calm = compare(half_life, 1.0, SIZINGS["rl_v2"], 0, of_sides=True, yearly_volatility=0.08, costs=cheap)
    limit = SIZINGS["rl_v2"].max_turnover
    assert limit is not None
    assert 0.6 * limit < calm.sized.turnover <= limit
    assert calm.unsized.turnover > limit


def test_a_side_is_held_until_its_signal_is_weak() -> None:
    strength = np.array([0.0, 1.6, 1.0, 0.4, 1.0, -1.7, -0.6, 1.6, -0.2])
    assert sides(strength).tolist() == [0, 1, 1, 0, 0, -1, -1, 1, 0]
