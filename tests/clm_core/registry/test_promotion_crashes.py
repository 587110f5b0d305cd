"""Promotions by killed and by racing processes: ledger and alias name the same production version."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection, Listener
from typing import Any

import promoting
import pytest
from patience import PATIENT_SECONDS
from processes import PROMOTION_FAULTS

from clm_core.domain.actors import Actor
from clm_core.domain.faults import Fault
from clm_core.domain.promotions import PromotionKind, PromotionState
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.OPERATOR)
REPETITIONS = int(os.environ.get("CHAOS_REPETITIONS", "2"))
PAIRS = 10 * REPETITIONS

MakeVersion = Callable[..., ModelVersion]
Check = Callable[[str], None]

RUN_ONCE = """
from clm_core.services import open_services
with open_services(settings) as services:
    getattr(services.promotions, method)(**arguments)
"""
RUN_ROLLBACKS = """
from multiprocessing.connection import Client
from clm_core.services import open_services
with open_services(settings) as services, Client(address) as pipe:
    while request := pipe.recv():
        try:
            done = services.promotions.rollback(**request)
            pipe.send((done.from_version, done.to_version))
        except Exception as error:
            pipe.send(type(error).__name__)
"""
PROMOTE_ONCE = """
import promoting
from clm_core.services import open_services
with open_services(settings) as services:
    promoting.promote(services, **arguments)
"""
BROKEN_BUILDS = {
    "the lock": """
from contextlib import nullcontext
from clm_core.ledger.promotions import PromotionStore
PromotionStore.lock = lambda self, model_id: nullcontext(lambda: None)
""",
    "a comparison with the expected champion": """
