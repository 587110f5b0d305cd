"""Allocations, their weights and ends, and the arms that traders say to have traded: append-only."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_once

from clm_core.domain.actors import Actor
from clm_core.domain.allocations import (
    AllocationEnd,
    AllocationRun,
    AllocationState,
    ArmWeight,
    Observed,
    RecordedWeights,
)
from clm_core.domain.audit import Action
from clm_core.domain.errors import AlreadyExists, ConflictError
from clm_core.domain.events import AllocationChanged, EventType
from clm_core.domain.faults import Fault, crash_at
from clm_core.ledger import audit_records, events
from clm_core.ledger.tables import (
    AllocationEndRow,
    AllocationRow,
    AllocationServedRow,
    AllocationWeightsRow,
    Base,
)
from clm_core.platform.locks import AdvisoryLock

_ALLOCATIONS, _WEIGHTS, _ENDS, _SERVED = (
    Base.metadata.tables[row.__tablename__]
    for row in (AllocationRow, AllocationWeightsRow, AllocationEndRow, AllocationServedRow)
)
_RUNS = select(
    *_ALLOCATIONS.c,
    _ENDS.c.outcome.label("end"),
    _ENDS.c.at.label("ended_at"),
    _ENDS.c.actor.label("ended_by"),
    _ENDS.c.reason.label("end_reason"),
).outerjoin(_ENDS, _ENDS.c.allocation_id == _ALLOCATIONS.c.id)
_RUNS_WITH_END = _RUNS.subquery()


class AllocationStore:
    """Allocations of all models, one running for each model. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(
        self,
        model_id: str,
        arms: Sequence[ArmWeight],
        observed: Observed,
        actor: Actor,
        reason: str,
        now: datetime,
        forced: bool = False,
        fault: Fault | None = None,
    ) -> AllocationRun:
        """Start an allocation; a repetition of the start is answered with the running allocation.

        Args:
            arms: weights at the start, the production version first.

        Raises:
            ConflictError: an allocation of the model is running.
        """
        row = {
            "model_id": model_id,
            "arms": [arm.version for arm in arms],
            "observed": observed,
            "started_at": now,
            "started_by": actor.name,
            "reason": reason,
            "forced": forced,
        }
        with self._engine.begin() as connection:
            _lock(connection, model_id)
            running = _running(connection, model_id)
            if running is not None and _repeats(row, running):
                return running
            if running is not None:
                raise ConflictError(
                    f"{model_id} has a running allocation, of {' and '.join(running.arms)}: end it with "
                    f"`clm ab stop {model_id} --reason ...` before the next."
                )
            stored = connection.execute(insert(_ALLOCATIONS).values(row).returning(*_ALLOCATIONS.c))
            run = _run(stored.mappings().one())
            crash_at(Fault.ALLOCATION_OPENED, fault)
            reasons = (f"started by {actor.name}" + (f": {reason}" if reason else ""),)
            _record(connection, run, Action.ALLOCATION_STARTED, arms, reasons, actor, now, fault)
        return run

    def weigh(
        self,
        run: AllocationRun,
        before: RecordedWeights,
        arms: Sequence[ArmWeight],
        reasons: Sequence[str],
        actor: Actor,
        now: datetime,
        fault: Fault | None = None,
    ) -> None:
        """Record the weights in force from now on.

        Args:
            before: newest weights as the caller saw them: two passes at once would move the weights twice.

        Raises:
            ConflictError: the allocation has ended, or its weights were recorded anew, meanwhile.
        """
        with self._engine.begin() as connection:
            _lock(connection, run.model_id)
            running = _running(connection, run.model_id)
            newest = _newest_weights(connection, run)
            if running is None or running.id != run.id or newest.id != before.id:
                raise ConflictError(
                    f"The allocation of {run.model_id} was changed meanwhile: see `clm ab status`."
                )
            _record(connection, run, Action.ALLOCATION_CHANGED, arms, reasons, actor, now, fault)

    def end(
        self,
        run: AllocationRun,
        outcome: AllocationEnd,
        reason: str,
        actor: Actor,
        now: datetime,
        fault: Fault | None = None,
    ) -> AllocationRun:
        """End an allocation; an ended allocation keeps its end."""
        row = {"allocation_id": run.id, "outcome": outcome, "at": now, "actor": actor.name, "reason": reason}
        with self._engine.begin() as connection:
            _lock(connection, run.model_id)
            newest = _newest_weights(connection, run)
            ending = insert_once(_ENDS).values(row).on_conflict_do_nothing()
            if connection.execute(ending.returning(_ENDS.c.allocation_id)).all():
                crash_at(Fault.ALLOCATION_ENDING, fault)
                details = {"allocation_id": run.id, "outcome": outcome, "reason": reason}
                action = Action.ALLOCATION_ENDED
                audit_records.record(connection, action, run.model_id, now, details, actor)
                halted = outcome is AllocationEnd.HALTED
                state = AllocationState.HALTED if halted else AllocationState.PRODUCTION
                _announce(connection, run, state, newest.arms, actor, f"{outcome}: {reason}", now)
            ended = connection.execute(_RUNS.where(_ALLOCATIONS.c.id == run.id))
            return _run(ended.mappings().one())

    def running(self, model_id: str) -> AllocationRun | None:
        """Running allocation of a model, if any."""
        with self._engine.begin() as connection:
            return _running(connection, model_id)

    def all_running(self) -> list[AllocationRun]:
        """Running allocations, by model."""
        query = _RUNS.where(_ENDS.c.allocation_id.is_(None)).order_by(_ALLOCATIONS.c.model_id)
        with self._engine.begin() as connection:
            return [_run(row) for row in connection.execute(query).mappings()]

    def history(self, model_id: str | None = None, limit: int = 100) -> list[AllocationRun]:
        """Newest allocations, of one model or all, newest first."""
        query = _RUNS.order_by(_ALLOCATIONS.c.id.desc()).limit(limit)
        if model_id is not None:
            query = query.where(_ALLOCATIONS.c.model_id == model_id)
        with self._engine.begin() as connection:
            return [_run(row) for row in connection.execute(query).mappings()]

    def weights(self, run: AllocationRun) -> list[RecordedWeights]:
        """Weights of an allocation, oldest first."""
        query = select(_WEIGHTS).where(_WEIGHTS.c.allocation_id == run.id).order_by(_WEIGHTS.c.id)
        with self._engine.begin() as connection:
            return [_recorded(row) for row in connection.execute(query).mappings()]

    def tenures(self, model_id: str, version: str) -> list[tuple[datetime, datetime | None]]:
        """Start and end of each time in which a version had an arm of an allocation, oldest first."""
        has_arm = _WEIGHTS.c.arms.contains([{"version": version}]).label("has_arm")
        query = (
            select(_RUNS_WITH_END.c.id, _RUNS_WITH_END.c.ended_at, _WEIGHTS.c.at, has_arm)
            .join(_WEIGHTS, _WEIGHTS.c.allocation_id == _RUNS_WITH_END.c.id)
            .where(_RUNS_WITH_END.c.model_id == model_id)
            .order_by(_WEIGHTS.c.id)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        tenures = []
        for _, of_run in groupby(rows, key=lambda row: row.id):
            recorded = list(of_run)
            since = next((row.at for row in recorded if row.has_arm), None)
            if since is not None:
                ends = (row.at for row in recorded if row.at > since and not row.has_arm)
                tenures.append((since, next(ends, recorded[0].ended_at)))
        return tenures

    def record_served(
        self, run: AllocationRun, arms: Mapping[datetime, str], actor: Actor, now: datetime
    ) -> int:
        """Record the arms that were traded, by the open times of the bars; a repetition changes nothing.

        Returns:
            Number of new records.

        Raises:
            AlreadyExists: another arm is recorded for a bar.
        """
        rows = [
            {"allocation_id": run.id, "bar_time": bar, "version": arm, "reported_by": actor.name, "at": now}
            for bar, arm in arms.items()
        ]
        new = insert_once(_SERVED).on_conflict_do_nothing().returning(_SERVED.c.bar_time)
        with self._engine.begin() as connection:
            added = connection.execute(new, rows).all() if rows else []
            stored = _served(connection, run)
            for bar, arm in arms.items():
                if stored[bar] != arm:
                    raise AlreadyExists(
                        f"{stored[bar]} is recorded for the bar of {bar:%Y-%m-%d %H:%M} UTC, not {arm}: a "
                        "report is never changed; correct the trader that sent both."
                    )
        return len(added)

    def served(self, run: AllocationRun) -> dict[datetime, str]:
        """Arms reported as traded, by the open times of the bars, oldest first."""
        with self._engine.begin() as connection:
            return _served(connection, run)


def _lock(connection: Connection, model_id: str) -> None:
    lock = func.pg_advisory_xact_lock(AdvisoryLock.ALLOCATION, func.hashtext(model_id))
    connection.execute(select(lock))


def _running(connection: Connection, model_id: str) -> AllocationRun | None:
    query = _RUNS.where(_ALLOCATIONS.c.model_id == model_id, _ENDS.c.allocation_id.is_(None))
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _run(row)


def _repeats(row: Mapping[str, Any], running: AllocationRun) -> bool:
    """True for a request sent again after a lost answer."""
    same = ("observed", "started_by", "reason", "forced")
    return list(running.arms) == row["arms"] and all(getattr(running, name) == row[name] for name in same)


def _newest_weights(connection: Connection, run: AllocationRun) -> RecordedWeights:
    query = select(_WEIGHTS).where(_WEIGHTS.c.allocation_id == run.id).order_by(_WEIGHTS.c.id.desc())
    return _recorded(connection.execute(query.limit(1)).mappings().one())


def _served(connection: Connection, run: AllocationRun) -> dict[datetime, str]:
    query = select(_SERVED.c.bar_time, _SERVED.c.version).where(_SERVED.c.allocation_id == run.id)
    rows = connection.execute(query.order_by(_SERVED.c.bar_time))
    return {row.bar_time: row.version for row in rows}


def _record(
    connection: Connection,
    run: AllocationRun,
    action: Action,
    arms: Sequence[ArmWeight],
    reasons: Sequence[str],
    actor: Actor,
    now: datetime,
    fault: Fault | None,
) -> None:
    """Record weights with the audit entry and the event."""
    shown = [arm.model_dump() for arm in arms]
    weighed = {"allocation_id": run.id, "at": now, "arms": shown, "reasons": list(reasons)}
    connection.execute(insert(_WEIGHTS).values(weighed))
    crash_at(Fault.WEIGHTS_INSERTED, fault)
    details: dict[str, Any] = {"allocation_id": run.id, "arms": shown, "reasons": list(reasons)}
    if action is Action.ALLOCATION_STARTED:
        details |= {"observed": run.observed, "reason": run.reason, "forced": run.forced}
    audit_records.record(connection, action, run.model_id, now, details, actor)
    _announce(connection, run, AllocationState.RUNNING, tuple(arms), actor, "; ".join(reasons), now)


def _announce(
    connection: Connection,
    run: AllocationRun,
    state: AllocationState,
    arms: tuple[ArmWeight, ...],
    actor: Actor,
    reason: str,
    now: datetime,
) -> None:
    payload = AllocationChanged(
        allocation_id=run.id,
        model_id=run.model_id,
        state=state,
        arms=arms,
        actor=actor.name,
        reason=reason,
    )
    events.record(connection, EventType.ALLOCATION_CHANGED, payload, now)


def _run(row: Mapping[Any, Any]) -> AllocationRun:
    return AllocationRun.model_validate(dict(row))


def _recorded(row: Mapping[Any, Any]) -> RecordedWeights:
    return RecordedWeights.model_validate(dict(row))
