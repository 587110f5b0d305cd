"""Changes of the production version: a row for each change, committed with the audit entry and the event."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError

from clm_core.domain.actors import AUTOMATIC, PROTECTION, SYSTEM, Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.audit import Action
from clm_core.domain.errors import ConflictError, IllegalTransition
from clm_core.domain.events import EventType, ProductionChanged, ProductionHalted
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.promotions import (
    Change,
    Evidence,
    Promotion,
    PromotionKind,
    PromotionState,
    Rejudgement,
)
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger import alerts, audit_records, events
from clm_core.ledger.engine import lock_engine
from clm_core.ledger.tables import AuditRow, Base, EvaluationRow, JobRow, PromotionRow, VersionRow
from clm_core.platform.locks import AdvisoryLock

_PROMOTIONS, _VERSIONS, _JOBS, _EVALUATIONS, _AUDIT = (
    Base.metadata.tables[row.__tablename__]
    for row in (PromotionRow, VersionRow, JobRow, EvaluationRow, AuditRow)
)
LOCK_WAIT_SECONDS = 30

EVENT_OF = {
    PromotionKind.PROMOTION: EventType.MODEL_PROMOTED,
    PromotionKind.ADOPTION: EventType.MODEL_PROMOTED,
    PromotionKind.ROLLBACK: EventType.MODEL_ROLLBACK,
    PromotionKind.RESTORATION: EventType.MODEL_PROMOTED,
    PromotionKind.HALT: EventType.MODEL_HALTED,
}
ACTION_OF = {
    PromotionKind.PROMOTION: Action.PROMOTION_COMMITTED,
    PromotionKind.ADOPTION: Action.ALIAS_MOVE_ADOPTED,
    PromotionKind.ROLLBACK: Action.ROLLBACK_COMMITTED,
    PromotionKind.LOSS: Action.PRODUCTION_LOST,
    PromotionKind.HALT: Action.PRODUCTION_HALTED,
    PromotionKind.RESTORATION: Action.PRODUCTION_RESTORED,
}

DECIDED_BY_PERSON = (
    *(action for kind, action in ACTION_OF.items() if kind is not PromotionKind.LOSS),
    Action.FORCED_PROMOTION,
    Action.FORCED_CONFIRMED,
)
"""Actions after which the system promotes nothing for a while, if a person's."""


