"""How what serves changes: the record of every change, and who and what may serve."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict

from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotAllowed
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, Role

FORCED_FOR = timedelta(days=7)
"""How long a forced promotion may stand before somebody has to look at it again."""

OLD_ALIAS_MOVED = "drift"
"""Value of `ALIAS_MOVED` up to ledger revision 0014; still accepted for one release."""


class Unset(Enum):
    UNSET = "unset"


UNSET = Unset.UNSET
"""The caller does not say which version it saw serving; None says that it saw none."""
Expected = str | None | Unset


class PromotionKind(StrEnum):
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    ADOPTION = "adoption"
    """An alias moved by hand that an admin let stand."""
    LOSS = "loss"
    """The serving version was deleted in MLflow: nothing serves until the next promotion or rollback."""
    ALIAS_MOVED = "alias_moved"
    """The alias was moved by hand: `to_version` is the version found at the alias."""

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
    """A change of what serves, as it is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    kind: PromotionKind
    from_version: str | None
    """What serves; None: nothing does."""
    to_version: str | None
    """What is to serve; None: nothing, or something the ledger does not know."""
    expected: bool = False
    """Whether the caller named `from_version` as the one it saw serving."""
    actor: str
    role: Role
    reason: str
    forced: bool = False
    """An admin overruled the gate."""
    expires_at: datetime | None = None
    """When somebody has to look at a forced one again."""
    at: datetime
    said_by: str | None = None
    """Who wanted it in the caller's own words; who the caller is, `actor` says."""

    @property
    def by(self) -> Actor:
        return Actor(name=self.actor, role=self.role)


class Promotion(Change):
    """A recorded change of what serves, from the intent to its end."""

    id: int
    """Grows with time."""
    state: PromotionState
    confirmations: int = 0
    """How often an admin let a forced one stand for longer."""
    finished_at: datetime | None
    """None while it is under way: an intent without an outcome, or an alias not yet put back."""


class Evidence(BaseModel):
    """What the newest evaluation of a version says."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    bundle_digest: str
    """Of the very bundle that was judged."""


def authorise(actor: Actor, force: bool, reason: str) -> None:
    """Viewers change nothing; overruling the gate, or an alias, is an admin's and needs a reason.

    Raises:
        NotAllowed: says whom to ask.
    """
    if actor.role is Role.VIEWER:
        raise NotAllowed(f"{actor.name} is a viewer and changes nothing: ask an operator or an admin.")
    if force and actor.role is not Role.ADMIN:
        raise NotAllowed(f"{actor.name} is an {actor.role}: only an admin may overrule. Ask one.")
    if force and not reason.strip():
        raise NotAllowed("Overruling needs a reason that can be read later: give one with --reason.")


def integrity_refusals(job: JobStatus) -> tuple[str, ...]:
    """Why a version cannot serve, whoever asks."""
    # until the job ends it may still turn the version FAILED
    return () if job is JobStatus.COMPLETED else (f"its training job is {job}, not completed",)


def gate_refusals(
    version: ModelVersion, evidence: Evidence | None, allowed: Sequence[ModelStatus]
) -> tuple[str, ...]:
    """Why a version may not serve unless an admin overrules the gate; empty: it may."""
    refusals = []
    if version.status not in allowed:
        refusals.append(f"it is {version.status}, not {' or '.join(allowed)}")
    if evidence is None:
        refusals.append("it was never judged")
    elif not evidence.passed:
        refusals.append("it did not pass the gate")
    elif evidence.bundle_digest != version.bundle_digest:
        refusals.append("the bundle that passed the gate is not this version's")
    return tuple(refusals)


def line_of_champions(history: Sequence[Promotion]) -> list[str]:
    """Versions in the order a rollback goes back through, the latest last.

    Going back removes what it goes back over: after A, B, C and a rollback to B, the next one leads to A.

    Args:
        history: what was committed for one model, oldest first.
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


def rollback_target(history: Sequence[Promotion]) -> str | None:
    """The version that served before the current one; None: there is none to go back to."""
    if not history:
        return None
    line = line_of_champions(history)
    before = line if history[-1].to_version is None else line[:-1]
    return before[-1] if before else None
