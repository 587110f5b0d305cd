"""Signed messages of monitors and other systems."""

from fastapi import Request

from clm_core.api.context import Connected, Dispatch
from clm_core.api.signatures import Verified
from clm_core.api.webhook_bodies import message_body
from clm_core.domain.triggers import MessageDelivery, Receipt
from clm_core.domain.webhook_settings import SigningStyle
from clm_core.triggers import inbox
from clm_core.triggers.messages import is_foreign, parse


def receive(source: str, message: Verified, request: Request, clm: Connected, dispatch: Dispatch) -> Receipt:
    """Store a signed message (Standard Webhooks); the decision follows asynchronously."""
    style = clm.settings.webhooks[source].style
    body = message_body(request.headers, message.body, style)
    now = clm.clock()
    if (style is SigningStyle.GITHUB and is_foreign(body)) or parse(body) is None:
        return Receipt(
            delivery=MessageDelivery.IGNORED, source=source, message_id=message.id, received_at=now
        )
    receipt = inbox.receive(clm, source, message.id, body, now)
    if receipt.delivery is MessageDelivery.NEW:
        dispatch()
    return receipt