class PromotionStore:
    """Changes of the production version. Every method but `lock` is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks = lock_engine(engine)

    @contextlib.contextmanager
    def lock(self, model_id: str) -> Iterator[Callable[[], None]]:
        """Lock a model's promotions for the block, or until the death of the process.

        Yields:
            A function that raises ConflictError if the lock was lost with the database connection.

        Raises:
            ConflictError: another change has held the lock for longer than the time limit.
        """
        with self._locks.connect() as connection, connection.begin():
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
            try:
                connection.execute(
                    select(func.pg_advisory_xact_lock(AdvisoryLock.PROMOTION, func.hashtext(model_id)))
                )
            except OperationalError as error:
                raise ConflictError(
                    f"Another change of {model_id} has been under way for {LOCK_WAIT_SECONDS} s: "
                    "see `clm models`, then try again."
                ) from error
            yield lambda: _require_answer(connection, model_id)

    def models(self) -> list[str]:
        """Ids of all models with versions."""
        with self._engine.begin() as connection:
            return list(connection.scalars(select(_VERSIONS.c.model_id.distinct()).order_by("model_id")))

    def history(self, model_id: str) -> list[Promotion]:
        """All changes of a model, oldest first."""
        return self._promotions(_PROMOTIONS.c.model_id == model_id)

    def committed(self, model_id: str) -> list[Promotion]:
        """Committed changes of a model, oldest first."""
        return self._promotions(
            _PROMOTIONS.c.model_id == model_id, _PROMOTIONS.c.state == PromotionState.COMMITTED
        )

    def champion(self, model_id: str) -> str | None:
        """Production version according to the ledger, if any."""
        last = (
            select(_PROMOTIONS.c.to_version)
            .where(_PROMOTIONS.c.model_id == model_id, _PROMOTIONS.c.state == PromotionState.COMMITTED)
            .order_by(_PROMOTIONS.c.id.desc())
            .limit(1)
        )
        with self._engine.begin() as connection:
            champion: str | None = connection.scalar(last)
            return champion

    def newest_by_person(self, model_id: str) -> tuple[datetime, str] | None:
        """Time and actor of the newest change of production, or confirmation, not made by the system
        itself; None without."""
        newest = (
            select(_AUDIT.c.at, _AUDIT.c.actor)
            .where(_AUDIT.c.subject == model_id, _AUDIT.c.action.in_(DECIDED_BY_PERSON))
            .where(*(or_(_AUDIT.c.actor != each.name, _AUDIT.c.role != each.role) for each in AUTOMATIC))
            .order_by(_AUDIT.c.seq.desc())
            .limit(1)
        )
        with self._engine.begin() as connection:
            row = connection.execute(newest).one_or_none()
        return None if row is None else (row.at, row.actor)

    def under_way(self, model_id: str) -> Promotion | None:
        """Unfinished change of a model, if any."""
        changes = self._promotions(_PROMOTIONS.c.model_id == model_id, _PROMOTIONS.c.finished_at.is_(None))
        return changes[0] if changes else None

    def models_under_way(self) -> set[str]:
        """Models with an unfinished change."""
        query = select(_PROMOTIONS.c.model_id.distinct()).where(_PROMOTIONS.c.finished_at.is_(None))
        with self._engine.begin() as connection:
            return set(connection.scalars(query))

    def champion_numbers(self) -> dict[str, int]:
        """MLflow's number of the production version of each model, according to the ledger."""
        newest = (
            select(_PROMOTIONS.c.model_id, _PROMOTIONS.c.to_version)
            .where(_PROMOTIONS.c.state == PromotionState.COMMITTED)
            .distinct(_PROMOTIONS.c.model_id)
            .order_by(_PROMOTIONS.c.model_id, _PROMOTIONS.c.id.desc())
            .subquery()
        )
        named = and_(newest.c.model_id == _VERSIONS.c.model_id, newest.c.to_version == _VERSIONS.c.version)
        query = select(_VERSIONS.c.model_id, _VERSIONS.c.mlflow_version).join(newest, named)
        with self._engine.begin() as connection:
            return dict(connection.execute(query).tuples().all())

    def evidence(self, model_id: str, label: str) -> Evidence | None:
        newest = (
            select(_EVALUATIONS.c.passed, _EVALUATIONS.c.bundle_digest)
            .where(_EVALUATIONS.c.model_id == model_id, _EVALUATIONS.c.version == label)
            .order_by(_EVALUATIONS.c.created_at.desc(), _EVALUATIONS.c.id.desc())
            .limit(1)
        )
        with self._engine.begin() as connection:
            row = connection.execute(newest).mappings().one_or_none()
        return None if row is None else Evidence.model_validate(dict(row))

    def record_rejudgement(
        self, version: ModelVersion, judged: Rejudgement, actor: Actor, now: datetime
    ) -> None:
        """Record in the audit that a promotion judged a version's stored evidence anew."""
        details = {"version": version.version, **judged.model_dump()}
        with self._engine.begin() as connection:
            action = Action.VERSION_REJUDGED
            audit_records.record(connection, action, version.model_id, now, details, actor)

    def expired_forced(self, now: datetime) -> list[Promotion]:
        """Expired forced promotions whose version still serves."""
        newest = (
            select(func.max(_PROMOTIONS.c.id))
            .where(_PROMOTIONS.c.state == PromotionState.COMMITTED)
            .group_by(_PROMOTIONS.c.model_id)
        )
        return self._promotions(_PROMOTIONS.c.id.in_(newest), _PROMOTIONS.c.expires_at <= now)

    def expire(self, forced: Promotion, actor: Actor, now: datetime) -> bool:
        """Alert once about an expired forced promotion; True at the first call."""
        message = (
            f"{forced.to_version} was forced by {forced.actor} ({forced.reason}) until "
            f"{forced.expires_at:%Y-%m-%d %H:%M} UTC and still serves. Confirm the version with "
            f"`clm confirm {forced.model_id} --reason ...`, promote another version, or roll back."
        )
        with self._engine.begin() as connection:
            first = _alert(connection, AlertKind.FORCED_EXPIRED, forced, message, now)
            if first:
                _audit(connection, forced, Action.FORCED_EXPIRED, now, by=actor)
        return first

    def confirm(
        self, forced: Promotion, expires_at: datetime, actor: Actor, reason: str, now: datetime
    ) -> Promotion:
        """Prolong a forced promotion.

        Raises:
            ConflictError: a concurrent call confirmed the promotion first.
        """
        confirmed = (
            update(_PROMOTIONS)
            .where(_PROMOTIONS.c.id == forced.id, _PROMOTIONS.c.expires_at == forced.expires_at)
            .values(expires_at=expires_at, confirmations=_PROMOTIONS.c.confirmations + 1)
            .returning(*_PROMOTIONS.c)
        )
        with self._engine.begin() as connection:
            row = connection.execute(confirmed).mappings().one_or_none()
            if row is None:
                raise _ended_meanwhile(forced)
            done = _promotion(row)
            _audit(connection, done, Action.FORCED_CONFIRMED, now, by=actor, confirmed_because=reason)
            alerts.end(connection, AlertKind.FORCED_EXPIRED, done.model_id, now)
        return done

    def refuse_bundle(
        self, version: ModelVersion, actor: Actor, finding: str, now: datetime, once: bool
    ) -> None:
        """Record that a version's files in MLflow differ from the registered files.

        Args:
            once: True for a periodic check: the refusal enters the audit at the first discovery only.
        """
        named = f"{version.model_id}@{version.version}"
        message = f"{finding}. Don't load the version; roll back if it serves, and check who can write there."
        alert = Alert(kind=AlertKind.BUNDLE_REFUSED, subject=named, message=message, at=now)
        details = {"version": version.version, "status": version.status, "finding": finding}
        with self._engine.begin() as connection:
            if alerts.record(connection, alert) or not once:
                action = Action.BUNDLE_REFUSED
                audit_records.record(connection, action, version.model_id, now, details, actor)

    def trust_bundle(self, version: ModelVersion, now: datetime) -> None:
        """End the alert about a refused bundle: the files equal the registered files."""
        with self._engine.begin() as connection:
            alerts.end(connection, AlertKind.BUNDLE_REFUSED, f"{version.model_id}@{version.version}", now)

    def intend(self, change: Change, request_key: str | None = None) -> Promotion:
        """Record an intended change, to be ended by `commit` or `abort`."""
        with self._engine.begin() as connection:
            return _insert(connection, change, PromotionState.INTENT, request_key=request_key)

    def of_request(self, request_key: str, since: datetime) -> Promotion | None:
        """Change committed since a moment for the request with a key, if any."""
        changes = self._promotions(
            _PROMOTIONS.c.request_key == request_key,
            _PROMOTIONS.c.state == PromotionState.COMMITTED,
            _PROMOTIONS.c.at > since,
        )
        return changes[0] if changes else None

    def commit(self, intent: Promotion, now: datetime, fault: Fault | None) -> Promotion:
        """Commit a change with both versions' statuses, the audit entry and the event, in one transaction.

        Returns:
            The committed change, also where a concurrent reconciliation committed first.

        Raises:
            ConflictError: a concurrent call aborted the change first.
        """
        try:
            with self._engine.begin() as connection:
                done = _finish(connection, intent, PromotionState.COMMITTED, now)
                crash_at(Fault.IN_COMMIT, fault)
                _record_commit(connection, done, now)
        except ConflictError:
            # the requester asks for the outcome, whoever recorded it
            committed = _PROMOTIONS.c.state == PromotionState.COMMITTED
            for ended in self._promotions(_PROMOTIONS.c.id == intent.id, committed):
                return ended
            raise
        return done

    def abort(self, intent: Promotion, cause: str, now: datetime) -> Promotion:
        with self._engine.begin() as connection:
            done = _finish(connection, intent, PromotionState.ABORTED, now)
            _audit(connection, done, Action.PROMOTION_ABORTED, now, cause=cause)
        return done

    def record_alias_move(self, alias_move: Change) -> Promotion:
        """Record an alias moved by hand: a change under way until the alias is restored, adopted or lost."""
        with self._engine.begin() as connection:
            recorded = _insert(connection, alias_move, PromotionState.ALIAS_MOVED)
            _audit(connection, recorded, Action.ALIAS_MOVED, recorded.at)
            message = (
                f"{alias_move.reason} without a promotion, and is put back. Check who has access to MLflow; "
                "`clm reconcile MODEL --adopt` would accept such a change."
            )
            _alert(connection, AlertKind.ALIAS_MOVED, recorded, message, recorded.at)
        return recorded

    def restore(self, alias_move: Promotion, now: datetime) -> Promotion:
        """Record that the alias points at the production version again."""
        with self._engine.begin() as connection:
            done = _finish(connection, alias_move, PromotionState.ALIAS_MOVED, now)
            _audit(connection, done, Action.ALIAS_MOVE_RESTORED, now)
        return done

    def accept(self, alias_move: Promotion, change: Change, now: datetime) -> Promotion:
        """Accept an alias moved by hand: as an admin's adoption, or as the loss of a deleted version."""
        with self._engine.begin() as connection:
            _finish(connection, alias_move, PromotionState.ALIAS_MOVED, now)
            done = _insert(connection, change, PromotionState.COMMITTED, finished_at=now)
            _record_commit(connection, done, now)
        return done

    def retire(self, version: ModelVersion, actor: Actor, reason: str, now: datetime) -> None:
        """Retire a version; afterwards only an admin can promote the version.

        Raises:
            IllegalTransition: the version is neither a candidate nor a shadow.
        """
        retirable = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
        moved = (
            update(_VERSIONS)
            .where(_VERSIONS.c.model_id == version.model_id, _VERSIONS.c.version == version.version)
            .where(_VERSIONS.c.status.in_(retirable))
            .values(status=ModelStatus.RETIRED)
        )
        with self._engine.begin() as connection:
            if connection.execute(moved).rowcount == 0:
                raise IllegalTransition(
                    f"{version.model_id} {version.version} is {version.status}: only a "
                    f"{' or '.join(retirable)} can be retired. Promote or roll back to another version first."
                )
            details = {"version": version.version, "reason": reason}
            action = Action.VERSION_RETIRED
            audit_records.record(connection, action, version.model_id, now, details, actor)

    def numbers(self, model_id: str) -> dict[str, int]:
        """MLflow's number of every version of a model, by label."""
        of_model = select(_VERSIONS.c.version, _VERSIONS.c.mlflow_version).where(
            _VERSIONS.c.model_id == model_id
        )
        with self._engine.begin() as connection:
            return {row.version: row.mlflow_version for row in connection.execute(of_model)}

    def record_restoration(
        self,
        version: ModelVersion,
        mlflow_version: int,
        restored: Sequence[str],
        actor: Actor,
        reason: str,
        now: datetime,
    ) -> ModelVersion:
        """Record that a version deleted in MLflow is there again, under MLflow's new number.

        Args:
            restored: what was put back, a phrase each.

        Raises:
            ConflictError: a concurrent call recorded another number first.
        """
        renumbered = (
            update(_VERSIONS)
            .where(_VERSIONS.c.model_id == version.model_id, _VERSIONS.c.version == version.version)
            .where(_VERSIONS.c.mlflow_version == version.mlflow_version)
            .values(mlflow_version=mlflow_version)
        )
        details = {
            "version": version.version,
            "from_mlflow_version": version.mlflow_version,
            "to_mlflow_version": mlflow_version,
            "bundle_digest": version.bundle_digest,
            "restored": list(restored),
            "reason": reason,
        }
        with self._engine.begin() as connection:
            if connection.execute(renumbered).rowcount == 0:
                raise ConflictError(
                    f"{version.model_id} {version.version} was registered again by a concurrent command: "
                    "see `clm models`, then repeat the command."
                )
            action = Action.VERSION_RESTORED
            audit_records.record(connection, action, version.model_id, now, details, actor)
        return version.model_copy(update={"mlflow_version": mlflow_version})

    def job_status(self, version: ModelVersion) -> JobStatus:
        with self._engine.begin() as connection:
            job = select(_JOBS.c.status).where(_JOBS.c.id == version.training_job_id)
            return JobStatus(connection.execute(job).scalar_one())

    def _promotions(self, *conditions: Any) -> list[Promotion]:
        query = select(_PROMOTIONS).where(*conditions).order_by(_PROMOTIONS.c.id)
        with self._engine.begin() as connection:
            return [_promotion(row) for row in connection.execute(query).mappings()]


