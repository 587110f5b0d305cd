"""State machine of promotions, manual changes and crashes, compared with a model of one page."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import hypothesis
import hypothesis.strategies as st
import promoting
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from clm_core.domain.actors import AUTOMATIC, PROTECTION, Actor
from clm_core.domain.errors import CLMError
from clm_core.domain.faults import Fault
from clm_core.domain.promotions import UNSET, rollback_target
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.ledger.tables import Base, EvaluationRow
from clm_core.registry.promotion import Promotions
from clm_core.services import Services

STEPS = 50
START = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADMIN = Actor(name="ada", role=Role.ADMIN)
BY_SYSTEM = {each.name for each in AUTOMATIC}
PROMOTABLE = {"candidate"}
SERVED = {"retired"}
FAULTS = list(Fault)[: list(Fault).index(Fault.BEFORE_REPLY)]
EVALUATIONS = Base.metadata.tables[EvaluationRow.__tablename__]
NUMBERS = itertools.count()
"""Numbers of the models of all machines in a process."""

crashes = st.none() | st.none() | st.sampled_from(FAULTS)
numbers = st.integers(0, 4)
"""Numbers of versions, of which 4 failed its gate."""
forces = st.sampled_from([True, True, False])
expectations = st.sampled_from(["unset", "unset", "the champion", "another"])


class Crash(BaseException):
    """Stands for SIGKILL: no code handles the exception."""


class Refusal(Exception):
    """Refusal by the model; the message is the name of the error that the real promotion raises."""


@dataclass
class Expected:
    """Expected state of one trading model; versions are numbers."""

    status: list[str]
    alias: int | None = None
    committed: list[tuple[str, int | None, str]] = field(default_factory=list)
    """Kind of each change, the production version since, and the name of the actor."""
    line: list[int] = field(default_factory=list)
    """Versions that rollbacks go back through, the champion last unless the champion was lost."""
    audited: list[str] = field(default_factory=list)
    intent: tuple[str, int | None, datetime | None, str] | None = None
    """Kind, version, expiry if forced and actor, as of the request, not of the reconciliation."""
    alias_moved: bool = False
    expires: datetime | None = None
    gone: set[int] = field(default_factory=set)
    now: datetime = START
    armed: Fault | None = None
    actor: str = ADMIN.name
    """Actor of the present step."""
    decided: datetime | None = None
    """Time of a person's last change of production, or confirmation."""
    rollbacks: int = 0
    """Newest changes that are rollbacks by the protection."""

    @property
    def champion(self) -> int | None:
        return self.committed[-1][1] if self.committed else None

    @property
    def target(self) -> int | None:
        before = self.line[:-1] if self.champion is not None else self.line
        return before[-1] if before else None

    def promote(self, version: int, expected: str, force: bool) -> None:
        self.settle()
        self.compare(expected)
        self.carry_out("promotion", version, self.overruled(version, PROMOTABLE, force))

    def rollback(self, version: int | None, expected: str, force: bool) -> None:
        self.settle()
        self.compare(expected)
        to = self.target if version is None else version
        if to is None or to not in [served for _, served, _ in self.committed]:
            raise Refusal("NotFound")
        self.carry_out("rollback", to, self.overruled(to, SERVED, force))

    def halt(self, expected: str) -> None:
        self.settle()
        self.compare(expected)
        if self.champion is None:
            raise Refusal("NotFound")
        self.carry_out("halt", None, None)

    @property
    def overdue(self) -> bool:
        return self.expires is not None and self.expires <= self.now

    def end_expired(self) -> None:
        self.settle()
        if self.overdue:
            self.rollback(None, "unset", False)

    def confirm(self, days: int) -> None:
        self.settle()
        if self.expires is None:
            raise Refusal("NotFound")
        self.expires = self.now + timedelta(days=days)
        self.decided = self.now
        self.audited.append("forced_confirmed")

    def retire(self, version: int) -> None:
        self.settle()
        if self.status[version] in {"production", "failed"}:
            raise Refusal("IllegalTransition")
        if self.status[version] == "candidate":
            self.status[version] = "retired"
            self.audited.append("version_retired")

    def settle(self, adopt: bool = False) -> None:
        if self.intent is not None and self.alias == self.intent[1]:
            self.finish(*self.intent)
        elif self.intent is not None:
            self.intent = None
            self.audited.append("promotion_aborted")
        if self.alias == self.champion:
            self.restored()
            return
        if not self.alias_moved:
            self.alias_moved = True
            self.audited.append("alias_moved")
            self.crash_at(Fault.AFTER_ALIAS_MOVED)
        if adopt:
            self.adopt()
        elif self.champion in self.gone:
            self.alias = None
            self.commit("loss", None, None, self.actor)
        else:
            self.alias = self.champion
            self.crash_at(Fault.AFTER_RESTORE)
            self.restored()

    def adopt(self) -> None:
        if self.alias is None:
            raise Refusal("PromotionRefused")
        until = self.overruled(self.alias, PROMOTABLE | SERVED, force=True)
        self.crash_at(Fault.AFTER_PREVIOUS)
        self.crash_at(Fault.AFTER_TAGS)
        self.commit("adoption", self.alias, until, self.actor)

    def restored(self) -> None:
        if self.alias_moved:
            self.alias_moved = False
            self.audited.append("alias_move_restored")

    def compare(self, expected: str) -> None:
        if expected == "another":
            raise Refusal("ConflictError")

    def overruled(self, version: int, allowed: set[str], force: bool) -> datetime | None:
        """Expiry of the forced promotion if a rule is overruled."""
        if version == self.champion:
            raise Refusal("PromotionRefused")
        refused = self.status[version] not in allowed or version == 4
        if refused and not force:
            raise Refusal("PromotionRefused")
        if version in self.gone:
            raise Refusal("RegistryUnavailable")
        return self.now + timedelta(days=7) if refused else None

    def carry_out(self, kind: str, to: int | None, until: datetime | None) -> None:
        self.intent = (kind, to, until, self.actor)
        self.crash_at(Fault.AFTER_INTENT)
        self.alias = to
        self.crash_at(Fault.AFTER_ALIAS)
        self.finish(*self.intent)

    def finish(self, kind: str, to: int | None, until: datetime | None, actor: str) -> None:
        for point in (Fault.AFTER_PREVIOUS, Fault.AFTER_TAGS, Fault.IN_COMMIT):
            self.crash_at(point)
        self.commit(kind, to, until, actor)
        self.crash_at(Fault.AFTER_COMMIT)

    def commit(self, kind: str, to: int | None, until: datetime | None, actor: str) -> None:
        self.intent = None
        self.alias_moved = False
        self.status = ["retired" if status == "production" else status for status in self.status]
        self.committed.append((kind, to, actor))
        self.rollbacks = self.rollbacks + 1 if (kind, actor) == ("rollback", PROTECTION.name) else 0
        if kind != "loss" and actor not in BY_SYSTEM:
            self.decided = self.now
        words = {
            "loss": "production_lost",
            "halt": "production_halted",
            "adoption": "alias_move_adopted",
            "rollback": "rollback_committed",
        }
        promoted = "forced_promotion" if until else "promotion_committed"
        self.audited.append(words.get(kind, promoted))
        self.expires = until
        if to is None:
            self.line.pop()
            return
        self.status[to] = "production"
        if kind == "rollback" and to in self.line:
            del self.line[len(self.line) - self.line[::-1].index(to) :]
        else:
            self.line.append(to)

    def crash_at(self, point: Fault) -> None:
        if point is self.armed:
            raise Crash


