"""Messages from monitors and other systems, signed."""

from clm_core.api.bodies import parse_json
from clm_core.api.context import Connected, Drain
from clm_core.api.signatures import Verified
from clm_core.domain.triggers import MessageDelivery, Receipt
from clm_core.triggers import inbox


def receive(source: str, message: Verified, clm: Connected, drain: Drain) -> Receipt:
    """Keep a message signed as Standard Webhooks says; what comes of it is decided afterwards."""
    parse_json(message.body)
    receipt = inbox.receive(clm, source, message.id, message.body, clm.clock())
    if receipt.delivery is MessageDelivery.NEW:
        drain()
    return receipt