def _promotion(row: Mapping[Any, Any]) -> Promotion:
    return Promotion.model_validate({name: row[name] for name in Promotion.model_fields})


def _insert(
    connection: Connection,
    change: Change,
    state: PromotionState,
    finished_at: datetime | None = None,
    request_key: str | None = None,
) -> Promotion:
    own = {"state": state, "finished_at": finished_at, "request_key": request_key}
    row = change.model_dump() | own
    inserted = insert(_PROMOTIONS).values(row).returning(*_PROMOTIONS.c)
    return _promotion(connection.execute(inserted).mappings().one())


def _finish(connection: Connection, change: Promotion, state: PromotionState, now: datetime) -> Promotion:
    """Finish a change in a single statement, so that only one of two concurrent calls succeeds."""
    finished = (
        update(_PROMOTIONS)
        .where(_PROMOTIONS.c.id == change.id, _PROMOTIONS.c.finished_at.is_(None))
        .values(state=state, finished_at=now)
        .returning(*_PROMOTIONS.c)
    )
    row = connection.execute(finished).mappings().one_or_none()
    if row is None:
        raise _ended_meanwhile(change)
    return _promotion(row)


def _ended_meanwhile(change: Promotion) -> ConflictError:
    return ConflictError(
        f"Change {change.id} of {change.model_id} was ended by a concurrent command: "
        "run `clm reconcile`, then see `clm models` for the production version."
    )