@dataclass(frozen=True)
class CopiedModels:
    """Source of models: copies of a model with versions that were never in production."""

    services: Services
    ledger: Engine
    mlflow: Engine
    versions: tuple[ModelVersion, ...]
    audited: Callable[[str], list[str]]

    def aliased(self, model_id: str) -> int | None:
        """Read from the database, since MLflow's client takes longer than all other steps together."""
        query = "SELECT version FROM registered_model_aliases WHERE name = :id AND alias = 'production'"
        with self.mlflow.begin() as connection:
            return connection.scalar(text(query), {"id": model_id})

    def copy(self, model_id: str) -> list[ModelVersion]:
        original = self.versions[0].model_id
        for engine, table, column in (
            (self.ledger, "model_versions", "model_id"),
            (self.mlflow, "registered_models", "name"),
            (self.mlflow, "model_versions", "name"),
            (self.mlflow, "model_version_tags", "name"),
        ):
            row = f"jsonb_populate_record(t, jsonb_build_object('{column}', cast(:copy AS text)))"
            rows = f"INSERT INTO {table} SELECT ({row}).* FROM {table} AS t WHERE {column} = :original"
            with engine.begin() as connection:
                connection.execute(text(rows), {"copy": model_id, "original": original})
        changed = "jsonb_build_object('model_id', cast(:copy AS text), 'id', gen_random_uuid())"
        columns = [each.name for each in EVALUATIONS.columns if each.computed is None]
        rows = (
            f"INSERT INTO evaluations ({', '.join(columns)}) "
            f"SELECT {', '.join(f'copied.{name}' for name in columns)} FROM evaluations AS t, "
            f"LATERAL jsonb_populate_record(t, {changed}) AS copied WHERE t.model_id = :original"
        )
        with self.ledger.begin() as connection:
            connection.execute(text(rows), {"copy": model_id, "original": original})
        return [version.model_copy(update={"model_id": model_id}) for version in self.versions]


