"""Maps of policies whose network is written by hand, so that every answer is known."""

import json

import numpy as np
import pytest

from clm_core.domain.errors import NotEnoughBars
from clm_core.explain.policy_maps import explain_policy, policy_section
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import TrainedOn
from clm_core.models.policies.policy_params import PolicyParams
from clm_core.models.policies.reinforcement import Normaliser, PolicyModel
from clm_core.models.policies.rl_v2 import DQNParams
from clm_core.models.policies.rl_v3 import PPOParams
from clm_core.models.policies.trading import PolicyNetwork

FEATURES = ("log_return_1", "body", "range")
COSTS = {"fee_bps": 0.0, "slippage_bps": 0.0}


def network(weight: Floats, outputs: Floats) -> PolicyNetwork:
    """Network of one linear unit and its negative, rectified: `outputs` times the part above 0 and below.

    Args:
        weight: weights of the three features, the current position and the open profit, shape (5,).
        outputs: shape (2, n_outputs).
    """
    both = np.stack([weight, -weight], axis=1)
    return PolicyNetwork(both, np.zeros(2), np.eye(2), np.zeros(2), outputs, np.zeros(outputs.shape[1]))


def policy(params: PolicyParams, bars: Bars, weight: list[float], outputs: list[list[float]]) -> PolicyModel:
    normaliser = Normaliser(np.zeros(3), np.full(3, 0.01), 0.01)
    net = network(np.array(weight), np.array(outputs))
    return PolicyModel(params, TrainedOn.of(bars, 1), {}, normaliser, net)


def test_a_policy_that_follows_the_first_feature_is_long_on_its_right_side_alone(bars: Bars) -> None:
    follows = policy(PPOParams(features=FEATURES, step=0.5, **COSTS), bars, [9, 0, 0, 0, 0], [[1.0], [-1.0]])
    maps = explain_policy(follows, bars, ("log_return_1", "range"))
    assert maps.currents == (-1.0, 0.0, 1.0)
    assert maps.values is None
    assert maps.by_current == 0.0
    expected = np.clip(np.rint(2 * 9 * np.clip(maps.along / 0.01, -5, 5)) / 2, -1, 1)
    assert maps.positions == pytest.approx(np.tile(expected, (3, 21, 1)), abs=1e-6)
    section = policy_section(maps)
    assert section.sentences[-1] == "rl_v3 chooses positions without keeping an estimate of their value."
    assert [each.name for each in section.charts] == ["positions"]


def test_a_policy_that_keeps_its_position_depends_on_it_everywhere(bars: Bars) -> None:
    keeps = policy(PPOParams(features=FEATURES, **COSTS), bars, [0, 0, 0, 1, 0], [[1.0], [-1.0]])
    maps = explain_policy(keeps, bars, ("body", "range"))
    assert maps.by_current == 1.0
    assert [set(each.ravel()) for each in maps.positions] == [{-1.0}, {0.0}, {1.0}]
    assert policy_section(maps).tables[0].rows == (
        ("short", "100.0%", "0.0%", "0.0%", "-1.00"),
        ("flat", "0.0%", "100.0%", "0.0%", "+0.00"),
        ("long", "0.0%", "0.0%", "100.0%", "+1.00"),
    )


def test_values_are_those_of_the_position_that_the_policy_takes(bars: Bars) -> None:
    params = DQNParams(features=FEATURES, margin=0.5, **COSTS)
    # worth of short, flat and long: -x, 0 and x for a feature of x standard deviations
    values = policy(params, bars, [1, 0, 0, 0, 0], [[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]])
    maps = explain_policy(values, bars, ("log_return_1", "body"))
    assert maps.values is not None
    worth = np.clip(maps.along / 0.01, -5, 5)
    from_flat = np.where(worth > 0.5, 1.0, np.where(worth < -0.5, -1.0, 0.0))
    assert np.array_equal(maps.positions[1], np.tile(from_flat, (21, 1)))
    assert maps.values[1] == pytest.approx(np.tile(from_flat * worth, (21, 1)), abs=1e-6)
    section = policy_section(maps)
    assert [each.name for each in section.charts] == ["positions", "values"]
    json.dumps([section.values, *(each.figure for each in section.charts)], allow_nan=False)


def test_a_policy_without_short_positions_has_no_map_from_short(bars: Bars) -> None:
    long_only = PPOParams(features=FEATURES, long_only=True, **COSTS)
    maps = explain_policy(
        policy(long_only, bars, [9, 0, 0, 0, 0], [[1.0], [-1.0]]), bars, ("log_return_1", "range")
    )
    assert maps.currents == (0.0, 1.0)
    assert maps.positions.min() == 0.0
    [chart] = policy_section(maps).charts
    assert [each["text"] for each in chart.figure["layout"]["annotations"]] == ["from flat", "from long"]


def test_bars_without_every_feature_are_too_few(bars: Bars) -> None:
    model = policy(PPOParams(features=FEATURES, **COSTS), bars, [0, 0, 0, 0, 0], [[1.0], [-1.0]])
    with pytest.raises(NotEnoughBars, match="none of 1 bars has every feature"):
        explain_policy(model, bars[:1], ("body", "range"))
