"""Gate simulation: promotions equal the decisions of the gate, stream by stream."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clm_core.backtest.metrics import measure
from clm_core.decisions import gate
from clm_core.decisions.cases import Case
from clm_core.decisions.evidence_window import mean_tested_days
from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy
from clm_core.decisions.outlook import Outlook, draw_picture, outlook
from clm_core.decisions.simulated_market import DAYS_A_YEAR, World
from clm_core.decisions.simulation import one_recipe, other_recipes, simulate_waits, simulate_years
from clm_core.domain.evaluations import Decision
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import TrackRecord
from clm_core.evidence.trials import TrialCount
from clm_core.market.timeframes import Timeframe

STRICT = GatePolicy(name="strict")
ALONE = GatePolicy(name="thresholds-only", evidence=None)
QUICK = World(retrains_per_year=12, record_years=1.0, timeframe=Timeframe.D1)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("trades", "published"), [(50, 0.212), (100, 0.140), (200, 0.062)], ids=["50", "100", "200"]
)
def test_a_record_of_ninety_days_without_an_edge_passes_the_thresholds_at_the_known_rate(
    trades: int, published: float
) -> None:
    """Known rates of simulated trades without an edge over 90 days."""
    records = 0.01 * rng().standard_normal((1500, trades))
    share = np.mean([passes_thresholds(returns, trades / 90 * 365) for returns in records])
    assert share == pytest.approx(published, abs=3.5 * math.sqrt(published * (1 - published) / 1500))


def passes_thresholds(returns: np.ndarray, trades_per_year: float) -> bool:
    empty = np.zeros(0)
    case = Case(
        metrics=measure(returns, empty, empty, returns, trades_per_year),
        activity=Activity("long", 0.5, 1.0),
        record=TrackRecord(math.nan, math.nan, math.nan, len(returns), math.nan),
        trials=TrialCount(1, 1.0),
        periods_per_year=trades_per_year,
        comparison=None,
        returns=returns,
    )
    return gate.judge(case, ALONE).decision is Decision.PASS


def test_the_record_of_a_first_retrain_is_that_of_the_default_window() -> None:
    assert World().record_years == pytest.approx(mean_tested_days(1825, Timeframe.H1) / DAYS_A_YEAR, abs=5e-3)


@pytest.mark.parametrize("win_rate", [0.35, 0.9])
def test_a_retrain_passes_where_the_verdict_with_every_input_measured_is_a_pass(win_rate: float) -> None:
    """The order of the inputs changes no decision."""
    single_trial = GatePolicy(name="fewest", evidence=EvidenceLevels(fewest_trials=1.0))
    passed = set()
    for policy in (STRICT, single_trial, ALONE):
        for seed in range(2):
            world = replace(QUICK, annual_sharpe=2.0, win_rate=win_rate)
            several = [
                one_recipe(world, policy, 1.0, np.random.default_rng(seed)),
                other_recipes(world, policy, np.random.default_rng(seed)),
            ]
            for retrains in several:
                for number in range(0, len(retrains), 3):
                    verdict = retrains.verdict(number)
                    assert retrains.passes(number) == verdict.passed
                    passed.add(verdict.passed)
    assert passed == {True, False}


def test_a_simulated_verdict_has_every_check_of_a_version_without_a_search_or_a_champion() -> None:
    retrains = one_recipe(QUICK, STRICT, 1.0, rng())
    assert [check.name for check in retrains.verdict(3).checks] == [
        "ruined",
        "share_of_one_side",
        "position_deviation",
        "sharpe_ratio",
        "win_rate",
        "profit_factor",
        "max_drawdown",
        "trades",
        "expectancy",
        "timing",
        "alpha",
        "deflated_sharpe_ratio",
        "track_record_bars",
    ]


def test_unrelated_retrains_by_thresholds_alone_promote_luck_nearly_every_year() -> None:
    unrelated = World(retrain_correlation=0.0, cost_bps=0.0, trades_per_year=203.0, timeframe=Timeframe.H4)
    world = replace(unrelated, record_years=90 / 365)
    assert simulate_years(world, ALONE, 10, rng()).promoted.value == 1.0


def test_the_evidence_excludes_promotions_by_luck() -> None:
    years = simulate_years(replace(QUICK, retrains_per_year=52), STRICT, 60, rng())
    assert years.promoted.value <= 0.05
    # the costs are just paid
    assert abs(years.realised.sharpe_ratio.value) < 3.5 * years.realised.sharpe_ratio.error


def test_a_refreshed_recipe_without_an_edge_is_not_promoted_by_luck() -> None:
    waits = simulate_waits(replace(QUICK, retrains_per_year=52), STRICT, 60, 1.0, rng())
    assert waits.promoted.value <= 0.05
    assert waits.textbook_years == math.inf


def test_a_true_edge_is_promoted_within_twice_its_minimum_track_record() -> None:
    waits = simulate_waits(replace(QUICK, annual_sharpe=3.0), STRICT, 40, 4.0, rng())
    assert waits.in_time.value >= 0.8
    assert waits.textbook_years == pytest.approx(0.30, abs=0.01)
    assert waits.textbook_years < waits.median_years < 2 * waits.minimum_years
    assert waits.years == tuple(sorted(waits.years))


def test_a_true_sharpe_ratio_is_net_of_costs_and_after_sizing() -> None:
    for changes in ({"cost_bps": 20.0}, {"volatility": 0.15, "win_rate": 0.35}, {"win_rate": 0.9}):
        world = replace(QUICK, annual_sharpe=2.0, record_years=10.0, **changes)
        realised = simulate_waits(world, STRICT, 20, 0.0, rng()).realised
        assert realised.sharpe_ratio.value == pytest.approx(2.0, abs=3.5 * realised.sharpe_ratio.error)


def test_a_record_is_judged_from_the_first_window_on_and_forward_bars_cost_no_trials() -> None:
    world = replace(QUICK, annual_sharpe=3.0, record_years=2.9)
    waits = simulate_waits(world, STRICT, 20, 1.0, rng())
    # five years of bars: most streams pass at the first retrain
    assert waits.years[0] == 2.9
    assert waits.median_years == 2.9
    assert waits.promoted_at_once.value > 0.5
    many = GatePolicy(name="many", evidence=EvidenceLevels(fewest_trials=10_000))
    few = simulate_waits(replace(QUICK, annual_sharpe=3.0), STRICT, 10, 4.0, rng())
    later = simulate_waits(replace(QUICK, annual_sharpe=3.0), many, 10, 4.0, rng())
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
