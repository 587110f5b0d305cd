"""Random sequences of shadow passes, protection, people and crashes, compared with a model of one page.

The rules of people, of time and of accidents are those of the promotion's machine. The measurements are given
(a shadow that earned its promotion, an alarm, a drawdown); the decision, the record and the change are real.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.stateful import initialize, invariant, precondition, rule
from promotion_machine import (
    ADMIN,
    NUMBERS,
    PROMOTABLE,
    SERVED,
    START,
    CopiedModels,
    Crash,
    Expected,
    PromotionMachine,
    Refusal,
    crash_at,
    made_models,
    numbers,
    outcome,
    play,
    without_waits_for_the_disk,
)
from shadow_worlds import policies
from sqlalchemy import Engine, create_engine, text

from clm_core.backtest.results import Backtest, Trades
from clm_core.decisions import protection as decisions
from clm_core.decisions.health import Alarm
from clm_core.decisions.protection import ProtectionDecision, ProtectionFacts
from clm_core.decisions.protection_rules import ProtectionRules
from clm_core.domain.actors import PROTECTION, SYSTEM
from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import CLMError, RegistryUnavailable
from clm_core.domain.faults import Fault
from clm_core.domain.promotions import UNSET, Promotion, PromotionKind
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.exemptions import ExemptionStore
from clm_core.ledger.shadows import ShadowStore
from clm_core.lifecycle import paper_record, protection, shadow, shadow_decisions
from clm_core.lifecycle.protection import ServingRecord, protect_version
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.registry.promotion import Promotions
from clm_core.retraining import promoting
from clm_core.retraining.shadow_tracks import RecipeTrack
from clm_core.services import Services

SEQUENCES = 300 if "CHAOS_REPETITIONS" in os.environ else 2
STEPS = 30 if "CHAOS_REPETITIONS" in os.environ else 20
SYMBOL = "LIVESUSD"
BAR = timedelta(hours=4)
BARS_FROM = START.replace(month=2, day=1, hour=0)
BARS = 3000
HOLD = timedelta(days=7)
"""`human_hold_days` of the shadows and `hold_days` of the protection, as shipped."""
OF_PROMOTIONS = [point for point in Fault if point.startswith(("after_", "in_")) and point != "after_reply"]
OF_SHADOWS = [Fault.SHADOW_DECIDED, Fault.SHADOW_PROMOTED, Fault.SHADOW_RETIRED]

crashes = st.none() | st.none() | st.sampled_from(OF_PROMOTIONS)
shadows = st.sampled_from([5, 6, 7, 5, 6, 0, 1, 2, 3, 4])
"""Numbers of versions; people rarely promote the last three."""
meanwhiles = st.none() | st.none() | numbers
"""Version that a person promotes between the measurement and the change by a pass."""
triggers = st.sampled_from(["mean", "mean", "hard stop", "nothing"])


@dataclass
class Life(Expected):
    """Expected state, with the shadow's and the protection's decisions and the paper record."""

    off: dict[int, datetime] = field(default_factory=dict)
    """End of the time without a hard stop, by version."""
    frozen: bool = False
    ending: dict[int, int | None] = field(default_factory=dict)
    """Champion at the newest decision about a version, if that was to retire it; a killed pass may have left
    the end undone."""
    requested_at: datetime = START
    """Time of the newest request that was begun."""
    recorded: dict[int, dict[datetime, datetime]] = field(default_factory=dict)
    """Time of the recording by open time of the bar, by version."""

    @property
    def held(self) -> bool:
        return self.decided is not None and self.now < self.decided + HOLD

    @property
    def closed(self) -> list[datetime]:
        """Open times of the bars closed since the registration."""
        bars = min(BARS, (self.now - BARS_FROM) // BAR)
        first = (START - BARS_FROM) // BAR
        return [BARS_FROM + number * BAR for number in range(first, bars)]

    @property
    def followed(self) -> list[int]:
        first = [to for _, to, _ in self.committed if to is not None][:1]
        waiting = {number for number, status in enumerate(self.status) if status in PROMOTABLE}
        serving = {number for number, status in enumerate(self.status) if status == "production"}
        return sorted({*first, *waiting, *serving})

    def evidence(self, version: int) -> int:
        """Bars earned on a position recorded before the close of the bar."""
        known = self.recorded.get(version, {})
        return sum(bar in known and known[bar] <= bar + 2 * BAR for bar in self.closed[:-1])

    def record(self, crash: tuple[int, bool] | None) -> None:
        calls = 0
        for version in self.followed:
            known = self.recorded.setdefault(version, {})
            missing = [bar for bar in self.closed if bar not in known]
            if not missing:
                continue
            calls += 1
            if crash == (calls, False):
                raise Crash
            known.update(dict.fromkeys(missing, self.now))
            if crash == (calls, True):
                raise Crash

    def decide(self, version: int, action: str, meanwhile: int | None) -> None:
        """The shadow of a version has earned its promotion or its end, the other shadows go on."""
        refused = False
        for each in [number for number, status in enumerate(self.status) if status in PROMOTABLE]:
            own = (action, meanwhile) if each == version else ("continue", None)
            # a person may have promoted the version while the pass went on
            if self.status[each] in PROMOTABLE:
                try:
                    self.decide_on(each, *own)
                except Refusal:
                    refused = True
        if refused:
            raise Refusal("RegistryUnavailable")

    def decide_on(self, version: int, action: str, meanwhile: int | None) -> None:
        held = self.held
        champion = self.champion
        if self.ending.get(version, "none") == champion:
            action = "retire"
        else:
            self.promoted_by_person(meanwhile)
        self.ending.pop(version, None)
        if action == "retire":
            self.ending[version] = champion
        self.crash_at(Fault.SHADOW_DECIDED)
        if action == "retire":
            self.retire(version)
            self.crash_at(Fault.SHADOW_RETIRED)
        elif action == "promote" and not held:
            self.promote_from_shadow(version, champion)

    def promote_from_shadow(self, version: int, champion: int | None) -> None:
        self.settle()
        # an earlier pass was killed on the way, and its request is a day old at most
        is_own = self.committed[-1:] == [("promotion", version, SYSTEM.name)]
        if (
            champion != version == self.champion
            and is_own
            and self.now - self.requested_at < timedelta(days=1)
        ):
            self.crash_at(Fault.SHADOW_PROMOTED)
        if self.champion != champion:
            return
        self.overruled(version, PROMOTABLE, force=False)
        self.carry_out("promotion", version, None)
        self.crash_at(Fault.SHADOW_PROMOTED)

    def promoted_by_person(self, version: int | None) -> None:
        """A person's promotion while a pass goes on."""
        if version is None:
            return
        interrupted = self.armed, self.actor
        self.armed = None
        self.actor = ADMIN.name
        with contextlib.suppress(Refusal):
            self.promote(version, "unset", force=False)
        self.armed, self.actor = interrupted

    def protect(self, trigger: str, meanwhile: int | None) -> str | None:
        champion = self.champion
        if champion is None:
            return None
        action = self.answer(trigger, champion)
        self.promoted_by_person(meanwhile)
        self.frozen = action == "freeze"
        if action in {"keep", "freeze"}:
            return action
        self.settle()
        if self.champion == champion:
            kind, to = ("rollback", self.target) if action == "roll_back" else ("halt", None)
            self.carry_out(kind, to, None)
        return action

    def answer(self, trigger: str, champion: int) -> str:
        is_hard = trigger == "hard stop"
        if trigger == "nothing" or (is_hard and self.off.get(champion, self.now) > self.now):
            return "keep"
        if self.held and not is_hard:
            return "keep"
        if self.rollbacks >= 3:
            return "halt" if is_hard else "freeze"
        return "roll_back" if self.usable(self.target) else "halt"

    def usable(self, target: int | None) -> bool:
        served = target is not None and self.status[target] in SERVED
        return served and target != 4 and target not in self.gone

    def carry_out(self, kind: str, to: int | None, until: datetime | None) -> None:
        self.requested_at = self.now
        super().carry_out(kind, to, until)

    def commit(self, kind: str, to: int | None, until: datetime | None, actor: str) -> None:
        super().commit(kind, to, until, actor)
        self.frozen = False