def _record_commit(connection: Connection, done: Promotion, now: datetime) -> None:
    """Record the consequences of a committed change: statuses, audit entry, alerts, event."""
    _set_statuses(connection, done.model_id, done.to_version)
    forced = done.forced and done.kind is PromotionKind.PROMOTION
    _audit(connection, done, Action.FORCED_PROMOTION if forced else ACTION_OF[done.kind], now)
    # about the former production version
    alerts.end(connection, AlertKind.FORCED_EXPIRED, done.model_id, now)
    alerts.end(connection, AlertKind.PROTECTION_FROZEN, done.model_id, now)
    if done.to_version is not None:
        alerts.end(connection, AlertKind.PRODUCTION_LOST, done.model_id, now)
        alerts.end(connection, AlertKind.MODEL_HALTED, done.model_id, now)
    if done.kind is PromotionKind.PROMOTION and done.by == SYSTEM:
        message = (
            f"{done.to_version} serves now instead of {done.from_version or 'no version'}: {done.reason}. "
            f"`clm show {done.model_id}@{done.to_version}` has the evidence, `clm rollback {done.model_id}` "
            "puts the version before back."
        )
        _alert(connection, AlertKind.PROMOTED, done, message, now)
    if done.kind is PromotionKind.ROLLBACK and done.by == PROTECTION:
        message = (
            f"{done.from_version} was taken out of production and {done.to_version} serves again: "
            f"{done.reason}. `clm show {done.model_id}@{done.from_version}` shows the version."
        )
        _alert(connection, AlertKind.PROTECTION_ROLLED_BACK, done, message, now)
    if done.kind is PromotionKind.HALT:
        message = (
            f"{done.from_version} was taken out of production by {done.actor} and nothing serves: "
            f"{done.reason}. Promote another version, or put one back with "
            f"`clm rollback {done.model_id} --to VERSION`."
        )
        _alert(connection, AlertKind.MODEL_HALTED, done, message, now)
    if done.kind is PromotionKind.LOSS:
        message = (
            f"{done.from_version} was deleted in MLflow and nothing serves. Put the version back with "
            f"`clm restore-version {done.model_id} {done.from_version}`, or promote another version. "
            "The command says what to do if the files of the version are lost too."
        )
        _alert(connection, AlertKind.PRODUCTION_LOST, done, message, now)
    if done.kind in EVENT_OF:
        _announce(connection, done, now)


