"""Killed at any point, or racing another process: one version serves, and the ledger knows which."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest

from clm_core.domain.actors import Actor, Role
from clm_core.domain.promotions import Promotion, PromotionKind, PromotionState
from clm_core.domain.versions import ModelVersion
from clm_core.faults import Fault
from clm_core.services import Services

pytestmark = pytest.mark.xdist_group("servers")

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.OPERATOR)
REPETITIONS = int(os.environ.get("CHAOS_REPETITIONS", "2"))
PAIRS = 10 * REPETITIONS
BEFORE_THE_ALIAS = {Fault.AFTER_INTENT}
OF_A_PROMOTION = [fault for fault in Fault if fault not in {Fault.AFTER_DRIFT, Fault.AFTER_RESTORE}]

MakeVersion = Callable[..., ModelVersion]
Check = Callable[[str], None]
Perform = Callable[..., int]

PRELOADED = [
    "clm_core.ledger.migrations",
    "clm_core.services",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "sqlalchemy.dialects.postgresql.psycopg",
]
ONCE = """
from clm_core.services import open_services
with open_services(settings) as services:
    getattr(services.promotions, deed)(**how)
"""
MANY_TIMES = """
from clm_core.domain.errors import ConflictError
from clm_core.services import open_services
with open_services(settings) as services:
    pipe.send("ready")
    while order := pipe.recv():
        start.wait()
        try:
            done = services.promotions.rollback(**order)
            pipe.send((done.from_version, done.to_version))
        except ConflictError:
            pipe.send("conflict")
