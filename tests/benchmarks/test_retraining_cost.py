"""Rules of retraining beside each other, at a small size."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import retraining_cost
from benchmarks.retraining_cost import (
    OURS,
    PRICE_BPS,
    RULES,
    RuleCost,
    is_best,
    losses_bps,
    rows,
    triggers_of,
)
from clm_core.domain.vocabulary import KnownWorld

WEEKLY = RuleCost("weekly", retrains=26, promotions=5, expected_bps=400.0)
NEVER = RuleCost("never", retrains=1, promotions=1, expected_bps=100.0)


def test_the_cost_of_a_rule_is_the_return_lost_and_the_compute() -> None:
    assert WEEKLY.total_bps(400.0) == 26 * PRICE_BPS
    assert NEVER.total_bps(400.0) == 300.0 + PRICE_BPS
    thrifty = RuleCost(OURS, retrains=10, promotions=4, expected_bps=380.0)
    assert is_best([NEVER, WEEKLY, thrifty])
    assert not is_best([NEVER, WEEKLY, RuleCost(OURS, retrains=26, promotions=5, expected_bps=380.0)])
    assert list(rows("moving", [WEEKLY, NEVER]))[1] == ["moving", "never", "1", "1", "100", "300", "5", "305"]


def test_only_losing_weeks_add_to_the_staleness_of_cara() -> None:
    weeks = np.repeat([0.01, -0.02, -0.01, 0.03], 168) / 168
    assert losses_bps(weeks) == pytest.approx(300.0)
    assert losses_bps(weeks[:400]) == pytest.approx(200.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_admits_the_requests_that_it_makes(rule: str) -> None:
    triggers = triggers_of(rule)
    assert triggers.cost_aware.enabled is (rule == OURS)
    assert (triggers.drift_detected.daily_budget_per_model == 0) is (rule not in ("drift", OURS))


@pytest.mark.chaos
@pytest.mark.parametrize("rule", ["CARA", OURS])
def test_a_world_is_replayed_under_a_rule(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraining_cost, "PARAMS", {"rounds": 2})
    monkeypatch.setattr(retraining_cost, "SPAN_DAYS", 90)
    replayed = retraining_cost.replayed(tmp_path, KnownWorld.NONE, 0, rule, 15)
    assert replayed.retrains >= 1
    assert replayed.known is not None
