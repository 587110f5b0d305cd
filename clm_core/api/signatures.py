"""Standard Webhooks: who shares a secret with us signs id, time and body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request

from clm_core.api.context import Connected
from clm_core.domain.errors import NotAuthenticated
from clm_core.settings import signing_key

TOLERANCE = timedelta(seconds=300)
"""How far the sender's clock may be from ours, and how long a message may be under way."""


@dataclass(frozen=True)
class Signed:
    """A message as its sender signed it."""

    id: str
    timestamp: str
    """Seconds since 1970, in digits."""
    body: bytes
    signatures: tuple[str, ...]

    def is_fresh(self, now: datetime) -> bool:
        if not re.fullmatch(r"[0-9]{1,12}", self.timestamp, re.ASCII):
            return False
        return abs(now.timestamp() - int(self.timestamp)) <= TOLERANCE.total_seconds()

    def is_signed_with(self, keys: Sequence[bytes]) -> bool:
        expected = [sign(key, self.id, self.timestamp, self.body) for key in keys]
        # all of them, so that the time taken tells nothing
        agreeing = [
            hmac.compare_digest(own.encode(), given.encode(errors="replace"))
            for own in expected
            for given in self.signatures
        ]
        return any(agreeing)


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA-256 of id, time and body, in base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


async def _raw(request: Request) -> bytes:
    return await request.body()


def verified(source: str, request: Request, body: Annotated[bytes, Depends(_raw)], clm: Connected) -> Signed:
    """The message, from whom it claims to be.

    Raises:
        NotAuthenticated: it isn't; what is wrong with it is not told.
    """
    message = _message(request, body)
    known = clm.settings.webhooks.get(source)
    keys = [signing_key(secret) for secret in known.secrets] if known else []
    if not (message and message.is_fresh(clm.clock()) and message.is_signed_with(keys)):
        raise NotAuthenticated(
            "The signature is not valid: sign webhook-id, webhook-timestamp (now, within 300 s) and the body "
            "as Standard Webhooks says, with the secret of this source, in webhook-signature."
        )
    return message


Verified = Annotated[Signed, Depends(verified)]


def _message(request: Request, body: bytes) -> Signed | None:
    """None: a header is missing, is there twice, or is no id at all."""
    named = [request.headers.getlist(f"webhook-{name}") for name in ("id", "timestamp", "signature")]
    if any(len(values) != 1 for values in named):
        return None
    [message_id], [timestamp], [signatures] = named
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", message_id):
        return None
    return Signed(message_id, timestamp, body, tuple(signatures.split(" ")))