"""


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that need not import everything anew: they fork from one that has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture(scope="module")
def perform(services: Services, processes: ForkServerContext) -> Perform:
    """Does something in another process, with a fault armed; answers with how that process ended."""

    def run(fault: Fault | None, deed: str, **how: Any) -> int:
        settings = services.settings.model_copy(update={"fault": fault})
        process = processes.Process(
            target=exec, args=(ONCE, {"settings": settings, "deed": deed, "how": how})
        )
        process.start()
        process.join(60)
        assert process.exitcode is not None
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def served(services: Services, make_version: MakeVersion) -> list[ModelVersion]:
    """Three versions of one model that all have served; the last one does."""
    versions = [make_version("lightgbm_crashusd_1h") for _ in range(3)]
    for version in versions:
        services.promotions.promote(version.model_id, version.version, ADA, "", NOW)
    return versions


def order(model_id: str, **how: Any) -> dict[str, Any]:
    return {"model_id": model_id, "actor": ADA, "reason": "crash", "now": NOW} | how


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("fault", OF_A_PROMOTION, ids=str)
def test_a_promotion_killed_at_any_point_is_finished_or_never_was(
    fault: Fault,
    repetition: int,
    services: Services,
    served: Sequence[ModelVersion],
    perform: Perform,
    check: Check,
) -> None:
    model_id, book = served[0].model_id, services.ledger.promotions
    before = book.champion(model_id)
    to = next(version.version for version in served if version.version != before)
    assert perform(fault, "rollback", **order(model_id, to=to)) == -signal.SIGKILL
    ended = services.promotions.reconcile(model_id, ADA, NOW)
    check(model_id)
    undone = fault in BEFORE_THE_ALIAS
    assert book.champion(model_id) == (before if undone else to)
    expected = PromotionState.ABORTED if undone else PromotionState.COMMITTED
    assert [change.state for change in ended] == ([] if fault is Fault.AFTER_COMMIT else [expected])
    assert services.promotions.reconcile(model_id, ADA, NOW) == []


@pytest.mark.parametrize("fault", [Fault.AFTER_INTENT, Fault.AFTER_ALIAS], ids=str)
def test_the_very_first_promotion_killed_leaves_one_or_none(
    fault: Fault,
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    perform: Perform,
    check: Check,
) -> None:
    version = make_version(model_id)
    assert perform(fault, "promote", **order(model_id, label=version.version)) == -signal.SIGKILL
    services.promotions.reconcile(model_id, ADA, NOW)
    check(model_id)
    finished = fault is Fault.AFTER_ALIAS
    assert services.ledger.promotions.champion(model_id) == (version.version if finished else None)


def test_the_next_promotion_ends_what_a_crash_left_before_it_compares(
    services: Services, served: Sequence[ModelVersion], perform: Perform, check: Check
) -> None:
    model_id = served[0].model_id
    champion = services.ledger.promotions.champion(model_id)
    first, second = (version.version for version in served if version.version != champion)
    assert perform(Fault.AFTER_ALIAS, "rollback", **order(model_id, to=first)) == -signal.SIGKILL
    done = services.promotions.rollback(model_id, ADA, "", NOW, to=second, expected_champion=first)
    assert (done.from_version, done.to_version) == (first, second)
    check(model_id)


@pytest.mark.parametrize("again", [Fault.AFTER_PREVIOUS, Fault.IN_COMMIT], ids=str)
def test_a_reconciliation_killed_as_well_is_reconciled(
    again: Fault, services: Services, served: Sequence[ModelVersion], perform: Perform, check: Check
) -> None:
    model_id = served[0].model_id
    champion = services.ledger.promotions.champion(model_id)
    to = next(version.version for version in served if version.version != champion)
    how = {"model_id": model_id, "actor": ADA, "now": NOW}
    assert perform(Fault.AFTER_ALIAS, "rollback", **order(model_id, to=to)) == -signal.SIGKILL
    assert perform(again, "reconcile", **how) == -signal.SIGKILL
    assert perform(None, "reconcile", **how) == 0
    assert services.ledger.promotions.champion(model_id) == to
    check(model_id)


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("fault", [Fault.AFTER_DRIFT, Fault.AFTER_RESTORE], ids=str)
def test_putting_an_alias_back_survives_a_kill_and_is_recorded_once(
    fault: Fault,
    repetition: int,
    services: Services,
    served: Sequence[ModelVersion],
    perform: Perform,
    check: Check,
) -> None:
    model_id, book = served[0].model_id, services.ledger.promotions
    champion, recorded = book.champion(model_id), len(book.history(model_id))
    other = next(version for version in served if version.version != champion)
    services.registry.point(model_id, "production", other.mlflow_version)
    how = {"model_id": model_id, "actor": ADA, "now": NOW}
    assert perform(fault, "reconcile", **how) == -signal.SIGKILL
    services.promotions.reconcile(model_id, ADA, NOW)
    check(model_id)
    assert book.champion(model_id) == champion
    assert [change.kind for change in book.history(model_id)[recorded:]] == [PromotionKind.DRIFT]


@pytest.fixture
def rivals(services: Services, processes: ForkServerContext) -> Iterator[list[Connection]]:
    """Two processes that carry out what they are sent, both at the same moment."""
    start, pipes, started = processes.Barrier(2), [], []
    for _ in range(2):
        mine, theirs = processes.Pipe()
        names = {"settings": services.settings, "pipe": theirs, "start": start}
        process = processes.Process(target=exec, args=(MANY_TIMES, names), daemon=True)
        process.start()
        pipes.append(mine)
        started.append(process)
    assert [answer(pipe) for pipe in pipes] == ["ready", "ready"]
    yield pipes
    for pipe, process in zip(pipes, started, strict=True):
        pipe.send(None)
        process.join(60)
        assert process.exitcode == 0


def answer(pipe: Connection) -> Any:
    assert pipe.poll(60), "the other process has not answered"
    return pipe.recv()


def test_of_two_processes_that_saw_the_same_champion_one_wins_and_one_is_told(
    services: Services, served: Sequence[ModelVersion], rivals: Sequence[Connection], check: Check
) -> None:
    model_id, book = served[0].model_id, services.ledger.promotions
    labels = [version.version for version in served]
    for _ in range(PAIRS):
        champion = book.champion(model_id)
        wanted = [label for label in labels if label != champion]
        for pipe, label in zip(rivals, wanted, strict=True):
            pipe.send(order(model_id, to=label, expected_champion=champion))
        answers = [answer(pipe) for pipe in rivals]
        assert sorted(map(str, answers), key=len)[0] == "conflict"
        assert [done for done in answers if done != "conflict"] == [(champion, book.champion(model_id))]
    check(model_id)


def test_processes_that_do_not_look_still_make_one_unbroken_line(
    services: Services, served: Sequence[ModelVersion], rivals: Sequence[Connection], check: Check
) -> None:
    model_id, book = served[0].model_id, services.ledger.promotions
    done: list[Promotion] = book.committed(model_id)
    for _ in range(5):
        champion = book.champion(model_id)
        for pipe, label in zip(rivals, [v.version for v in served if v.version != champion], strict=True):
            pipe.send(order(model_id, to=label))
        assert "conflict" not in [answer(pipe) for pipe in rivals]
    assert len(book.committed(model_id)) == len(done) + 10
    check(model_id)