def _set_statuses(connection: Connection, model_id: str, champion: str | None) -> None:
    """Retire the old version first: a unique index allows a model a single production version."""
    of_model = update(_VERSIONS).where(_VERSIONS.c.model_id == model_id)
    serving = _VERSIONS.c.status == ModelStatus.PRODUCTION
    connection.execute(of_model.where(serving).values(status=ModelStatus.RETIRED))
    connection.execute(of_model.where(_VERSIONS.c.version == champion).values(status=ModelStatus.PRODUCTION))


def _audit(
    connection: Connection,
    change: Promotion,
    action: Action,
    now: datetime,
    by: Actor | None = None,
    **details: str,
) -> None:
    recorded = {"id", "from_version", "to_version", "reason", "expires_at"}
    if change.said_by:
        recorded.add("said_by")
    own = change.model_dump(mode="json", include=recorded)
    audit_records.record(connection, action, change.model_id, now, own | details, by or change.by)


def _alert(connection: Connection, kind: AlertKind, change: Promotion, message: str, now: datetime) -> bool:
    return alerts.record(connection, Alert(kind=kind, subject=change.model_id, message=message, at=now))


def _announce(connection: Connection, done: Promotion, now: datetime) -> None:
    of_change = done.model_dump(include={"model_id", "actor", "reason"})
    payload: ProductionChanged | ProductionHalted
    if done.to_version is None:
        before = str(done.from_version)
        payload = ProductionHalted(promotion_id=done.id, previous_version=before, **of_change)
    else:
        payload = _production_changed(connection, done, done.to_version)
    events.record(connection, EVENT_OF[done.kind], payload, now)


def _production_changed(connection: Connection, done: Promotion, label: str) -> ProductionChanged:
    digest = select(_VERSIONS.c.model_path, _VERSIONS.c.bundle_digest).where(
        _VERSIONS.c.model_id == done.model_id, _VERSIONS.c.version == label
    )
    stored = connection.execute(digest).mappings().one()
    return ProductionChanged(
        promotion_id=done.id,
        version=label,
        previous_version=done.from_version,
        **done.model_dump(include={"model_id", "actor", "reason", "forced"}),
        **stored,
    )


def _require_answer(connection: Connection, model_id: str) -> None:
    try:
        connection.execute(text("SELECT 1"))
    except OperationalError as error:
        raise ConflictError(
            f"The lock of {model_id} was lost with the database connection, nothing was changed: try again."
        ) from error
