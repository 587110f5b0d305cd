"""Power of a window: chances in closed form, and by the whole gate."""

import math
from dataclasses import replace

import pytest

from clm_core.decisions.evidence_window import evidence_window
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.decisions.power import WindowPower, window_power
from clm_core.decisions.simulated_market import World
from clm_core.evidence.trials import TrialCount
from clm_core.market.timeframes import Timeframe

STRICT = GatePolicy(name="strict")
TEN = TrialCount(0, 10.0)
DAILY = World(timeframe=Timeframe.D1)


def power(world: World = DAILY, trials: TrialCount = TEN, streams: int = 0) -> WindowPower:
    window = evidence_window(1825, 1825, 1825, world.bars_per_day, 0.6, trials, STRICT.evidence)
    world = replace(world, record_years=0.6 * 1825 / 365)
    return window_power(window, world, STRICT, trials, [0.5, 1.0, 2.0, 3.0, 4.0], streams, 1)


def test_a_version_that_just_shows_what_is_required_passes_half_of_the_time() -> None:
    window = power().window
    world = replace(DAILY, record_years=0.6 * 1825 / 365)
    [just] = window_power(window, world, STRICT, TEN, [window.required_sharpe], 0, 1).edges
    assert just.by_evidence == pytest.approx(0.5, abs=0.01)
    assert just.by_gate is None


def test_the_textbook_length_of_a_sharpe_ratio_of_three_is_a_third_of_a_year() -> None:
    """(1.645 / 3) ** 2 years, a little more for daily bars."""
    three = power().edges[3]
    assert three.textbook_years == pytest.approx(0.30, abs=0.01)
    assert three.textbook_years < three.minimum_years < 1.5


def test_chances_rise_with_the_edge_and_fall_with_the_trials() -> None:
    few = power().edges
    many = power(trials=TrialCount(300, 200.0)).edges
    chances = [edge.by_evidence for edge in few]
    assert chances == sorted(chances)
    assert all(more.by_evidence < less.by_evidence for less, more in zip(few, many, strict=True))


def test_the_whole_gate_passes_about_as_often_as_the_evidence() -> None:
    shown = power(streams=40)
    two = shown.edges[2]
    assert two.by_gate.value == pytest.approx(two.by_evidence, abs=4 * math.sqrt(0.25 / 40))
    assert shown.edges[0].by_gate.value < shown.edges[4].by_gate.value
    document = shown.to_json()
    assert document["edges"][2]["by_gate"]["value"] == two.by_gate.value
    assert document["window"]["required_sharpe"] == shown.window.required_sharpe