@dataclass(frozen=True)
class Lives:
    """Models with a market, whose bars close while the clock moves."""

    models: CopiedModels
    market: MarketData
    served: Bars


class Alternating:
    """Model that is long after every second bar."""

    bars_needed = 5
    trained_on = SimpleNamespace(start=BARS_FROM)

    def positions(self, bars: Bars) -> Floats:
        return (bars.time // bars.timeframe.nanoseconds % 2).astype(np.float64)


class LifecycleMachine(PromotionMachine):
    """Applies the passes to the real model and to the expected state, between the changes of people."""

    expected: Life

    def __init__(self, lives: Lives, model_id: str) -> None:
        super().__init__(lives.models, model_id)
        self.lives = lives
        self.expected = Life([str(version.status) for version in self.versions])

    def teardown(self) -> None:
        # later passes read the open places of all models
        closed = text(
            "UPDATE shadow_places SET closed_at = now(), outcome = 'retired' "
            "WHERE model_id = :id AND closed_at IS NULL"
        )
        with self.world.ledger.begin() as connection:
            connection.execute(closed, {"id": self.model_id})

    @initialize(count=st.sampled_from([4, 4, 1, 0]))
    def let_versions_serve_in_turn(self, count: int) -> None:
        for version in range(count):
            self.promote_now(version)

    # later steps need versions that are left
    @precondition(lambda self: not self.expected.gone)
    @rule(version=numbers)
    def delete_by_hand(self, version: int) -> None:
        super().delete_by_hand(version)

    def promote_now(self, version: int) -> None:
        clm = self.services()
        self.both(
            None,
            lambda real: promoting.promote(clm, self.model_id, self.labels[version], ADMIN, "tested"),
            lambda state: state.promote(version, "unset", False),
        )

    @rule(
        version=shadows,
        action=st.sampled_from(["promote", "promote", "promote", "retire"]),
        meanwhile=meanwhiles,
        crash=crashes | st.sampled_from(OF_SHADOWS),
    )
    def decide_on_shadows(
        self, version: int, action: str, meanwhile: int | None, crash: Fault | None
    ) -> None:
        """A shadow pass in which one version has earned its promotion or its end.

        A person promotes a version between the measurement and the change.
        """
        scored = dict[str, int]()
        facts_of = shadow_decisions._facts

        def facts(services: Services, subject: Any) -> Any:
            measured = facts_of(services, subject)
            scored[subject.version.version] = measured.bars
            return measured

        def decided(measured: Any, rules: object) -> ShadowDecision:
            # the last version measured is the subject
            is_subject = list(scored)[-1] == self.labels[version]
            chosen = ShadowAction(action if is_subject else "continue")
            waits_for = measured.waits_for if chosen is ShadowAction.PROMOTE else ""
            self.promote_meanwhile(meanwhile if is_subject else None)
            return ShadowDecision(action=chosen, reasons=("tested",), progress="tested", waits_for=waits_for)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shadow_decisions, "_facts", facts)
            patch.setattr(shadow_decisions.shadow_decision, "decide", decided)
            evidence = {self.labels[each]: self.expected.evidence(each) for each in range(len(self.labels))}
            self.passed(
                SYSTEM.name, crash, self.decide, lambda state: state.decide(version, action, meanwhile)
            )
        assert scored.items() <= evidence.items()
        for label, history in self.promoted_by_shadows():
            assert any(
                each.decision.action is ShadowAction.PROMOTE and not each.decision.waits_for
                for each in history
            ), f"{label} was promoted without a decision"

    def decide(self, clm: Services) -> None:
        _, problems = shadow_decisions.decide_all(clm, self.model_id, anew=True)
        for each in problems.values():
            if each:
                raise RegistryUnavailable("; ".join(each))

    def promoted_by_shadows(self) -> Iterator[tuple[str, Any]]:
        decisions = self.world.services.ledger.shadow_decisions
        for kind, to, actor in self.expected.committed[-1:]:
            if kind == "promotion" and actor == SYSTEM.name and to is not None:
                yield self.labels[to], decisions.history(self.model_id, self.labels[to])

    @rule(
        trigger=triggers,
        waits=st.booleans(),
        times=st.sampled_from([4, 2, 1]),
        meanwhile=meanwhiles,
        crash=crashes,
    )
    def protect(
        self, trigger: str, waits: bool, times: int, meanwhile: int | None, crash: Fault | None
    ) -> None:
        """Passes of the watch that find the same trigger in whatever serves.

        The last one crashes, and a person promotes a version before its change.
        """
        self.expected.now += HOLD if waits else timedelta()
        for _ in range(times - 1):
            self.protect_once(trigger, None, None)
        self.protect_once(trigger, meanwhile, crash)

    def protect_once(self, trigger: str, meanwhile: int | None, crash: Fault | None) -> None:
        actions = list[object]()
        self.passed(
            PROTECTION.name,
            crash,
            lambda clm: actions.append(self.protection(clm, trigger, meanwhile)),
            lambda state: actions.append(state.protect(trigger, meanwhile)),
        )
        assert not actions or actions[0] == actions[1]

    def protection(self, clm: Services, trigger: str, meanwhile: int | None) -> str | None:
        serving = clm.ledger.versions(model_id=self.model_id, status=ModelStatus.PRODUCTION)
        if not serving:
            return None
        history = clm.ledger.promotions.committed(self.model_id)
        record = ServingRecord(
            self.lives.served,
            FALLEN if trigger == "hard stop" else None,
            Alarm(raised_on_day=90) if trigger == "mean" else Alarm(),
            None,
        )

        def decided(facts: ProtectionFacts, rules: ProtectionRules) -> ProtectionDecision:
            decision = decisions.protect(facts, rules)
            self.promote_meanwhile(meanwhile)
            return decision

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(protection, "protect", decided)
            return str(protect_version(clm, serving[0], record, history).action)

    def promote_meanwhile(self, version: int | None) -> None:
        if version is None:
            return
        clm = self.services()
        with contextlib.suppress(CLMError):
            promoting.promote(clm, self.model_id, self.labels[version], ADMIN, "tested")

    @rule(version=numbers, days=st.integers(0, 20))
    def switch_the_hard_stop_off(self, version: int, days: int) -> None:
        until = self.expected.now + timedelta(days=days)
        self.world.services.ledger.exemptions.record(
            self.versions[version], until, ADMIN, "tested", self.expected.now
        )
        self.expected.off[version] = until
        self.expected.audited.append("hard_stop_switched_off")

    @rule(crash=st.none() | st.tuples(st.integers(1, 3), st.booleans()))
    def record_papers(self, crash: tuple[int, bool] | None) -> None:
        """A pass over the paper records, killed before or after the record of a version."""
        calls = 0
        record = ShadowStore.record

        def killed(store: ShadowStore, model_id: str, version: str, time: Any, *args: Any) -> int:
            nonlocal calls
            calls += bool(len(time))
            if len(time) and crash == (calls, False):
                raise Crash
            new = record(store, model_id, version, time, *args)
            if len(time) and crash == (calls, True):
                raise Crash
            return new

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ShadowStore, "record", killed)
            self.passed(SYSTEM.name, None, self.follow, lambda state: state.record(crash))

    def follow(self, clm: Services) -> None:
        model = shadow.followed_models(clm, self.model_id, None).get(self.model_id)
        if model is None:
            return
        followed = [each for each in (model.production, model.frozen, *model.waiting) if each is not None]
        for version in sorted(followed, key=lambda each: each.version):
            [market] = paper_record.paper_markets(clm, version)
            track = paper_record.extend_track(clm, version, Alternating, market)
            assert not track.problem

    @rule(hours=st.integers(1, 12))
    def let_hours_pass(self, hours: int) -> None:
        self.expected.now += timedelta(hours=hours)

    @invariant()
    def no_bar_is_recorded_twice_or_lost(self) -> None:
        query = text("SELECT version, bar_time, recorded_at FROM shadow_positions WHERE model_id = :id")
        with self.world.ledger.begin() as connection:
            rows = connection.execute(query, {"id": self.model_id}).all()
        expected = {
            (self.labels[version], bar): at
            for version, bars in self.expected.recorded.items()
            for bar, at in bars.items()
        }
        assert {(row.version, row.bar_time): row.recorded_at for row in rows} == expected
        assert len(rows) == len(expected)

    @invariant()
    def the_freeze_is_counted_and_told_of(self) -> None:
        services = self.world.services
        committed = services.ledger.promotions.committed(self.model_id)
        assert protection.rollbacks_in_a_row(committed) == self.expected.rollbacks
        subjects = [each.subject for each in services.alerts.lasting(AlertKind.PROTECTION_FROZEN)]
        assert (self.model_id in subjects) == self.expected.frozen

    def passed(
        self,
        actor: str,
        crash: Fault | None,
        real: Callable[[Services], object],
        expected: Callable[[Life], object],
    ) -> None:
        """Compare a pass of the system with the expected one."""
        self.expected.armed = crash
        self.expected.actor = actor
        clm = self.services(crash)
        assert outcome(lambda: real(clm)) == outcome(lambda: expected(self.expected))
        self.expected.actor = ADMIN.name

    def services(self, crash: Fault | None = None) -> Services:
        services = self.world.services
        now = self.expected.now
        return replace(
            services,
            settings=services.settings.model_copy(update={"fault": crash}),
            promotions=replace(services.promotions, fault=crash),
            open_market=lambda: self.lives.market,
            clock=lambda: now,
            policies=policies(),
        )


