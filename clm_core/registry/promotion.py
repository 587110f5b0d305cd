"""Promotion protocol: the alias in MLflow moves once, and the ledger records the reason.

    lock the model -> end interrupted promotions -> compare with the expected champion
    -> judge the stored evidence anew (a promotion, not a rollback) -> verify the bundle
    -> intent -> move the alias `production` (the commit point) -> alias `previous`, tags
    -> outcome, statuses, audit entry and event in one transaction

MLflow has no transaction over several objects and shares none with the ledger. The intent records the plan,
the alias shows whether the promotion happened, and `reconcile` finishes or aborts; every step can be
repeated.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from clm_core.domain.actors import Actor
from clm_core.domain.errors import (
    BundleCorrupt,
    ConflictError,
    NotAllowed,
    NotFound,
    PromotionRefused,
    RegistryUnavailable,
)
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.promotions import (
    FORCED_FOR,
    UNSET,
    Change,
    Evidence,
    Expected,
    Judge,
    Promotion,
    PromotionKind,
    PromotionState,
    authorise,
    gate_refusals,
    integrity_refusals,
    rollback_target,
    standing_override,
)
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.promotions import PromotionStore
from clm_core.ledger.replies import KEPT_FOR
from clm_core.ledger.store import Ledger
from clm_core.platform import tracing
from clm_core.platform.tracing import traced
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.serving_rights import PRODUCTION

PREVIOUS = "previous"
"""Alias shown to people; the target of a rollback comes from the recorded promotions instead."""
PROMOTABLE = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)


@dataclass(frozen=True)
class ChangeRequest:
    """Actor, reason and time of a requested change."""

    actor: Actor
    reason: str
    at: datetime
    said_by: str | None = None
    key: str | None = None
    """Key that names the request: a repeated request has the same key."""

    def change(
        self, model_id: str, kind: PromotionKind, before: str | None, after: str | None, forced: bool = False
    ) -> Change:
        return Change(
            model_id=model_id,
            kind=kind,
            from_version=before,
            to_version=after,
            actor=self.actor.name,
            role=self.actor.role,
            reason=self.reason,
            forced=forced,
            expires_at=self.at + FORCED_FOR if forced else None,
            at=self.at,
            said_by=self.said_by,
        )


@dataclass(frozen=True)
class Promotions:
    """Changes of the production version; each method locks the model and ends interrupted promotions."""

    ledger: Ledger
    registry: MLflowRegistry
    fault: Fault | None = None

    @traced("promotion")
    def promote(
        self,
        model_id: str,
        label: str,
        actor: Actor,
        reason: str,
        now: datetime,
        judge: Judge,
        expected_champion: Expected = UNSET,
        force: bool = False,
        said_by: str | None = None,
        key: str | None = None,
    ) -> Promotion:
        """Promote a version whose stored evidence passes the gate now; the replaced version is retired.

        Args:
            judge: judges the stored evidence under the policy, costs and champion in force, and is called
                while the model is locked. The answer is an entry of the audit.
            expected_champion: label of the production version as the caller saw it, None for no version,
                UNSET for no expectation.
            force: an admin overrides the gate; the bytes must still be the judged bytes.
            said_by: requester in the caller's own words, recorded beside the actor.
            key: name of the request. The change committed for the same key in the last 24 hours is the answer
                to a request repeated after a crash.

        Raises:
            NotAllowed: the actor's role does not permit the change.
            ConflictError: another version is in production than the caller saw.
            PromotionRefused: the version does not pass the gate now, or cannot serve at all.
            BundleCorrupt: MLflow holds other files than were judged.
            RegistryUnavailable: MLflow failed on the way; `reconcile` ends the promotion.
        """
        tracing.annotate(model_id=model_id, version=label, force=force)
        authorise(actor, force, reason)
        request = ChangeRequest(actor, reason, now, said_by, key)
        with self.locked(model_id, request) as require_lock:
            if done := self._done_before(request):
                return done
            champion = self._champion(model_id, expected_champion)
            target = self.ledger.version(model_id, label)
            forced = self._check(target, champion, PROMOTABLE, force, request, judge)
            change = request.change(model_id, PromotionKind.PROMOTION, champion, label, forced)
            return self._carry_out(change, target, expected_champion, require_lock, request.key)

    @traced("rollback")
    def rollback(
        self,
        model_id: str,
        actor: Actor,
        reason: str,
        now: datetime,
        to: str | None = None,
        expected_champion: Expected = UNSET,
        force: bool = False,
        said_by: str | None = None,
        key: str | None = None,
    ) -> Promotion:
        """Promote the version that was in production before the current version, or a named earlier version.

        From a forced version an operator may go back to the forced version before, up to its expiry.

        Raises:
            NotFound: no earlier version, or not the named version, was in production.
            NotAllowed, ConflictError, PromotionRefused, BundleCorrupt, RegistryUnavailable: as for `promote`.
        """
        tracing.annotate(model_id=model_id, version=to, force=force)
        authorise(actor, force, reason)
        request = ChangeRequest(actor, reason, now, said_by, key)
        with self.locked(model_id, request) as require_lock:
            if done := self._done_before(request):
                return done
            return self._roll_back(model_id, request, to, expected_champion, force, require_lock)

    def halt(
        self,
        model_id: str,
        actor: Actor,
        reason: str,
        now: datetime,
        expected_champion: Expected = UNSET,
        said_by: str | None = None,
        key: str | None = None,
    ) -> Promotion:
        """Take the production version out of production, and put no other in its place.

        Raises:
            NotFound: no version is in production.
            NotAllowed: the actor's role does not permit the change, or the reason is missing.
            ConflictError: another version is in production than the caller saw.
            RegistryUnavailable: MLflow failed on the way; `reconcile` ends the change.
        """
        authorise(actor, False, reason)
        if not reason.strip():
            raise NotAllowed("A halt needs a reason for the audit and for the people it pages: add --reason.")
        request = ChangeRequest(actor, reason, now, said_by, key)
        with self.locked(model_id, request) as require_lock:
            if done := self._done_before(request):
                return done
            champion = self._champion(model_id, expected_champion)
            if champion is None:
                raise NotFound(f"No version of {model_id} is in production: there is nothing to halt.")
            change = request.change(model_id, PromotionKind.HALT, champion, None)
            return self._carry_out(change, None, expected_champion, require_lock, request.key)

    def rollback_refusals(self, target: ModelVersion) -> tuple[str, ...]:
        """Reasons why a rollback to a version would be refused, beside its files; empty: none."""
        evidence = self._evidence(target)
        refusals = (
            *integrity_refusals(self._store.job_status(target)),
            *gate_refusals(target, evidence, (ModelStatus.RETIRED,), must_have_passed=True),
        )
        if not self._holds(target):
            return (*refusals, "the version was deleted in MLflow")
        return (*refusals, *self._problems_of_bundle(target))

    def end_expired(self, model_id: str, actor: Actor, now: datetime) -> Promotion | None:
        """Roll back an expired forced promotion; None if no forced promotion of the model has expired.

        Raises:
            NotFound, NotAllowed, PromotionRefused, BundleCorrupt, RegistryUnavailable: as for `rollback`.
        """
        authorise(actor, False, "")
        reason = f"a forced promotion expired at {now:%Y-%m-%d %H:%M} UTC or before"
        request = ChangeRequest(actor, reason, now)
        with self.locked(model_id, request) as require_lock:
            # the promotion may have been confirmed or replaced during the wait for the lock
            if all(forced.model_id != model_id for forced in self._store.expired_forced(now)):
                return None
            return self._roll_back(model_id, request, None, UNSET, False, require_lock)

    def confirm(self, model_id: str, days: int, actor: Actor, reason: str, now: datetime) -> Promotion:
        """Let a forced promotion stand for some days from now; the promotion still counts as forced.

        Raises:
            NotAllowed: the actor is no admin, or gives no reason.
            NotFound: the production version was not forced.
        """
        authorise(actor, True, reason)
        with self.locked(model_id, ChangeRequest(actor, reason, now)):
            history = self._store.committed(model_id)
            if not history or not history[-1].forced:
                raise NotFound(
                    f"The production version of {model_id} was not forced: there is nothing to confirm."
                )
            return self._store.confirm(history[-1], now + timedelta(days=days), actor, reason, now)

    def retire(self, model_id: str, label: str, actor: Actor, reason: str, now: datetime) -> ModelVersion:
        """Retire a version that is not in production.

        Raises:
            NotAllowed: the actor's role does not permit the change.
            IllegalTransition: the version is in production, failed, or was never judged.
        """
        authorise(actor, False, reason)
        with self.locked(model_id, ChangeRequest(actor, reason, now)):
            version = self.ledger.version(model_id, label)
            if version.status is not ModelStatus.RETIRED:
                self._store.retire(version, actor, reason, now)
            self._show(version, ModelStatus.RETIRED, f"retired by {actor.name}: {reason}", now)
            return self.ledger.version(model_id, label)

    def reconcile(
        self, model_id: str, actor: Actor, now: datetime, adopt: bool = False, reason: str = ""
    ) -> list[Promotion]:
        """Finish or abort interrupted promotions, and answer an alias that was moved by hand.

        Args:
            adopt: an admin lets a moved alias stand; otherwise the alias is put back.

        Returns:
            Recorded changes, oldest first; empty when ledger and alias agree.

        Raises:
            NotAllowed: the actor's role does not permit the change.
            PromotionRefused: the version behind the moved alias cannot be adopted.
        """
        authorise(actor, adopt, reason)
        with self._store.lock(model_id):
            return self._reconcile(model_id, ChangeRequest(actor, reason, now), adopt)

    def unsettled(self) -> list[str]:
        """Models with an unfinished change, or with an alias that differs from the ledger, in few requests.

        A promotion that moves the alias meanwhile makes its model appear; `reconcile` waits for the lock of
        the promotion, and then finds nothing to do.
        """
        if not self._store.models():
            # neither MLflow nor its client is needed
            return []
        recorded = self._store.champion_numbers()
        aliased = self.registry.aliased_by_model(PRODUCTION)
        under_way = self._store.models_under_way()
        return [
            model_id
            for model_id in self._store.models()
            if model_id in under_way or aliased.get(model_id) != recorded.get(model_id)
        ]

    @property
    def _store(self) -> PromotionStore:
        return self.ledger.promotions

    def return_to_production(
        self, target: ModelVersion, request: ChangeRequest, require_lock: Callable[[], None]
    ) -> Promotion:
        """Put a lost production version, registered again, back into production; the model is locked.

        A forced promotion stays forced, with the former expiry.

        Raises:
            NotAllowed, PromotionRefused, BundleCorrupt, RegistryUnavailable: as for `promote`.
        """
        promoted = [
            change for change in self._store.committed(target.model_id) if change.to_version == target.version
        ][-1]
        authorise(request.actor, promoted.forced, request.reason)
        self._check(target, None, (ModelStatus.RETIRED,), promoted.forced, request)
        change = request.change(target.model_id, PromotionKind.RESTORATION, None, target.version)
        expiry = {"forced": promoted.forced, "expires_at": promoted.expires_at}
        return self._carry_out(change.model_copy(update=expiry), target, UNSET, require_lock)

    @contextlib.contextmanager
    def locked(self, model_id: str, request: ChangeRequest) -> Iterator[Callable[[], None]]:
        """Lock a model for the block, after the end of interrupted promotions; see `PromotionStore.lock`."""
        with self._store.lock(model_id) as require_lock:
            self._reconcile(model_id, request, adopt=False)
            yield require_lock

    def _done_before(self, request: ChangeRequest) -> Promotion | None:
        """Change committed for the same request, which was interrupted before its reply."""
        return None if request.key is None else self._store.of_request(request.key, request.at - KEPT_FOR)

    def _champion(self, model_id: str, expected: Expected) -> str | None:
        champion = self._store.champion(model_id)
        if expected is not UNSET and expected != champion:
            raise ConflictError(
                f"{champion or 'No version'} serves {model_id} now, not {expected or 'none'} as expected: "
                "check the production version, then repeat the request."
            )
        return champion

    def verify(self, version: ModelVersion, actor: Actor, now: datetime, once: bool = False) -> None:
        """Compare MLflow's files of a version with the registered files and record a difference.

        Args:
            once: record a lasting difference once instead of at every call.

        Raises:
            BundleCorrupt: the files differ.
            RegistryUnavailable: the files cannot be read.
        """
        with self._recording_refusals(version, actor, now, once):
            self.registry.verify(
                version.model_id, version.mlflow_version, version.bundle_digest, version.package_digest
            )
        self._store.trust_bundle(version, now)

    def verify_listing(self, version: ModelVersion, actor: Actor, now: datetime) -> None:
        """Part of `verify` without file access, for repeated calls.

        Raises:
            BundleCorrupt, RegistryUnavailable: as for `verify`.
        """
        with self._recording_refusals(version, actor, now, once=True):
            self.registry.verify_listing(version.model_id, version.mlflow_version, version.package_digest)

    @contextlib.contextmanager
    def _recording_refusals(
        self, version: ModelVersion, actor: Actor, now: datetime, once: bool
    ) -> Iterator[None]:
        try:
            yield
        except BundleCorrupt as error:
            self._store.refuse_bundle(version, actor, str(error), now, once)
            raise

    def _check(
        self,
        target: ModelVersion,
        champion: str | None,
        allowed: Sequence[ModelStatus],
        force: bool,
        request: ChangeRequest,
        judge: Judge | None = None,
    ) -> bool:
        """True if the promotion overrides the gate; refuses a version that may not serve.

        Args:
            judge: judge of new evidence; None for a version that was in production before, or is there.
        """
        model_id = target.model_id
        label = target.version
        if label == champion:
            raise PromotionRefused(
                model_id, label, ["the version is in production already"], "Nothing is to be done."
            )
        unfit = integrity_refusals(self._store.job_status(target))
        if unfit:
            raise PromotionRefused(model_id, label, unfit, "Wait for the job to complete, or retrain.")
        removed = self.ledger.removed_files.of(model_id, label)
        if removed is not None:
            raise PromotionRefused(model_id, label, [removed.sentence], "Retrain with the same parameters.")
        evidence = self._evidence(target)
        advice = "Retrain, or ask an admin to force the promotion and to give a reason."
        refusals = gate_refusals(target, evidence, allowed, must_have_passed=judge is None)
        if refusals and not force:
            raise PromotionRefused(model_id, label, refusals, advice)
        if not self._holds(target):
            raise RegistryUnavailable(
                f"MLflow could not read {label}: the version was deleted there. Put the version back with "
                f"`clm restore-version {model_id} {label}`, then repeat the command."
            )
        # before the judge, who reads the files too
        self.verify(target, request.actor, request.at)
        if judge is not None and not refusals:
            judged = judge(target)
            self._store.record_rejudgement(target, judged, request.actor, request.at)
            refusals = judged.refusals
            if refusals and not force:
                raise PromotionRefused(model_id, label, refusals, advice)
        unsound = self._problems_of_bundle(target)
        if unsound and not force:
            raise PromotionRefused(model_id, label, unsound, advice)
        return bool(refusals or unsound)

    def _evidence(self, target: ModelVersion) -> Evidence | None:
        """Newest evidence of a version; a promotion that was not forced judged the version anew, and passed.

        The recorded verdict of a version promoted after its shadow stays INCONCLUSIVE.
        """
        evidence = self._store.evidence(target.model_id, target.version)
        if evidence is None or evidence.passed:
            return evidence
        passed = any(
            change.kind is PromotionKind.PROMOTION and not change.forced
            for change in self._store.committed(target.model_id)
            if change.to_version == target.version
        )
        return evidence.model_copy(update={"passed": passed})

    def _problems_of_bundle(self, target: ModelVersion) -> tuple[str, ...]:
        """Reasons against the registered model, whatever its folds did: one side, or no skill."""
        from clm_core.registry.bundle_checks import checks_of

        with self.registry.fetched(target.model_path) as bundle:
            return checks_of(bundle).problems

    def _roll_back(
        self,
        model_id: str,
        request: ChangeRequest,
        to: str | None,
        expected: Expected,
        force: bool,
        require_lock: Callable[[], None],
    ) -> Promotion:
        champion = self._champion(model_id, expected)
        history = self._store.committed(model_id)
        label = _rollback_label(model_id, history, to)
        target = self.ledger.version(model_id, label)
        override = None if force else standing_override(history, label, request.at)
        overrules = force or override is not None
        forced = self._check(target, champion, (ModelStatus.RETIRED,), overrules, request)
        change = request.change(model_id, PromotionKind.ROLLBACK, champion, label, forced)
        if forced and override is not None:
            reason = change.reason.strip() or f"back to {label}, forced until {override:%Y-%m-%d %H:%M} UTC"
            change = change.model_copy(update={"expires_at": override, "reason": reason})
        return self._carry_out(change, target, expected, require_lock, request.key)

    def _carry_out(
        self,
        change: Change,
        target: ModelVersion | None,
        expected: Expected,
        require_lock: Callable[[], None],
        key: str | None = None,
    ) -> Promotion:
        """Record the intent and move the alias to the target; None removes the alias."""
        planned = change.model_copy(update={"expected": expected is not UNSET})
        intent = self._store.intend(planned, key)
        crash_at(Fault.AFTER_INTENT, self.fault)
        # without the lock another process may be changing the alias at this moment
        require_lock()
        self.registry.point(change.model_id, PRODUCTION, None if target is None else target.mlflow_version)
        crash_at(Fault.AFTER_ALIAS, self.fault)
        return self._finish(intent, change.at)

    def _finish(self, intent: Promotion, now: datetime) -> Promotion:
        """Everything after the alias has moved."""
        self._display(intent)
        done = self._store.commit(intent, now, self.fault)
        crash_at(Fault.AFTER_COMMIT, self.fault)
        return done

    def _display(self, change: Change) -> None:
        """Update aliases and tags in MLflow to the new state."""
        before = self._version(change.model_id, change.from_version)
        if before is not None and self._holds(before):
            self.registry.point(change.model_id, PREVIOUS, before.mlflow_version)
        crash_at(Fault.AFTER_PREVIOUS, self.fault)
        replaced = f"replaced by {change.to_version}"
        halted = f"halted by {change.actor}: {change.reason}"
        ended = replaced if change.to_version is not None else halted
        self._show(before, ModelStatus.RETIRED, ended, change.at)
        after = self._version(change.model_id, change.to_version)
        self._show(
            after, ModelStatus.PRODUCTION, f"{change.kind} by {change.actor}: {change.reason}", change.at
        )
        crash_at(Fault.AFTER_TAGS, self.fault)

    def _show(self, version: ModelVersion | None, status: ModelStatus, reason: str, at: datetime) -> None:
        if version is not None and self._holds(version):
            self.registry.set_status(version.model_id, version.mlflow_version, status, reason, at)

    def _holds(self, version: ModelVersion) -> bool:
        return self.registry.holds(version.model_id, version.mlflow_version, version.mlflow_run_id)

    def _version(self, model_id: str, label: str | None) -> ModelVersion | None:
        return None if label is None else self.ledger.version(model_id, label)

    def _reconcile(self, model_id: str, request: ChangeRequest, adopt: bool) -> list[Promotion]:
        aliased_number = self.registry.aliased(model_id, PRODUCTION)
        change = self._store.under_way(model_id)
        if change is None or change.state is PromotionState.ALIAS_MOVED:
            return self._answer_alias_move(model_id, change, aliased_number, request, adopt)
        ended = self._end(change, aliased_number, request.at)
        return [ended, *self._answer_alias_move(model_id, None, aliased_number, request, adopt)]

    def _end(self, intent: Promotion, aliased_number: int | None, now: datetime) -> Promotion:
        """Finish the interrupted promotion if the alias had moved, else abort the promotion."""
        target = self._version(intent.model_id, intent.to_version)
        planned_number = None if target is None else target.mlflow_version
        if aliased_number == planned_number:
            return self._finish(intent, now)
        aborted = self._store.abort(intent, "interrupted before the alias moved", now)
        # the alias may have been moved back by hand after the tags were set
        for label in (intent.from_version, intent.to_version):
            version = self._version(intent.model_id, label)
            if version is not None:
                self._show(version, version.status, f"{intent.kind} {intent.id} was aborted", now)
        return aborted

    def _answer_alias_move(
        self,
        model_id: str,
        alias_move: Promotion | None,
        aliased_number: int | None,
        request: ChangeRequest,
        adopt: bool,
    ) -> list[Promotion]:
        """Put a moved alias back, or adopt the move; does nothing when the alias agrees with the record."""
        champion = self._version(model_id, self._store.champion(model_id))
        recorded_number = None if champion is None else champion.mlflow_version
        if aliased_number == recorded_number:
            return [] if alias_move is None else [self._store.restore(alias_move, request.at)]
        aliased = self._version_by_number(model_id, aliased_number)
        if alias_move is None:
            alias_move = self._store.record_alias_move(
                _alias_move(model_id, champion, aliased, aliased_number, request)
            )
            crash_at(Fault.AFTER_ALIAS_MOVED, self.fault)
        if adopt:
            return [self._adopt(alias_move, aliased, request)]
        if champion is not None and not self._holds(champion):
            return [self._record_loss(alias_move, champion, aliased_number, request)]
        self.registry.point(model_id, PRODUCTION, recorded_number)
        crash_at(Fault.AFTER_RESTORE, self.fault)
        return [self._store.restore(alias_move, request.at)]

    def _version_by_number(self, model_id: str, number: int | None) -> ModelVersion | None:
        if number is None:
            return None
        versions = self.ledger.versions(model_id=model_id, mlflow_version=number)
        return versions[0] if versions else None

    def _adopt(
        self, alias_move: Promotion, aliased: ModelVersion | None, request: ChangeRequest
    ) -> Promotion:
        model_id = alias_move.model_id
        champion = self._store.champion(model_id)
        if aliased is None:
            reasons = ["the version is not in the ledger"]
            raise PromotionRefused(
                model_id,
                "at the alias",
                reasons,
                "Put the alias back with `clm reconcile`, then promote a version.",
            )
        forced = self._check(aliased, champion, (*PROMOTABLE, ModelStatus.RETIRED), True, request)
        change = request.change(model_id, PromotionKind.ADOPTION, champion, aliased.version, forced)
        self._display(change)
        return self._store.accept(alias_move, change, request.at)

    def _record_loss(
        self,
        alias_move: Promotion,
        champion: ModelVersion,
        aliased_number: int | None,
        request: ChangeRequest,
    ) -> Promotion:
        """Record the deletion of the production version: none is in production until a person decides."""
        if aliased_number is not None:
            self.registry.point(alias_move.model_id, PRODUCTION, None)
        change = request.change(alias_move.model_id, PromotionKind.LOSS, champion.version, None)
        return self._store.accept(alias_move, change, request.at)


def _rollback_label(model_id: str, history: Sequence[Promotion], to: str | None) -> str:
    if to is None:
        before = rollback_target(history)
        if before is None:
            raise NotFound(
                f"No earlier version of {model_id} was in production: there is nothing to roll back to."
            )
        return before
    served = {change.to_version for change in history}
    if to not in served:
        raise NotFound(
            f"{to} was never in production for {model_id}: `clm promote` promotes a version that passed."
        )
    return to


def _alias_move(
    model_id: str,
    champion: ModelVersion | None,
    aliased: ModelVersion | None,
    aliased_number: int | None,
    request: ChangeRequest,
) -> Change:
    position = "was removed" if aliased_number is None else f"pointed at MLflow version {aliased_number}"
    return ChangeRequest(request.actor, f"the alias {PRODUCTION} {position}", request.at).change(
        model_id,
        PromotionKind.ALIAS_MOVED,
        champion.version if champion else None,
        aliased.version if aliased else None,
    )
