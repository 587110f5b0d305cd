"""Allocations on a real ledger and a real registry, day by day with a moved clock.

Positions are recorded by the tests: of foresight, or its reverse, on daily bars.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shadow_worlds import ADA, DAYS, MakeVersion, World
from sqlalchemy import Engine, text

from clm_core.decisions.allocation import arm_of_bar
from clm_core.domain.actors import Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.allocations import AllocationEnd, AllocationInForce, AllocationState
from clm_core.domain.errors import AllocationRefused, AlreadyExists, ConflictError, NotAllowed, NotFound
from clm_core.domain.fills import Fill
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.lifecycle import allocation, shadow_decisions
from clm_core.lifecycle.allocation import AllocationStep
from clm_core.lifecycle.fills import report_fills
from clm_core.registry.allocation_in_force import allocation_in_force
from clm_core.services import Services

ADMIN = Actor(name="eve", role=Role.ADMIN)
VIEWER = Actor(name="vic", role=Role.VIEWER)
STARTED = 20
SERVING = "5" * 64
AWAITING = "a" * 64
"""Recipes of the production version and of the candidate."""


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: MakeVersion, tmp_path: Path, ledger_engine: Engine
) -> World:
    return World(services, model_id, make_version, tmp_path, ledger_engine)


@pytest.fixture
def pair(world: World) -> tuple[ModelVersion, ModelVersion]:
    """A production version that is always flat, and a candidate of foresight, with an allocation."""
    production = world.register(9)
    candidate = world.register(10)
    world.of_recipe([production], SERVING)
    world.of_recipe([candidate], AWAITING)
    world.promote(production, 10)
    world.follow(production, np.zeros(DAYS), 120)
    world.follow(candidate, 0.5 * world.foresight, 120)
    allocation.start(world.services(STARTED), world.model_id, [candidate.version], ADA, "try it")
    return production, candidate


def update(world: World, day: float) -> AllocationStep:
    [step], problems = allocation.update_all(world.services(day), world.model_id)
    assert not any(problems.values()), problems
    return step


def in_force(world: World) -> AllocationInForce:
    return allocation_in_force(world.services(0).ledger, world.model_id)


def test_an_allocation_starts_at_seventy_to_thirty_and_waits_for_its_bars(
    world: World, pair: tuple[ModelVersion, ModelVersion], audited: Callable[[str], list[str]]
) -> None:
    assert in_force(world).weights == (0.7, 0.3)
    step = update(world, STARTED + 40.1)
    assert step.bars == 39
    assert step.reasons[0] == f"{pair[0].version} keeps its weight: 39 of 50 bars observed"
    assert in_force(world).weights == (0.7, 0.3)
    assert audited(world.model_id)[-2:] == ["allocation_started", "allocation_changed"]


@pytest.mark.parametrize("observed", ["paper", "fills"])
def test_weights_move_to_the_better_arm_once_a_day_by_at_most_ten_points(
    world: World, pair: tuple[ModelVersion, ModelVersion], observed: str
) -> None:
    allocation.stop(world.services(STARTED), world.model_id, ADA, "other rule")
    labels = [pair[1].version]
    allocation.start(world.services(STARTED), world.model_id, labels, ADA, "", observed)  # type: ignore[arg-type]
    weights = [0.3]
    # bars of the traded arm alone are fewer: the candidate has 30 in 100
    day = STARTED + (60 if observed == "paper" else 95)
    rules = {"allocation": {"adaptive_after_bars": 20}}
    for later in (day, day + 0.5, day + 1):
        clm = world.services(later + 0.1, **rules)
        [step], problems = allocation.update_all(clm, world.model_id)
        assert not any(problems.values()), problems
        weights.append(step.arms[1].weight)
    assert weights[0] < weights[1] <= 0.4 + 1e-9
    assert weights[2] == weights[1]
    assert weights[1] < weights[3] <= weights[1] + 0.1 + 1e-9
    assert "before the limits" in in_force(world).reasons[-1]


def test_fills_replace_the_paper_returns_of_the_bars_that_have_them(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    allocation.stop(world.services(STARTED), world.model_id, ADA, "by fills")
    run = allocation.start(world.services(STARTED), world.model_id, [pair[1].version], ADA, "", "fills")
    day = STARTED + 95
    # on paper the candidate has foresight; what was traded for it is the reverse
    held = 0.0
    fills = []
    for bar in range(STARTED + 1, day):
        arm = arm_of_bar(world.model_id, run.id, world.when(bar - 1), (0.7, 0.3)) or 0
        target = -0.5 * arm * float(world.foresight[bar - 1])
        if target != held:
            fills.append(
                Fill(
                    id=f"f{bar}",
                    model_id=world.model_id,
                    version=pair[arm].version,
                    time=world.when(bar + 0.1),
                    change=target - held,
                    price=float(world.bars.open[bar]),
                )
            )
        held = target
    clm = world.services(day + 0.1, allocation={"adaptive_after_bars": 20, "max_drawdown": 0.9})
    report_fills(clm, fills, ADA)
    [step], problems = allocation.update_all(clm, world.model_id)
    assert not any(problems.values()), problems
    assert step.arms[1].weight < 0.3
    words = f"returns of {len(fills)} of {day - STARTED - 1} observed bars from fills, of the others on paper"
    assert step.reasons[0] == words


def test_an_arm_that_fell_too_far_is_out_at_once(world: World) -> None:
    production = world.register(9)
    candidate = world.register(10)
    world.promote(production, 10)
    world.follow(production, np.zeros(DAYS), 60)
    world.follow(candidate, -world.foresight, 60)
    allocation.start(world.services(STARTED), world.model_id, [candidate.version], ADA, "")
    step = update(world, 50.1)
    assert [arm.weight for arm in step.arms] == [1.0, 0.0]
    assert step.arms[1].out.startswith("drawdown ")
    assert in_force(world).weights == (1.0, 0.0)
    assert update(world, 55.1).arms == step.arms


def test_an_allocation_ends_when_its_candidate_is_promoted(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    world.promote(pair[1], 60)
    assert in_force(world).state is AllocationState.PRODUCTION
    assert [(arm.version, arm.weight) for arm in in_force(world).arms] == [(pair[1].version, 1.0)]
    step = update(world, 61)
    assert step.run.end is AllocationEnd.PROMOTED
    assert step.run.end_reason == f"{pair[1].version} is in production, by ada: tested"
    assert allocation.update_all(world.services(62), world.model_id) == ([], {})


def test_an_allocation_ends_with_the_retirement_of_its_last_candidate(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    clm = world.services(60)
    clm.promotions.retire(world.model_id, pair[1].version, ADA, "no", clm.clock())
    now = in_force(world)
    assert (now.weights, now.arms[1].out) == ((1.0, 0.0), "the version is retired")
    assert update(world, 61).run.end is AllocationEnd.RETIRED


def test_an_allocation_of_three_goes_on_without_the_retired_candidate(world: World) -> None:
    production, first, second = (world.register(day) for day in (8, 9, 10))
    world.promote(production, 10)
    for version in (production, first, second):
        world.follow(version, np.zeros(DAYS), 60)
    labels = [first.version, second.version]
    allocation.start(world.services(STARTED), world.model_id, labels, ADA, "")
    assert in_force(world).weights == pytest.approx((0.7, 0.15, 0.15))
    clm = world.services(40)
    clm.promotions.retire(world.model_id, first.version, ADA, "no", clm.clock())
    step = update(world, 40.1)
    assert [arm.weight for arm in step.arms] == pytest.approx([0.85, 0.0, 0.15])
    assert step.run.end is None


def test_a_refresh_in_production_takes_over_the_arm_with_its_weight_and_record(
    world: World, pair: tuple[ModelVersion, ModelVersion], audited: Callable[[str], list[str]]
) -> None:
    production, candidate = pair
    update(world, STARTED + 70.1)
    weights = in_force(world).weights
    refresh = world.register(STARTED + 71)
    world.of_recipe([refresh], SERVING)
    world.follow(refresh, -world.foresight, 120)
    world.promote(refresh, STARTED + 72)
    now = in_force(world)
    assert [arm.version for arm in now.arms] == [refresh.version, candidate.version]
    assert (now.state, now.weights) == (AllocationState.RUNNING, weights)
    traded = {world.when(STARTED + 71): refresh.version, world.when(STARTED + 70): production.version}
    assert allocation.report_served(world.services(STARTED + 72.5), world.model_id, traded, ADA) == 2

    step = update(world, STARTED + 75.1)
    assert (step.run.end, step.bars) == (None, 74)
    assert (
        step.reasons[0] == f"{refresh.version} of the same recipe takes over the arm of {production.version}"
    )
    assert step.split is not None
    assert sum(step.split.counts) == 2
    assert [arm.version for arm in step.arms] == [refresh.version, candidate.version]
    assert step.arms[1].weight > weights[1]
    assert audited(world.model_id)[-1] == "allocation_changed"
    # three days of losses do not make a drawdown of 15 %, a month does: the record goes on
    out = update(world, STARTED + 99.1)
    assert out.arms[0].out.startswith("drawdown ")
    world.promote(candidate, STARTED + 99.5)
    assert update(world, STARTED + 99.6).run.end is AllocationEnd.PROMOTED


def test_an_allocation_ends_with_a_rollback_and_with_another_recipe(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    production, candidate = pair

    def ended(day: float) -> AllocationEnd | None:
        assert in_force(world).state is AllocationState.PRODUCTION
        return update(world, day).run.end

    refresh, other, newer = (world.register(day) for day in (30, 31, 32))
    for version, recipe in ((refresh, SERVING), (other, "0" * 64), (newer, AWAITING)):
        world.of_recipe([version], recipe)
    world.promote(refresh, 40)
    clm = world.services(41)
    clm.promotions.rollback(world.model_id, ADA, "back", clm.clock(), to=production.version)
    assert ended(42) is AllocationEnd.CHAMPION_CHANGED
    allocation.start(world.services(43), world.model_id, [candidate.version], ADA, "")
    world.promote(other, 44)
    assert ended(45) is AllocationEnd.CHAMPION_CHANGED
    allocation.start(world.services(46), world.model_id, [candidate.version], ADA, "")
    world.promote(newer, 47)
    assert ended(48) is AllocationEnd.PROMOTED


def test_the_next_candidate_of_a_recipe_takes_over_arm_weight_and_record(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    production, first = pair
    world.decide(60)
    update(world, STARTED + 70.1)
    update(world, STARTED + 71.1)
    weights = in_force(world).weights
    second = world.register(STARTED + 72)
    world.of_recipe([second], AWAITING)
    world.follow(second, 0.5 * world.foresight, 120)
    assert [arm.version for arm in update(world, STARTED + 72.1).arms] == [production.version, first.version]
    weights = in_force(world).weights
    world.decide(STARTED + 72.5, promotion="off")
    assert world.status(first) is ModelStatus.RETIRED
    # until a pass has recorded the successor, the capital of the retired version is in production
    assert in_force(world).weights == (1.0, 0.0)
    step = update(world, STARTED + 72.6)
    assert [arm.version for arm in step.arms] == [production.version, second.version]
    assert (step.run.end, in_force(world).weights) == (None, pytest.approx(weights))
    assert step.reasons[0] == f"{second.version} of the same recipe takes over the arm of {first.version}"
    assert update(world, STARTED + 74.1).bars == 73
    tenures = world.services(0).ledger.allocations.tenures
    since = world.when(STARTED + 72.6)
    assert tenures(world.model_id, first.version) == [(world.when(STARTED), since)]
    assert tenures(world.model_id, second.version) == [(since, None)]


@pytest.mark.parametrize("forced", [False, True], ids=["as passed", "forced"])
def test_a_successor_that_has_not_passed_the_gate_takes_over_a_forced_arm_alone(
    forced: bool, world: World, pair: tuple[ModelVersion, ModelVersion], ledger_engine: Engine
) -> None:
    if forced:
        allocation.stop(world.services(STARTED), world.model_id, ADA, "again")
        labels = [pair[1].version]
        allocation.start(world.services(STARTED), world.model_id, labels, ADMIN, "bold", force=True)
    second = world.register(40)
    world.of_recipe([second], AWAITING)
    with ledger_engine.begin() as connection:
        change = text("UPDATE model_versions SET status = 'shadow' WHERE model_id = :m AND version = :v")
        connection.execute(change, {"m": world.model_id, "v": second.version})
    world.decide(41, promotion="off")
    assert world.status(pair[1]) is ModelStatus.RETIRED
    end = update(world, 42).run.end
    assert end is (None if forced else AllocationEnd.RETIRED)


def test_a_version_registered_after_the_end_of_a_place_takes_over_no_arm(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    world.decide(40)
    clm = world.services(41)
    clm.promotions.retire(world.model_id, pair[1].version, ADA, "no", clm.clock())
    world.decide(42)
    later = world.register(43)
    world.of_recipe([later], AWAITING)
    world.decide(44)
    assert update(world, 45).run.end is AllocationEnd.RETIRED


def test_a_halted_model_is_flat_at_once_and_its_allocation_ends(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    clm = world.services(30)
    clm.promotions.halt(world.model_id, ADA, "exchange down", clm.clock())
    assert (in_force(world).state, in_force(world).weights) == (AllocationState.HALTED, (0.0, 0.0))
    step = update(world, 31)
    assert step.run.end is AllocationEnd.HALTED
    assert step.run.end_reason == "ada halted the model: exchange down"


def test_an_allocation_does_not_survive_a_halt_that_was_taken_back_before_the_pass(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    clm = world.services(30)
    clm.promotions.halt(world.model_id, ADA, "exchange down", clm.clock())
    world.promote(pair[1], 30.1)
    later = world.services(30.2)
    later.promotions.rollback(world.model_id, ADA, "back", later.clock(), to=pair[0].version)
    assert (in_force(world).state, in_force(world).weights) == (AllocationState.PRODUCTION, (1.0,))
    assert update(world, 31).run.end is AllocationEnd.HALTED


def test_a_shadow_pass_moves_the_allocation(world: World, pair: tuple[ModelVersion, ModelVersion]) -> None:
    report = shadow_decisions.run(world.services(STARTED + 1), world.model_id)
    [step] = report.allocations
    assert [arm.version for arm in step.arms] == [version.version for version in pair]
    assert step.sentence in report.summary_lines()


def test_a_start_refuses_what_may_not_share_the_capital(
    world: World,
    pair: tuple[ModelVersion, ModelVersion],
    make_version: MakeVersion,
    other_model: str,
    ledger_engine: Engine,
) -> None:
    clm = world.services(STARTED)
    retired = world.register(11)
    shadow = world.register(12)
    clm.promotions.retire(world.model_id, retired.version, ADA, "no", clm.clock())
    elsewhere = make_version(other_model, now=world.when(13))

    def start(*labels: str, actor: Actor = ADA, force: bool = False, model_id: str = world.model_id) -> None:
        allocation.start(clm, model_id, labels, actor, "why", force=force)

    with pytest.raises(ConflictError, match="has a running allocation"):
        start(shadow.version)
    allocation.stop(clm, world.model_id, ADA, "done")
    with pytest.raises(NotFound, match="No allocation"):
        allocation.stop(clm, world.model_id, ADA, "again")
    with pytest.raises(NotAllowed, match="viewer"):
        start(pair[1].version, actor=VIEWER)
    with pytest.raises(AllocationRefused, match="in production and an arm already"):
        start(pair[0].version)
    with pytest.raises(AllocationRefused, match="is retired"):
        start(retired.version)
    with pytest.raises(AllocationRefused, match="each once"):
        start(pair[1].version, pair[1].version)
    with pytest.raises(NotFound, match=elsewhere.version):
        start(elsewhere.version)
    with pytest.raises(NotFound, match="no production version"):
        start(elsewhere.version, model_id=other_model)
    with ledger_engine.begin() as connection:
        change = text("UPDATE model_versions SET status = 'shadow' WHERE model_id = :m AND version = :v")
        connection.execute(change, {"m": world.model_id, "v": shadow.version})
    with pytest.raises(AllocationRefused, match="has not passed the gate"):
        start(shadow.version)
    with pytest.raises(NotAllowed, match="only an admin"):
        start(shadow.version, force=True)
    start(shadow.version, actor=ADMIN, force=True)
    allocation.stop(clm, world.model_id, ADA, "done")
    many = [world.register(14 + day / 10).version for day in range(7)]
    with pytest.raises(AllocationRefused, match="take fewer candidates"):
        start(*many)


@pytest.fixture
def other_model(world: World) -> str:
    return world.model_id.replace("_1d", "_4h")


def test_reports_of_traded_bars_are_compared_with_the_weights(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    run = in_force(world).run
    assert run is not None
    bars = [world.when(day) for day in range(STARTED, 100)]
    # seven of ten, as asked for; the bars drawn depend on the ids of the run, and differ once in a thousand
    arms = {bar: run.arms[number % 10 >= 7] for number, bar in enumerate(bars)}
    clm = world.services(101)
    assert allocation.report_served(clm, world.model_id, arms, ADA) == 80
    assert allocation.report_served(clm, world.model_id, arms, ADA) == 0
    split = update(world, 101).split
    assert split is not None
    assert sum(split.counts) == 80
    assert not split.differs
    other = pair[1].version if arms[bars[0]] == pair[0].version else pair[0].version
    with pytest.raises(AlreadyExists, match="a report is never changed"):
        allocation.report_served(clm, world.model_id, {bars[0]: other}, ADA)
    with pytest.raises(AllocationRefused, match="is no arm"):
        allocation.report_served(clm, world.model_id, {bars[0]: "v20200101_000000"}, ADA)
    with pytest.raises(AllocationRefused, match="has not closed"):
        allocation.report_served(clm, world.model_id, {world.when(101): pair[0].version}, ADA)


def test_a_split_that_differs_is_alerted_until_the_allocation_ends(
    world: World, pair: tuple[ModelVersion, ModelVersion]
) -> None:
    bars = {world.when(day): pair[0].version for day in range(STARTED, 100)}
    allocation.report_served(world.services(101), world.model_id, bars, ADA)
    split = update(world, 101).split
    assert split is not None
    assert split.differs
    assert world.model_id in differing(world)
    world.promote(pair[1], 102)
    update(world, 102.1)
    assert world.model_id not in differing(world)


def differing(world: World) -> list[str]:
    return [alert.subject for alert in world.services(0).alerts.lasting(AlertKind.SPLIT_DIFFERS)]
