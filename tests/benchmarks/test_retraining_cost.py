"""Rules of retraining beside each other, at a small size."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import retraining_cost
from benchmarks.retraining_cost import (
    OURS,
    PRICES,
    RULES,
    WORLDS,
    RuleCost,
    is_best,
    losses_bps,
    means,
    rows,
    triggers_of,
)
from clm_core.domain.trigger_policy import RetrainCostRules
from clm_core.domain.vocabulary import KnownWorld

PRICE = 5.0


def cost(rule: str, retrains: int, expected_bps: float) -> RuleCost:
    return RuleCost(rule, PRICE, retrains, promotions=1, endings=0, expected_bps=expected_bps)


def test_a_rule_is_judged_by_the_mean_expected_return_less_the_compute() -> None:
    weekly = cost("weekly", 26, 400.0)
    never = cost("never", 1, 100.0)
    assert (weekly.net_bps, never.net_bps) == (400.0 - 26 * PRICE, 100.0 - PRICE)
    assert is_best([[never, weekly, cost(OURS, 10, 380.0)]])
    assert not is_best([[never, weekly, cost(OURS, 26, 380.0)]])
    # better in the mean of two seeds, and worse with one of them
    assert is_best([[never, cost(OURS, 1, 99.0)], [never, cost(OURS, 1, 102.0)]])


def test_the_table_has_the_distance_to_the_best_rule_with_its_standard_error() -> None:
    seeds = [[cost("never", 1, 5.0), cost(OURS, 1, by)] for by in (15.0, 25.0)]
    never, ours = rows("moving", seeds)
    assert ours == ["moving", OURS, "1.0", "1.0", "0.0", "20", "5", "15", "best"]
    assert never == ["moving", "never", "1.0", "1.0", "0.0", "5", "5", "0", "15 ± 5"]
    [never, _] = rows("moving", seeds[:1])
    assert never[-1] == "10"


def test_the_means_of_the_rules_are_told_best_first() -> None:
    measured = [[cost("never", 1, 5.0), cost(OURS, 1, by)] for by in (15.0, 1025.0)]
    assert means(measured) == "cost-aware 515, never 0"


def test_only_losing_weeks_add_to_the_staleness_of_cara() -> None:
    weeks = np.repeat([0.01, -0.02, -0.01, 0.03], 168) / 168
    assert losses_bps(weeks) == pytest.approx(300.0)
    assert losses_bps(weeks[:400]) == pytest.approx(200.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_admits_the_requests_that_it_makes(rule: str) -> None:
    triggers = triggers_of(rule, PRICE)
    assert triggers.cost_aware.enabled is (rule == OURS)
    assert (triggers.drift_detected.daily_budget_per_model == 0) is (rule not in ("drift", OURS))


def test_the_cost_aware_rule_believes_in_the_half_life_given() -> None:
    assert triggers_of(OURS, PRICE).cost_aware.half_life_days == RetrainCostRules().half_life_days
    assert triggers_of(OURS, PRICE, 3650.0).cost_aware.half_life_days == 3650.0


@pytest.mark.parametrize("price_bps", PRICES)
def test_the_cost_aware_rule_pays_the_price_of_the_table(price_bps: float) -> None:
    rules = triggers_of(OURS, price_bps).cost_aware
    assert rules.hours_per_retrain is not None
    assert rules.compute_price_per_hour is not None
    assert rules.capital is not None
    paid = rules.hours_per_retrain * rules.compute_price_per_hour / rules.capital
    assert paid * 1e4 == pytest.approx(price_bps)


def test_results_of_rules_without_a_price_are_kept_for_every_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = list[tuple[str, float]]()

    def replayed(
        folder: Path, world: object, seed: int, days: int, rule: str, price_bps: float, half_life: float
    ) -> RuleCost:
        replays.append((rule, price_bps))
        return RuleCost(rule, price_bps, 2, promotions=1, endings=0, expected_bps=30.0)

    monkeypatch.setattr(retraining_cost, "_cost", replayed)
    cheap, dear = retraining_cost.costs(tmp_path, KnownWorld.NONE, 0, 14, (5.0, 20.0))
    assert replays == [*((rule, 5.0) for rule in RULES), ("CARA", 20.0), (OURS, 20.0)]
    assert {each.net_bps for each in cheap} == {20.0}
    assert {each.net_bps for each in dear} == {-10.0}
    # only the cost-aware rule has a half-life
    replays.clear()
    retraining_cost.costs(tmp_path, KnownWorld.NONE, 0, 14, (5.0,), 365.0)
    assert replays == [(OURS, 5.0)]


@pytest.mark.chaos
@pytest.mark.parametrize("rule", ["CARA", OURS])
def test_a_world_is_replayed_under_a_rule(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining_cost, "PARAMS", {"rounds": 2})
    monkeypatch.setattr(retraining_cost, "SPAN_DAYS", 90)
    monkeypatch.setattr(retraining_cost, "RULES", (rule,))
    [[rule_cost]] = retraining_cost.costs(tmp_path, KnownWorld.NONE, 0, 14, (PRICE,))
    assert rule_cost.retrains >= 1
    monkeypatch.setattr(retraining_cost, "replayed", None)
    assert retraining_cost.costs(tmp_path, KnownWorld.NONE, 0, 14, (PRICE,)) == [[rule_cost]]


def test_the_worlds_have_an_edge_that_lives_dies_or_moves_or_none() -> None:
    assert [each.value for each in WORLDS] == ["planted", "dying", "turning", "none"]
