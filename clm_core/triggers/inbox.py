"""Messages from outside: kept first, answered later, each of them once."""

import hashlib
from datetime import datetime

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.triggers import Delivery, Receipt
from clm_core.services import Services


def receive(services: Services, source: str, message_id: str, body: bytes, now: datetime) -> Receipt:
    """Keep a message whose sender has been verified, for `drain` to answer.

    Delivered again, however much later, it is known and nothing more comes of it.

    Raises:
        AlreadyExists: the source has sent another body under this id.
    """
    body_hash = hashlib.sha256(body).hexdigest()
    is_new, received_at, known_hash = services.ledger.triggers.receive(
        source, message_id, body, body_hash, now
    )
    if known_hash != body_hash:
        raise AlreadyExists(
            f"{source} has sent another message under the id {message_id} at "
            f"{received_at:%Y-%m-%d %H:%M:%S} UTC: send this one under an id of its own."
        )
    return Receipt(
        delivery=Delivery.NEW if is_new else Delivery.KNOWN,
        source=source,
        message_id=message_id,
        received_at=received_at,
    )
