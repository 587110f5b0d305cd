"""Approvals: promotions earned in shadow that wait for the answer of a person."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from clm_core.domain.shadow_decisions import RecordedDecision
from clm_core.domain.vocabulary import ModelStatus


class WaitingApproval(BaseModel):
    """A promotion that the shadow has earned, and that a person approves or refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    champion: str | None
    """Production version that the promotion replaces; None: no version serves."""
    reasons: tuple[str, ...]
    """Reasons of the shadow decision."""
    progress: str
    since: datetime
    """Time of the first decision to promote against this champion."""
    until: datetime
    """Time from which on the silence of all people counts as a refusal."""

    @property
    def label(self) -> str:
        return f"{self.model_id}@{self.version}"

    @property
    def question(self) -> str:
        """Text above the form, Markdown."""
        replaced = f"in place of {self.champion}" if self.champion else "where no version serves"
        reasons = "\n".join(f"- {reason}" for reason in (*self.reasons, self.progress))
        return (
            f"Promote **{self.label}** to production, {replaced}?\n\n{reasons}\n\n"
            f"`clm show {self.label}` has the evidence. Without an answer by {self.until:%Y-%m-%d %H:%M} UTC "
            "the promotion is refused and the version retired."
        )


class AnsweredApproval(BaseModel):
    """Result of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    approved: bool
    status: ModelStatus
    """Status of the version after the answer."""

    @property
    def sentence(self) -> str:
        answer = "approved" if self.approved else "refused"
        return f"{self.model_id}@{self.version} is {answer}, and its status is {self.status}."


def waiting_approval(
    history: Sequence[RecordedDecision], champion: str | None, days: float
) -> WaitingApproval | None:
    """Approval that a version waits for by the decisions on record; None: the version waits for none.

    Args:
        history: decisions on the version, oldest first.
        champion: production version now. A decision made beside another champion waits for nothing.
        days: days from the first decision until the refusal.
    """
    first = None
    for recorded in reversed(history):
        if not recorded.decision.needs_approval or recorded.champion != champion:
            break
        first = recorded
    if first is None:
        return None
    newest = history[-1]
    return WaitingApproval(
        model_id=newest.model_id,
        version=newest.version,
        champion=champion,
        reasons=newest.decision.reasons,
        progress=newest.decision.progress,
        since=first.at,
        until=first.at + timedelta(days=days),
    )
