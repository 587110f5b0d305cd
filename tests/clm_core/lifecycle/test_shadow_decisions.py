"""Decisions on shadows carried out on a real ledger and a real registry, day by day with a moved clock.

Positions are recorded by the tests: of foresight, or its reverse, on daily bars.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shadow_worlds import ADA, DAYS, MakeVersion, World
from sqlalchemy import Engine

from clm_core.domain.actors import PROTECTION, Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.shadow_decisions import PlaceOutcome, ShadowAction, ShadowDecision
from clm_core.domain.vocabulary import ModelStatus
from clm_core.evidence.alpha_spending import share
from clm_core.lifecycle import approvals, shadow_decisions
from clm_core.services import Services

PROMOTE, RETIRE, CONTINUE, EXPIRE = ShadowAction


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: MakeVersion, tmp_path: Path, ledger_engine: Engine
) -> World:
    return World(services, model_id, make_version, tmp_path, ledger_engine)


def test_the_first_version_is_promoted_once_its_shadow_confirms_it(
    world: World, ledger_engine: Engine, check: Callable[[str], None]
) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 80)
    early = world.decide(40)[version.version]
    assert (early.action, early.waits_for) == (CONTINUE, "")
    assert early.progress.startswith("30 of 60 days, ")
    assert world.status(version) is ModelStatus.CANDIDATE

    later = world.decide(71)[version.version]
    assert later.action is PROMOTE
    assert world.status(version) is ModelStatus.PRODUCTION
    [change] = world.services(71).ledger.promotions.committed(world.model_id)
    assert (change.actor, change.from_version, change.expected) == ("clm", None, True)
    assert change.reason.startswith("shadow: nothing serves, and ")
    assert world.outcomes(ledger_engine) == [PlaceOutcome.PROMOTED]
    assert world.decide(72) == {}
    check(world.model_id)


def test_a_version_far_below_its_walk_forward_is_retired_with_the_probability(
    world: World, ledger_engine: Engine
) -> None:
    version = world.register(10)
    world.follow(version, -world.foresight, 80)
    decision = world.decide(71)[version.version]
    assert decision.action is RETIRE
    assert "backtest not confirmed" in decision.reasons[0]
    assert decision.figures.chance_of_bad_luck is not None
    assert decision.figures.chance_of_bad_luck < 0.05
    assert world.status(version) is ModelStatus.RETIRED
    assert world.outcomes(ledger_engine) == [PlaceOutcome.RETIRED]


def test_late_positions_are_no_evidence_and_their_version_expires(
    world: World, ledger_engine: Engine
) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 195, late=True)
    assert world.decide(100)[version.version].action is CONTINUE
    decision = world.decide(191)[version.version]
    assert decision.action is EXPIRE
    assert decision.reasons[0].startswith("no position was recorded in time after 181 days")
    assert world.status(version) is ModelStatus.RETIRED
    assert world.outcomes(ledger_engine) == [PlaceOutcome.EXPIRED]


def test_a_better_recipe_replaces_the_champion_after_a_persons_decision_has_stood(
    world: World, ledger_engine: Engine
) -> None:
    champion = world.register(5)
    better = world.register(10)
    worse = world.register(11)
    world.promote(champion, 11)
    rng = np.random.default_rng(2)
    mixed = np.where(rng.random(DAYS) < 0.5, world.foresight, -world.foresight)
    world.follow(champion, mixed, 150)
    world.follow(better, np.where(rng.random(DAYS) < 0.8, world.foresight, mixed), 150)
    world.follow(worse, -world.foresight, 150)

    first = world.decide(60, human_hold_days=200, refute_chance=1e-300)
    assert {each.action for each in first.values()} == {CONTINUE}
    assert first[better.version].progress.startswith("lead: 0 days, level 3.2 %")
    assert first[worse.version].figures.level == pytest.approx(0.05 * share(2))

    held = world.decide(150, human_hold_days=200, refute_chance=1e-300)
    assert held[worse.version].action is RETIRE
    assert "worse than champion" in held[worse.version].reasons[0]
    assert held[better.version].action is PROMOTE
    assert held[better.version].waits_for.startswith("ada decided about production on 2024-01-12")
    assert world.status(better) is ModelStatus.CANDIDATE
    assert first[better.version].figures.single_look is None
    recorded = world.services(150).ledger.shadow_decisions.newest(world.model_id, better.version)
    assert recorded is not None
    tests = recorded.decision.figures.single_look
    assert tests is not None
    assert tests == held[better.version].figures.single_look
    assert tests.days == held[better.version].figures.lead_days
    assert 0.0 < tests.paired.low_bps < tests.lead_bps < tests.paired.high_bps

    assert world.decide(150, human_hold_days=7)[better.version].waits_for == ""
    assert (world.status(better), world.status(champion)) == (ModelStatus.PRODUCTION, ModelStatus.RETIRED)
    change = world.services(150).ledger.promotions.committed(world.model_id)[-1]
    assert (change.actor, change.from_version, change.expected) == ("clm", champion.version, True)
    assert world.outcomes(ledger_engine) == [PlaceOutcome.PROMOTED, PlaceOutcome.RETIRED]


@pytest.mark.parametrize(("actor", "held"), [(PROTECTION, False), (ADA, True)], ids=["protection", "person"])
def test_after_a_halt_a_confirmed_candidate_serves_and_waits_for_a_persons_decision_alone(
    world: World, actor: Actor, held: bool, check: Callable[[str], None]
) -> None:
    champion = world.register(5)
    candidate = world.register(10)
    world.promote(champion, 6)
    world.follow(champion, -world.foresight, 80)
    world.follow(candidate, world.foresight, 80)
    clm = world.services(69)
    clm.promotions.halt(world.model_id, actor, "tested", clm.clock())

    waiting = world.decide(71, human_hold_days=7)[candidate.version]
    assert waiting.action is PROMOTE
    assert waiting.reasons[0].startswith("nothing serves, and ")
    assert bool(waiting.waits_for) is held
    # the protection counts the same decisions
    decided = clm.ledger.promotions.newest_by_person(world.model_id)
    assert decided == (world.when(69 if held else 6), ADA.name)

    assert (world.decide(77, human_hold_days=7) != {}) is held
    change = clm.ledger.promotions.committed(world.model_id)[-1]
    assert (change.actor, change.from_version, change.to_version) == ("clm", None, candidate.version)
    assert world.status(champion) is ModelStatus.RETIRED
    check(world.model_id)


def test_a_later_version_of_the_recipe_takes_over_place_and_record(
    world: World, ledger_engine: Engine
) -> None:
    first = world.register(10)
    world.of_recipe([first], "a" * 64)
    world.follow(first, world.foresight, 40)
    assert world.decide(39)[first.version].progress.startswith("29 of 60 days")
    second = world.register(40)
    world.of_recipe([second], "a" * 64)
    world.follow(second, world.foresight, 60)
    decided = world.decide(60)
    assert decided[first.version].action is RETIRE
    assert decided[first.version].reasons[0].startswith(f"superseded by {second.version}")
    assert decided[second.version].progress.startswith("50 of 60 days")
    assert (world.status(first), world.outcomes(ledger_engine)) == (ModelStatus.RETIRED, [None])
    before = decided[second.version].figures.bars
    assert 45 <= before <= 50, "bars of both versions"


@pytest.mark.parametrize(
    ("rules", "waits"),
    [
        ({"human_hold_days": 0}, ""),
        ({"refresh": "approval", "human_hold_days": 0}, "refresh = approval in the policy"),
        ({"refresh": "off", "human_hold_days": 0}, "refresh = off in the policy"),
    ],
    ids=["auto", "approval", "off"],
)
def test_a_refresh_that_passed_the_gate_is_promoted_at_once_where_the_policy_lets_it(
    rules: dict[str, object],
    waits: str,
    world: World,
) -> None:
    champion = world.register(5)
    refresh = world.register(10)
    world.of_recipe([champion, refresh], "b" * 64)
    world.promote(champion, 6)
    decision = world.decide(10.1, **rules)[refresh.version]
    assert decision.action is PROMOTE
    assert decision.waits_for.startswith(waits)
    expected = ModelStatus.CANDIDATE if waits else ModelStatus.PRODUCTION
    assert world.status(refresh) is expected
    if waits:
        assert world.decide(191, **rules)[refresh.version].action is EXPIRE
        assert world.status(refresh) is ModelStatus.RETIRED


def test_a_promotion_that_nobody_approves_is_refused_after_its_days(
    world: World, ledger_engine: Engine
) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 80)
    rules = {"promotion": "approval", "approval_days": 3.0}
    for day in (71, 72, 73.9):
        waits = world.decide(day, **rules)[version.version]
        assert (waits.action, waits.needs_approval) == (PROMOTE, True)
    clm = world.services(73.9, **rules)
    [waiting] = [each for each in approvals.all_waiting(clm) if each.model_id == world.model_id]
    assert (waiting.since, waiting.until) == (world.when(71), world.when(74))

    refused = world.decide(74, **rules)[version.version]
    assert refused.action is EXPIRE
    assert refused.reasons[0] == "nobody approved the promotion within 3 days (approval_days): refused"
    assert world.status(version) is ModelStatus.RETIRED
    assert world.outcomes(ledger_engine) == [PlaceOutcome.EXPIRED]


def test_a_refresh_is_decided_on_as_soon_as_its_retrain_has_ended(world: World) -> None:
    champion = world.register(5)
    refresh = world.register(10)
    other = world.register(11)
    world.of_recipe([champion, refresh], "b" * 64)
    clm = world.services(12, human_hold_days=0)
    assert shadow_decisions.decide_on_refresh(clm, refresh) is None
    world.promote(champion, 6)
    assert shadow_decisions.decide_on_refresh(clm, other) is None
    decision = shadow_decisions.decide_on_refresh(clm, refresh)
    assert decision is not None
    assert (decision.action, decision.waits_for) == (PROMOTE, "")
    assert world.status(refresh) is ModelStatus.PRODUCTION
    assert shadow_decisions.decide_on_refresh(clm, refresh) is None


def test_a_promotion_earned_with_a_low_score_is_told_of_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_decisions, "LOW_SCORE", 70.0)
    version = world.register(10)
    world.follow(version, world.foresight, 80)
    assert world.decide(71, promotion="approval")[version.version].action is PROMOTE
    assert world.decide(72)[version.version].waits_for == ""
    label = f"{version.model_id}@{version.version}"
    alerts = [each for each in world.services(72).alerts.newest(200) if each.subject == label]
    [alert] = [each for each in alerts if each.kind is AlertKind.LOW_SCORE]
    earned = f"{label} has earned its promotion with a promotion score of 62.80 of 100"
    assert alert.message.startswith(earned)
    assert "and waits: promotion = approval in the policy" in alert.message


def test_a_refused_promotion_says_why_is_tried_again_daily_and_expires(world: World) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 195)
    strict = world.services(71)
    # the recorded numbers of the version carry none of the evidence that the policy asks for
    asking = strict.policies.presets["thresholds-only"].model_copy(update={"evidence": {}})
    document = strict.policies.model_copy(update={"presets": {"thresholds-only": asking}})

    def decided(day: float, anew: bool) -> ShadowDecision:
        clm = replace(world.services(day), policies=document)
        return shadow_decisions.decide_all(clm, world.model_id, anew=anew)[0][world.model_id, version.version]

    refused = decided(71, anew=False)
    assert refused.action is PROMOTE
    assert refused.waits_for.startswith("the promotion was refused: ")
    assert decided(71.5, anew=False) == refused
    history = world.services(72).ledger.shadow_decisions.history(version.model_id, version.version)
    assert [each.decision.waits_for[:25] for each in history] == ["", "the promotion was refused"]
    assert decided(191, anew=False).action is EXPIRE
    assert world.status(version) is ModelStatus.RETIRED