@contextlib.contextmanager
def without_waits_for_the_disk(ledger: Engine) -> Iterator[None]:
    """No server dies in these tests, and waiting for the disk would take most of the time."""
    tune(ledger, "SET synchronous_commit = off")
    yield
    tune(ledger, "RESET synchronous_commit")


def made_models(
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    ledger: Engine,
    mlflow: Engine,
    audited: Callable[[str], list[str]],
    others: int = 0,
) -> CopiedModels:
    """The versions of the rules, of which the last failed its gate, and others that passed."""
    sharpes = (2.0, 2.0, 2.0, 2.0, 0.2, *[2.0] * others)
    versions = [
        make_version(model_id, sharpe=sharpe, now=START + timedelta(seconds=number))
        for number, sharpe in enumerate(sharpes)
    ]
    return CopiedModels(services, ledger, mlflow, tuple(versions), audited)


def tune(engine: Engine, change: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER SYSTEM {change}"))
        connection.execute(text("SELECT pg_reload_conf()"))


class PromotionMachine(RuleBasedStateMachine):
    """Applies every change twice: to the real model and to the expected state."""

    def __init__(self, world: CopiedModels, model_id: str) -> None:
        super().__init__()
        self.world = world
        self.model_id = model_id
        self.versions = world.copy(model_id)
        self.labels = [version.version for version in self.versions]
        self.expected = Expected([str(version.status) for version in self.versions])

    @rule(version=numbers, expected=expectations, force=forces, crash=crashes)
    def promote(self, version: int, expected: str, force: bool, crash: Fault | None) -> None:
        self.both(
            crash,
            lambda real: real.promote(
                self.model_id,
                self.labels[version],
                ADMIN,
                "tested",
                self.expected.now,
                promoting.judge(self.world.services, self.expected.now),
                self.expected_champion(expected),
                force,
            ),
            lambda state: state.promote(version, expected, force),
        )

    @rule(version=st.none() | numbers, expected=expectations, force=forces, crash=crashes)
    def rollback(self, version: int | None, expected: str, force: bool, crash: Fault | None) -> None:
        to = None if version is None else self.labels[version]
        now = self.expected.now
        self.both(
            crash,
            lambda real: real.rollback(
                self.model_id,
                ADMIN,
                "tested",
                now,
                to,
                expected_champion=self.expected_champion(expected),
                force=force,
            ),
            lambda state: state.rollback(version, expected, force),
        )

    @rule(expected=expectations, crash=crashes)
    def halt(self, expected: str, crash: Fault | None) -> None:
        self.both(
            crash,
            lambda real: real.halt(
                self.model_id, ADMIN, "tested", self.expected.now, self.expected_champion(expected)
            ),
            lambda state: state.halt(expected),
        )

    @rule(version=numbers)
    def retire(self, version: int) -> None:
        self.both(
            None,
            lambda real: real.retire(self.model_id, self.labels[version], ADMIN, "tested", self.expected.now),
            lambda state: state.retire(version),
        )

    @rule(adopt=st.booleans(), crash=crashes)
    def reconcile(self, adopt: bool, crash: Fault | None) -> None:
        self.both(
            crash,
            lambda real: real.reconcile(self.model_id, ADMIN, self.expected.now, adopt, "tested"),
            lambda state: state.settle(adopt),
        )

    @rule(crash=crashes)
    def end_expired(self, crash: Fault | None) -> None:
        self.both(
            crash,
            lambda real: real.end_expired(self.model_id, ADMIN, self.expected.now),
            lambda state: state.end_expired(),
        )

    @precondition(lambda self: self.expected.expires is not None)
    @rule(days=st.integers(1, 10))
    def confirm(self, days: int) -> None:
        self.both(
            None,
            lambda real: real.confirm(self.model_id, days, ADMIN, "tested", self.expected.now),
            lambda state: state.confirm(days),
        )

    @rule(version=st.none() | numbers)
    def move_the_alias_by_hand(self, version: int | None) -> None:
        if version in self.expected.gone or version == self.expected.alias:
            return
        number = None if version is None else self.versions[version].mlflow_version
        self.world.services.registry.point(self.model_id, "production", number)
        self.expected.alias = version

    # later steps need versions that are left
    @precondition(lambda self: len(self.expected.gone) < 2)
    @rule(version=numbers)
    def delete_by_hand(self, version: int) -> None:
        if version in self.expected.gone:
            return
        number = str(self.versions[version].mlflow_version)
        self.world.services.registry._client.delete_model_version(self.model_id, number)
        self.expected.gone.add(version)
        if self.expected.alias == version:
            self.expected.alias = None

    @rule(days=st.integers(1, 5))
    def let_time_pass(self, days: int) -> None:
        self.expected.now += timedelta(days=days)

    @invariant()
    def agree(self) -> None:
        services = self.world.services
        expected = self.expected
        store = services.ledger.promotions
        aliased = None if expected.alias is None else self.versions[expected.alias].mlflow_version
        assert self.world.aliased(self.model_id) == aliased
        status = {version.version: version.status for version in services.ledger.versions(self.model_id)}
        assert [status[label] for label in self.labels] == expected.status
        committed = store.committed(self.model_id)
        assert [(change.kind, change.to_version, change.actor) for change in committed] == [
            (kind, self.label(to), actor) for kind, to, actor in expected.committed
        ]
        assert [change.from_version for change in committed] == [
            None,
            *(change.to_version for change in committed),
        ][:-1]
        assert rollback_target(committed) == self.label(expected.target)
        assert self.world.audited(self.model_id) == expected.audited
        overdue = [change.model_id for change in store.expired_forced(expected.now)]
        assert (self.model_id in overdue) == expected.overdue

    def both(
        self,
        crash: Fault | None,
        real: Callable[[Promotions], object],
        expected: Callable[[Expected], object],
    ) -> None:
        self.expected.armed = crash
        promotions = replace(self.world.services.promotions, fault=crash)
        assert outcome(lambda: real(promotions)) == outcome(lambda: expected(self.expected))

    def expected_champion(self, expected: str) -> Any:
        """Champion the caller expects; the comparison follows a reconciliation."""
        if expected == "unset":
            return UNSET
        settled = self.settled()
        champion = settled.champion
        return self.label(champion) if expected == "the champion" else "v19700101_000000"

    def settled(self) -> Expected:
        settled = copy.deepcopy(self.expected)
        settled.armed = None
        settled.settle()
        return settled

    def label(self, number: int | None) -> str | None:
        return None if number is None else self.labels[number]


def outcome(change: Callable[[], object]) -> str | None:
    try:
        change()
    except Crash:
        return "crash"
    except CLMError as error:
        return type(error).__name__
    except Refusal as refusal:
        return str(refusal)
    return None


Made = TypeVar("Made", bound=PromotionMachine)


def play(make: Callable[[str], Made], settings: hypothesis.settings, timeframe: str = "1h") -> list[Made]:
    """Play sequences of steps, each with a separate model, of which `make` gets the id; the machines."""
    played = list[Made]()

    def machine() -> Made:
        played.append(make(f"lightgbm_m{next(NUMBERS)}usd_{timeframe}"))
        return played[-1]

    run_state_machine_as_test(machine, settings=settings)
    return played


def crash_at(point: Fault, armed: Fault | None) -> None:
    """Crash without the end of the process."""
    if point is armed:
        raise Crash