def fallen() -> Backtest:
    """A backtest that lost 30 % in a bar."""
    loss = np.array([-0.3])
    nothing = [np.zeros(0) for _ in range(9)]
    return Backtest(1.0 + loss, loss, np.ones(1), np.ones(1), 0.0, Trades(*nothing))


FALLEN = fallen()


@pytest.fixture(scope="module")
def lives(
    services: Services,
    make_version: Callable[..., ModelVersion],
    ledger_engine: Engine,
    audited: Callable[[str], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lives]:
    mlflow = create_engine(services.database.url("mlflow"))
    model_id = f"lightgbm_{SYMBOL.lower()}_{Timeframe.H4}"
    made = made_models(services, make_version, model_id, ledger_engine, mlflow, audited, others=3)
    folder = tmp_path_factory.mktemp("market")
    bars = rising_bars()
    SeriesStore(folder / "data").add(bars, "tests", START)
    with without_waits_for_the_disk(ledger_engine):
        yield Lives(made, MarketData(folder), bars[:1])
    mlflow.dispose()


def rising_bars() -> Bars:
    time = int(BARS_FROM.timestamp()) * 10**9 + np.arange(BARS, dtype=np.int64) * Timeframe.H4.nanoseconds
    close = np.linspace(100.0, 200.0, BARS)
    return Bars(SYMBOL, Timeframe.H4, Calendar.ALWAYS, time, close, close, close, close, np.ones(BARS))


def crash_without_end(patch: pytest.MonkeyPatch) -> None:
    for module in ("registry.promotion", "ledger.promotions", "lifecycle.shadow_decisions"):
        patch.setattr(f"clm_core.{module}.crash_at", crash_at)


Play = Callable[[hypothesis.settings], Sequence[LifecycleMachine]]


@pytest.fixture
def played(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Function that plays sequences of steps; returns the machines."""
    crash_without_end(monkeypatch)
    return lambda settings: play(partial(LifecycleMachine, lives), settings, str(Timeframe.H4))


@pytest.fixture
def tell(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Function that takes a new machine through the story."""
    crash_without_end(monkeypatch)

    def told() -> None:
        machine = LifecycleMachine(lives, f"lightgbm_m{next(NUMBERS)}usd_{Timeframe.H4}")
        for step in STORY:
            step(machine)
            machine.agree()
            machine.no_bar_is_recorded_twice_or_lost()
            machine.the_freeze_is_counted_and_told_of()
        machine.teardown()

    return told


STORY: tuple[Callable[[LifecycleMachine], None], ...] = (
    lambda m: m.let_versions_serve_in_turn(3),
    # bars recorded in time and late, by passes killed on the way
    lambda m: m.let_hours_pass(5),
    lambda m: m.record_papers((2, False)),
    lambda m: m.record_papers((2, True)),
    lambda m: m.let_hours_pass(12),
    lambda m: m.record_papers(None),
    lambda m: m.let_hours_pass(4),
    lambda m: m.record_papers(None),
    # a person decided today
    lambda m: m.decide_on_shadows(5, "promote", None, None),
    lambda m: m.protect("mean", False, 1, None, None),
    # a person decides while a pass goes on
    lambda m: m.let_time_pass(8),
    lambda m: m.decide_on_shadows(5, "promote", 3, None),
    lambda m: m.protect("mean", True, 1, 6, None),
    # the hard stop acts within the hold, unless it is off
    lambda m: m.switch_the_hard_stop_off(6, 2),
    lambda m: m.protect("hard stop", False, 1, None, None),
    lambda m: m.let_time_pass(3),
    lambda m: m.protect("hard stop", False, 1, None, Fault.AFTER_INTENT),
    lambda m: m.protect("hard stop", False, 1, None, Fault.IN_COMMIT),
    lambda m: m.reconcile(False, None),
    # two more rollbacks and the freeze, which a person ends
    lambda m: m.protect("mean", True, 3, None, None),
    lambda m: m.halt("unset", None),
    # an automatic promotion after the hold, and the end of a shadow, each by a second pass
    lambda m: m.decide_on_shadows(5, "promote", None, None),
    lambda m: m.let_time_pass(8),
    lambda m: m.decide_on_shadows(5, "promote", None, Fault.AFTER_ALIAS),
    lambda m: m.decide_on_shadows(5, "promote", None, Fault.SHADOW_PROMOTED),
    lambda m: m.decide_on_shadows(7, "retire", None, Fault.SHADOW_DECIDED),
    lambda m: m.decide_on_shadows(7, "promote", None, Fault.SHADOW_RETIRED),
    # the count begins anew after a person; without a version before, or with a lost one, a halt
    lambda m: m.protect("mean", False, 1, None, Fault.AFTER_COMMIT),
    lambda m: m.protect("mean", False, 1, None, None),
    lambda m: m.promote(1, "unset", True, None),
    lambda m: m.promote(0, "unset", True, None),
    lambda m: m.delete_by_hand(1),
    lambda m: m.protect("mean", True, 1, None, None),
    lambda m: m.record_papers(None),
)


def test_a_story_of_passes_people_and_crashes_ends_in_the_expected_state(
    tell: Callable[[], None], verify_audit: Callable[[], None]
) -> None:
    tell()
    verify_audit()


def test_any_sequence_of_passes_people_and_accidents_ends_in_the_expected_state(
    played: Play, verify_audit: Callable[[], None]
) -> None:
    settings = hypothesis.settings(max_examples=SEQUENCES, stateful_step_count=STEPS)
    assert len(played(settings)) >= SEQUENCES
    verify_audit()


Patch = pytest.MonkeyPatch


def promotes_over_a_persons_decision(patch: Patch) -> None:
    patch.setattr(shadow_decisions, "_obstacle", lambda services, subject: "")


def promotes_whatever_serves_by_now(patch: Patch) -> None:
    promote = promoting.promote

    def unexpecting(*args: Any, expected_champion: object = UNSET, **options: Any) -> Promotion:
        return promote(*args, **options)

    patch.setattr(shadow_decisions, "promoting", SimpleNamespace(promote=unexpecting))


def takes_back_whatever_serves_by_now(patch: Patch) -> None:
    rollback = Promotions.rollback

    def unexpecting(*args: Any, expected_champion: object = UNSET, **options: Any) -> Promotion:
        kept = {} if PROTECTION in args else {"expected_champion": expected_champion}
        return rollback(*args, **kept, **options)

    patch.setattr(Promotions, "rollback", unexpecting)


def forgets_the_end_that_a_killed_pass_left(patch: Patch) -> None:
    patch.setattr(shadow_decisions, "_is_left", lambda newest, subject: False)


def protects_over_a_persons_decision(patch: Patch) -> None:
    patch.setattr(protection, "_days_since_person", lambda services, model_id, now: None)


def holds_the_hard_stop_back(patch: Patch) -> None:
    act = decisions._action
    patch.setattr(decisions, "_action", lambda facts, rules, is_hard: act(facts, rules, False))


def keeps_the_hard_stop_off_for_ever(patch: Patch) -> None:
    until = ExemptionStore.until

    def for_ever(store: ExemptionStore, version: ModelVersion) -> datetime | None:
        return None if until(store, version) is None else datetime.max.replace(tzinfo=UTC)

    patch.setattr(ExemptionStore, "until", for_ever)


def rolls_back_to_an_unusable_version(patch: Patch) -> None:
    patch.setattr(protection, "target_problem", lambda services, model_id, label: None)


def never_freezes(patch: Patch) -> None:
    patch.setattr(protection, "rollbacks_in_a_row", lambda history: 0)


def freezes_after_a_person_too(patch: Patch) -> None:
    def ever(history: Sequence[Promotion]) -> int:
        rollbacks = [change for change in history if change.kind is PromotionKind.ROLLBACK]
        return sum(change.by == PROTECTION for change in rollbacks)

    patch.setattr(protection, "rollbacks_in_a_row", ever)


def loses_the_bars_of_the_first_champion(patch: Patch) -> None:
    patch.setattr(shadow, "_first_champions", lambda services, model_id, timeframe: {})


def records_bars_again(patch: Patch) -> None:
    """By the close, under which the next pass doesn't find them."""
    record = ShadowStore.record
    bar = Timeframe.H4.nanoseconds

    def closes(store: ShadowStore, model: str, version: str, time: Any, *args: Any) -> int:
        return record(store, model, version, time, *args) + record(store, model, version, time + bar, *args)

    patch.setattr(ShadowStore, "record", closes)


def scores_the_bar_before_the_position(patch: Patch) -> None:
    patch.setattr(RecipeTrack, "earned", property(lambda track: track.in_time))


def scores_late_positions(patch: Patch) -> None:
    patch.setattr(RecipeTrack, "earned", property(lambda track: np.append(False, track.recorded[:-1])))


@pytest.mark.chaos
@pytest.mark.parametrize(
    "broken",
    [
        promotes_over_a_persons_decision,
        promotes_whatever_serves_by_now,
        takes_back_whatever_serves_by_now,
        forgets_the_end_that_a_killed_pass_left,
        protects_over_a_persons_decision,
        holds_the_hard_stop_back,
        keeps_the_hard_stop_off_for_ever,
        rolls_back_to_an_unusable_version,
        never_freezes,
        freezes_after_a_person_too,
        loses_the_bars_of_the_first_champion,
        records_bars_again,
        scores_the_bar_before_the_position,
        scores_late_positions,
    ],
    ids=lambda broken: broken.__name__,
)
def test_a_broken_build_is_noticed(
    broken: Callable[[Patch], None], tell: Callable[[], None], monkeypatch: Patch
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        tell()