from clm_core.registry.promotion import Promotions
Promotions._champion = lambda self, model_id, expected: self.ledger.promotions.champion(model_id)
""",
}


@pytest.fixture(scope="module")
def served(services: Services, make_version: MakeVersion) -> list[ModelVersion]:
    return three_served(services, make_version, "lightgbm_crashusd_1h")


def three_served(services: Services, make_version: MakeVersion, model_id: str) -> list[ModelVersion]:
    """Versions of a model that were promoted in turn; the last is in production."""
    versions = [make_version(model_id) for _ in range(3)]
    for version in versions:
        promoting.promote(services, version.model_id, version.version, ADA, "", NOW)
    return versions


def killed(parent: Any, fault: Fault, method: str, **arguments: Any) -> bool:
    status = parent.run(RUN_ONCE, fault, method=method, arguments=arguments)
    return bool(status == -signal.SIGKILL)


def request(model_id: str, **options: Any) -> dict[str, Any]:
    return {"model_id": model_id, "actor": ADA, "reason": "crash", "now": NOW} | options


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("fault", PROMOTION_FAULTS, ids=str)
def test_a_promotion_killed_at_any_point_is_finished_or_aborted(
    fault: Fault,
    repetition: int,
    services: Services,
    served: Sequence[ModelVersion],
    parent: Any,
    check: Check,
) -> None:
    model_id = served[0].model_id
    store = services.ledger.promotions
    before = store.champion(model_id)
    to = next(version.version for version in served if version.version != before)
    assert killed(parent, fault, "rollback", **request(model_id, to=to))
    ended = services.promotions.reconcile(model_id, ADA, NOW)
    check(model_id)
    undone = fault is Fault.AFTER_INTENT
    assert store.champion(model_id) == (before if undone else to)
    expected = PromotionState.ABORTED if undone else PromotionState.COMMITTED
    assert [change.state for change in ended] == ([] if fault is Fault.AFTER_COMMIT else [expected])
    assert services.promotions.reconcile(model_id, ADA, NOW) == []


@pytest.mark.parametrize("fault", [Fault.AFTER_INTENT, Fault.AFTER_ALIAS], ids=str)
def test_a_first_promotion_killed_midway_is_finished_or_aborted(
    fault: Fault,
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    parent: Any,
    check: Check,
) -> None:
    version = make_version(model_id)
    arguments = request(model_id, label=version.version)
    assert parent.run(PROMOTE_ONCE, fault, arguments=arguments) == -signal.SIGKILL
    services.promotions.reconcile(model_id, ADA, NOW)
    check(model_id)
    finished = fault is Fault.AFTER_ALIAS
    assert services.ledger.promotions.champion(model_id) == (version.version if finished else None)


def test_the_next_promotion_ends_an_interrupted_one_before_it_compares(
    services: Services, served: Sequence[ModelVersion], parent: Any, check: Check
) -> None:
    model_id = served[0].model_id
    champion = services.ledger.promotions.champion(model_id)
    first, second = (version.version for version in served if version.version != champion)
    assert killed(parent, Fault.AFTER_ALIAS, "rollback", **request(model_id, to=first))
    done = services.promotions.rollback(model_id, ADA, "", NOW, to=second, expected_champion=first)
    assert (done.from_version, done.to_version) == (first, second)
    check(model_id)


@pytest.mark.parametrize("again", [Fault.AFTER_PREVIOUS, Fault.IN_COMMIT], ids=str)
def test_a_reconciliation_killed_in_turn_is_reconciled(
    again: Fault, services: Services, served: Sequence[ModelVersion], parent: Any, check: Check
) -> None:
    model_id = served[0].model_id
    champion = services.ledger.promotions.champion(model_id)
    to = next(version.version for version in served if version.version != champion)
    arguments = {"model_id": model_id, "actor": ADA, "now": NOW}
    assert killed(parent, Fault.AFTER_ALIAS, "rollback", **request(model_id, to=to))
    assert killed(parent, again, "reconcile", **arguments)
    assert parent.run(RUN_ONCE, None, method="reconcile", arguments=arguments) == 0
    assert services.ledger.promotions.champion(model_id) == to
    check(model_id)


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("fault", [Fault.AFTER_ALIAS_MOVED, Fault.AFTER_RESTORE], ids=str)
def test_putting_an_alias_back_survives_a_kill_and_is_recorded_once(
    fault: Fault,
    repetition: int,
    services: Services,
    served: Sequence[ModelVersion],
    parent: Any,
    check: Check,
) -> None:
    model_id = served[0].model_id
    store = services.ledger.promotions
    champion = store.champion(model_id)
    recorded = len(store.history(model_id))
    other = next(version for version in served if version.version != champion)
    services.registry.point(model_id, "production", other.mlflow_version)
    arguments = {"model_id": model_id, "actor": ADA, "now": NOW}
    assert killed(parent, fault, "reconcile", **arguments)
    services.promotions.reconcile(model_id, ADA, NOW)
    check(model_id)
    assert store.champion(model_id) == champion
    assert [change.kind for change in store.history(model_id)[recorded:]] == [PromotionKind.ALIAS_MOVED]


Rivals = Callable[..., list[Connection]]


@pytest.fixture
def rivals(parent: Any) -> Iterator[Rivals]:
    """Processes that carry out the rollbacks sent to them."""
    pipes = list[Connection]()
    started = list[int]()

    def start(count: int, broken: str = "") -> list[Connection]:
        with Listener() as listener:
            for _ in range(count):
                started.append(parent.start(broken + RUN_ROLLBACKS, address=listener.address))
                pipes.append(listener.accept())
        return pipes

    yield start
    for pipe, process in zip(pipes, started, strict=True):
        pipe.send(None)
        assert parent.wait(process) == 0


def answer(pipe: Connection) -> Any:
    assert pipe.poll(PATIENT_SECONDS), "the other process has not answered"
    return pipe.recv()


def test_two_processes_that_expect_the_same_champion_end_with_one_conflict(
    services: Services, served: Sequence[ModelVersion], rivals: Rivals, check: Check
) -> None:
    model_id = served[0].model_id
    store = services.ledger.promotions
    labels = [version.version for version in served]
    pipes = rivals(2)
    for _ in range(PAIRS):
        champion = store.champion(model_id)
        targets = [label for label in labels if label != champion]
        for pipe, label in zip(pipes, targets, strict=True):
            pipe.send(request(model_id, to=label, expected_champion=champion))
        answers = [answer(pipe) for pipe in pipes]
        assert Counter(answers) == {"ConflictError": 1, (champion, store.champion(model_id)): 1}
    check(model_id)


def test_processes_without_an_expected_champion_make_one_unbroken_line(
    services: Services, served: Sequence[ModelVersion], rivals: Rivals, check: Check
) -> None:
    """Four processes with 15 rollbacks each, to the previous or to any earlier production version."""
    model_id = served[0].model_id
    store = services.ledger.promotions
    pipes = rivals(4)
    recorded = len(store.committed(model_id))
    generator = random.Random(1)
    for _ in range(15):
        for pipe in pipes:
            to = generator.choice([None, *(version.version for version in served)])
            pipe.send(request(model_id, to=to))
        moves = [move for move in map(answer, pipes) if move not in {"NotFound", "PromotionRefused"}]
        committed = [(change.from_version, change.to_version) for change in store.committed(model_id)]
        assert Counter(committed[recorded:]) == Counter(moves)
        recorded = len(committed)
    check(model_id)


@pytest.mark.parametrize("broken", BROKEN_BUILDS.values(), ids=BROKEN_BUILDS)
def test_the_race_fails_in_a_build_without(
    broken: str,
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    rivals: Rivals,
    check: Check,
) -> None:
    race = test_two_processes_that_expect_the_same_champion_end_with_one_conflict
    # a separate model, since nothing repairs the damage of such a build
    served = three_served(services, make_version, model_id)
    with pytest.raises(AssertionError):
        race(services, served, partial(rivals, broken=broken), check)
