"""Requests to retrain with the answers, and messages set aside without an answer."""

from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime, BaseModel

from clm_core.api.context import Connected
from clm_core.api.parameters import Limit, ModelId, Number
from clm_core.domain.listings import Page
from clm_core.domain.triggers import Answer, Reply


class UnansweredMessage(BaseModel):
    """A message set aside; the body stays in the ledger."""

    source: str
    message_id: str
    received_at: AwareDatetime
    error: str
    """Reason for setting the message aside."""


def list_triggers(
    clm: Connected,
    model_id: Annotated[ModelId | None, Query(description="Only requests for this model.")] = None,
    reply: Annotated[Reply | None, Query(description="Only requests with this answer.")] = None,
    limit: Limit = 50,
    after: Number | None = None,
) -> Page[Answer]:
    """Requests to retrain and the answers of the intake, newest first."""
    answers = clm.ledger.triggers.answers(model_id=model_id, reply=reply, before=after, limit=limit)
    following = str(answers[-1].number) if len(answers) == limit else None
    return Page(items=tuple(answers), next=following)


def list_set_aside(clm: Connected, limit: Limit = 50) -> list[UnansweredMessage]:
    """Messages set aside without an answer, with the reason, newest first."""
    messages = clm.ledger.triggers.messages(set_aside=True, limit=limit)
    return [
        UnansweredMessage(
            source=each.source,
            message_id=each.message_id,
            received_at=each.received_at,
            error=each.error or "",
        )
        for each in messages
    ]
