"""Signed messages of monitors and other systems."""

from clm_core.api.bodies import parse_json
from clm_core.api.context import Connected, Dispatch
from clm_core.api.signatures import Verified
from clm_core.domain.triggers import MessageDelivery, Receipt
from clm_core.triggers import inbox


def receive(source: str, message: Verified, clm: Connected, dispatch: Dispatch) -> Receipt:
    """Store a signed message (Standard Webhooks); the decision follows asynchronously."""
    parse_json(message.body)
    receipt = inbox.receive(clm, source, message.id, message.body, clm.clock())
    if receipt.delivery is MessageDelivery.NEW:
        dispatch()
    return receipt
