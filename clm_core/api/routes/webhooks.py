"""Messages from monitors and other systems, signed."""

from clm_core.api.bodies import parse_json
from clm_core.api.context import Connected
from clm_core.api.signatures import Verified
from clm_core.domain.triggers import Receipt
from clm_core.triggers import inbox


def receive(source: str, message: Verified, clm: Connected) -> Receipt:
    """Keep a message signed as Standard Webhooks says; what comes of it is decided afterwards."""
    parse_json(message.body)
    return inbox.receive(clm, source, message.id, message.body, clm.clock())
