"""Changes of the production version: records, permissions and the order of rollbacks."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from clm_core.domain.actors import AUTOMATIC, Actor
from clm_core.domain.errors import NotAllowed
from clm_core.domain.evaluations import Decision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, Role

FORCED_FOR = timedelta(days=7)
"""Validity of a forced promotion until an admin has to confirm or replace the version."""

EXPIRY = "max_serving_days"
"""Word in the reason of a halt for the age of a version alone."""

OLD_ALIAS_MOVED = "drift"
"""Value of `ALIAS_MOVED` up to ledger revision 0014; still accepted for one release."""


class Unset(Enum):
    UNSET = "unset"


UNSET = Unset.UNSET
"""The caller states no expected champion; None states that no version was in production."""
Expected = str | None | Unset


class PromotionKind(StrEnum):
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    ADOPTION = "adoption"
    """An alias moved by hand, accepted by an admin."""
    LOSS = "loss"
    """The production version was deleted in MLflow: none serves until the next promotion or rollback."""
    HALT = "halt"
    """Nothing serves until the next promotion or rollback: by a person, or by the protection."""
    RESTORATION = "restoration"
    """A lost production version, registered again and in production again."""
    ALIAS_MOVED = "alias_moved"
    """An alias moved by hand: `to_version` is the version found at the alias."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls.ALIAS_MOVED if value == OLD_ALIAS_MOVED else None


class PromotionState(StrEnum):
    INTENT = "intent"
    COMMITTED = "committed"
    ABORTED = "aborted"
    ALIAS_MOVED = "alias_moved"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls.ALIAS_MOVED if value == OLD_ALIAS_MOVED else None


class Change(BaseModel):
    """A requested change of the production version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    kind: PromotionKind
    from_version: str | None
    """Production version before the change; None: no version."""
    to_version: str | None
    """Production version after the change; None: no version, or a version unknown to the ledger."""
    expected: bool = False
    """True if the caller stated `from_version` as the expected champion."""
    actor: str
    role: Role
    reason: str
    forced: bool = False
    """An admin overruled the gate."""
    expires_at: datetime | None = None
    """End of the validity of a forced change."""
    at: datetime
    said_by: str | None = None
    """Requester named by the caller; `actor` is the authenticated caller."""

    @property
    def by(self) -> Actor:
        return Actor(name=self.actor, role=self.role)


class Promotion(Change):
    """A recorded change of the production version, from the intent to the end."""

    id: int
    """Grows with time."""
    state: PromotionState
    confirmations: int = 0
    """Number of times an admin prolonged a forced change."""
    finished_at: datetime | None
    """None while under way: an intent without an outcome, or an alias not yet put back."""


class Evidence(BaseModel):
    """Outcome of a version's newest evaluation."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    bundle_digest: str
    """SHA-256 of the judged bundle's manifest, hexadecimal."""


