"""Gate simulation: promotions equal the decisions of the gate, stream by stream."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy
from clm_core.decisions.outlook import Outlook, draw_picture, outlook
from clm_core.decisions.simulation import World, simulate_waits, simulate_years

STRICT = GatePolicy(name="strict")
ALONE = GatePolicy(name="thresholds-only", evidence=None)
QUICK = World(retrains_per_year=12)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("trades", "published"), [(50, 0.212), (100, 0.140), (200, 0.062)], ids=["50", "100", "200"]
)
def test_a_record_of_ninety_days_without_an_edge_passes_the_thresholds_at_the_known_rate(
    trades: int, published: float
) -> None:
    """Known rates of simulated trades without an edge over 90 days."""
    world = World(trades_per_year=trades / 90 * 365, retrains_per_year=1, record_years=90 / 365)
    promoted = simulate_years(world, ALONE, 1500, rng()).promoted
    assert promoted.value == pytest.approx(published, abs=3.5 * promoted.error)


def test_unrelated_retrains_by_thresholds_alone_promote_luck_nearly_every_year() -> None:
    world = World(retrain_correlation=0.0, record_years=90 / 365)
    assert simulate_years(world, ALONE, 20, rng()).promoted.value == 1.0


def test_the_evidence_excludes_promotions_by_luck() -> None:
    assert simulate_years(World(), STRICT, 100, rng()).promoted.value <= 0.05


def test_a_true_edge_is_promoted_within_twice_its_minimum_track_record() -> None:
    waits = simulate_waits(replace(QUICK, annual_sharpe=3.0), STRICT, 40, 4.0, rng())
    assert waits.in_time.value >= 0.8
    assert 0.25 < waits.median_years < 2 * waits.minimum_years
    assert waits.years == tuple(sorted(waits.years))


def test_a_record_is_judged_from_the_first_window_on_and_forward_bars_cost_no_trials() -> None:
    world = replace(QUICK, annual_sharpe=3.0, record_years=2.9)
    waits = simulate_waits(world, STRICT, 20, 1.0, rng())
    # five years of bars: most streams pass at the first retrain
    assert waits.years[0] == 2.9
    assert waits.median_years == 2.9
    many = GatePolicy(name="many", evidence=EvidenceLevels(fewest_trials=10_000))
    few = simulate_waits(replace(QUICK, annual_sharpe=3.0), STRICT, 20, 4.0, rng())
    later = simulate_waits(replace(QUICK, annual_sharpe=3.0), many, 20, 4.0, rng())
    assert few.minimum_years < later.minimum_years < 3.0


def test_a_stream_without_a_pass_before_the_end_waits_for_ever() -> None:
    waits = simulate_waits(replace(QUICK, annual_sharpe=-1.0), STRICT, 10, 1.0, rng())
    assert waits.promoted.value == 0.0
    assert waits.median_years == math.inf
    assert math.isnan(waits.in_time.value)


def test_a_harder_policy_promotes_later() -> None:
    harder = GatePolicy(name="harder", evidence=EvidenceLevels(min_deflated_sharpe=0.999, fewest_trials=100))
    world = replace(QUICK, annual_sharpe=3.0)
    strict, hard = (simulate_waits(world, policy, 20, 4.0, rng()) for policy in (STRICT, harder))
    assert hard.median_years > strict.median_years


def test_the_same_seed_gives_the_same_figures_and_progress_is_reported() -> None:
    progress: list[float] = []
    first = outlook(QUICK, ALONE, [0.0, 3.0], 12, 1.0, 5, progress.append)
    assert first == outlook(QUICK, ALONE, [0.0, 3.0], 12, 1.0, 5)
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


@pytest.fixture(scope="module")
def outlooks() -> list[Outlook]:
    return [outlook(QUICK, policy, [0.0, 2.0, 3.0], 12, 1.0, 5) for policy in (STRICT, ALONE)]


def test_infinite_waits_are_null_in_json(outlooks: list[Outlook]) -> None:
    [strict, _] = (each.to_json() for each in outlooks)
    assert None in strict["edges"]["2.0"]["years"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn_into_the_file_that_is_named(
    outlooks: list[Outlook], suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"outlook.{suffix}"
    draw_picture(outlooks, file)
    assert file.stat().st_size > 10_000