class Rejudgement(BaseModel):
    """Stored evidence of a version, judged under the policy, costs and champion in force at a promotion."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True)

    evaluation: UUID
    """Evaluation whose evidence was judged."""
    evidence_digest: str | None
    """SHA-256 of the stored evidence, hexadecimal; None: recorded numbers of a release that stored none."""
    evidence_at: datetime
    """Time of the newest evidence: of the verdict, or of the newest shadow bar recorded in time after it."""
    champion: str | None
    """Version in production at the time."""
    decision: Decision | None
    """None if the evidence could not be judged."""
    refusals: tuple[str, ...]
    """Reasons against the promotion, each with the name of the check or the remedy; empty: none."""
    policy: str
    policy_hash: str
    terms_digest: str | None
    """SHA-256 of the terms of the judgement, hexadecimal; None if the evidence could not be judged."""
    costs: str
    """Costs of the judgement as a clause."""


Judge = Callable[[ModelVersion], Rejudgement]
"""Function that judges the stored evidence of a version anew."""


def halted(history: Sequence[Promotion]) -> Promotion | None:
    """Halt in force, if the newest committed change is one.

    Args:
        history: committed changes of a model, oldest first.
    """
    return history[-1] if history and history[-1].kind is PromotionKind.HALT else None


def authorise(actor: Actor, force: bool, reason: str) -> None:
    """Check the role: operators change, and only an admin with a reason overrules the gate or an alias.

    Raises:
        NotAllowed: the role does not permit the change, or the reason is missing.
    """
    if not actor.role.includes(Role.OPERATOR):
        raise NotAllowed(
            f"{actor.name} is a {actor.role} and may not change anything: ask an operator or an admin."
        )
    if force and actor.role is not Role.ADMIN:
        raise NotAllowed(
            f"{actor.name} is an {actor.role}: only an admin may overrule the gate. Ask an admin."
        )
    if force and not reason.strip():
        raise NotAllowed("Overruling the gate needs a reason for the audit: add --reason.")


def integrity_refusals(job: JobStatus) -> tuple[str, ...]:
    """Reasons that no admin can overrule against a version in production; empty: none."""
    # until the job ends it may still turn the version FAILED
    return () if job is JobStatus.COMPLETED else (f"the training job is {job}, not completed",)


def gate_refusals(
    version: ModelVersion, evidence: Evidence | None, allowed: Sequence[ModelStatus], must_have_passed: bool
) -> tuple[str, ...]:
    """Reasons against a version in production that only an admin can overrule; empty: none.

    Args:
        must_have_passed: False for a promotion, which judges the stored evidence anew.
    """
    refusals = []
    if version.status not in allowed:
        refusals.append(f"the status is {version.status}, not {' or '.join(allowed)}")
    if evidence is None:
        refusals.append("the version was never judged")
    elif not evidence.passed and (must_have_passed or refusals):
        refusals.append("the version did not pass the gate")
    elif evidence.bundle_digest != version.bundle_digest:
        refusals.append("the gate judged a different bundle")
    return tuple(refusals)


def line_of_champions(history: Sequence[Promotion]) -> list[str]:
    """Versions in the order of successive rollbacks, the current production version last.

    A rollback removes the versions after its target: after A, B, C and a rollback to B, the next rollback
    leads to A.

    Args:
        history: committed changes of a model, oldest first.
    """
    line: list[str] = []
    for change in history:
        if change.to_version is None:
            line.pop()
            continue
        if change.kind is PromotionKind.ROLLBACK and change.to_version in line:
            while line[-1] != change.to_version:
                line.pop()
        else:
            line.append(change.to_version)
    return line


def standing_override(history: Sequence[Promotion], target: str, now: datetime) -> datetime | None:
    """Expiry of the override under which the version before the present version served.

    An admin has admitted both versions against the gate, so an operator may go back to the former.

    Args:
        history: committed changes of a model, oldest first.
        target: version to go back to.

    Returns:
        The expiry; None if either version was not forced, the override has expired, or the target is another
        version than the version before.
    """
    if not history or not history[-1].forced or target != rollback_target(history):
        return None
    served = [change for change in history if change.to_version == target][-1]
    if not served.forced or served.expires_at is None or not now < served.expires_at:
        return None
    return served.expires_at


def rollback_target(history: Sequence[Promotion]) -> str | None:
    """Target of the next rollback; None if no earlier version was in production."""
    if not history:
        return None
    line = line_of_champions(history)
    before = line if history[-1].to_version is None else line[:-1]
    return before[-1] if before else None


@dataclass(frozen=True)
class Succession:
    """Versions of a recipe in production one after the other, by refreshes alone."""

    versions: tuple[str, ...]
    """At least two, the present production version last."""
    begun: tuple[datetime, ...]
    """Time of the promotion of each version."""
    before: str | None
    """Version in production before the first, the target of a rollback from the first, if any."""

    @property
    def since(self) -> datetime:
        """Time of the first promotion."""
        return self.begun[0]


def is_automatic_refresh(change: Promotion) -> bool:
    """True for a promotion without a person, over a version in production."""
    automatic = change.kind is PromotionKind.PROMOTION and change.by in AUTOMATIC
    return automatic and change.from_version is not None


def succession(history: Sequence[Promotion], of_recipe: Collection[str]) -> Succession | None:
    """The versions that led to the present production version by refreshes; None without a refresh.

    A person's decision, a rollback, a halt and another recipe begin anew.

    Args:
        history: committed changes of a model, oldest first.
        of_recipe: labels of the versions with the recipe of the production version.
    """
    first = len(history) - 1
    while first >= 0 and is_automatic_refresh(history[first]):
        if not {history[first].from_version, history[first].to_version} <= {*of_recipe}:
            break
        first -= 1
    refreshes = history[first + 1 :]
    if first < 0 or not refreshes:
        return None
    versions = (refreshes[0].from_version, *(each.to_version for each in refreshes))
    return Succession(
        versions=tuple(each for each in versions if each is not None),
        begun=tuple(each.at for each in history[first:]),
        before=rollback_target(history[: first + 1]),
    )
