"""Who shares a secret with us signs what it sends: as Standard Webhooks says, or as GitHub or MLflow does.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
https://mlflow.org/docs/latest/ml/webhooks/
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request

from clm_core.api.context import Connected
from clm_core.domain.errors import NotAuthenticated
from clm_core.settings import SigningStyle

TOLERANCE = timedelta(seconds=300)
"""How far the sender's clock may be from ours, and how long a message may be under way."""


@dataclass(frozen=True)
class Signed:
    """A message as its sender signed it."""

    id: str
    timestamp: str | None
    """Seconds since 1970, in digits; None: this style signs no time."""
    body: bytes
    signatures: tuple[str, ...]
    sign: Callable[[bytes], str]
    """What a key's signature would be."""

    def is_fresh(self, now: datetime) -> bool:
        if self.timestamp is None:
            return True
        if not re.fullmatch(r"[0-9]{1,12}", self.timestamp, re.ASCII):
            return False
        return abs(now.timestamp() - int(self.timestamp)) <= TOLERANCE.total_seconds()

    def is_signed_with(self, keys: Sequence[bytes]) -> bool:
        expected = [self.sign(key) for key in keys]
        # all of them, so that the time taken tells nothing
        agreeing = [
            hmac.compare_digest(own.encode(), given.encode(errors="replace"))
            for own in expected
            for given in self.signatures
        ]
        return any(agreeing)


def whole(message_id: str, timestamp: str, body: bytes, signatures: tuple[str, ...]) -> Signed:
    """Signed with id and time."""
    return Signed(message_id, timestamp, body, signatures, lambda key: sign(key, message_id, timestamp, body))


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA-256 of id, time and body, in base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(_mac(key, signed)).decode()}"


async def _raw(request: Request) -> bytes:
    return await request.body()


def verified(source: str, request: Request, body: Annotated[bytes, Depends(_raw)], clm: Connected) -> Signed:
    """The message, from whom it claims to be.

    Raises:
        NotAuthenticated: it isn't; what is wrong with it is not told.
    """
    known = clm.settings.webhooks.get(source)
    message = known and READERS[known.style](request, body)
    if not (known and message and message.is_fresh(clm.clock()) and message.is_signed_with(known.keys)):
        raise NotAuthenticated(
            "The signature is not valid: sign webhook-id, webhook-timestamp (now, within 300 s) and the body "
            "as Standard Webhooks says, with the secret of this source, in webhook-signature; or as GitHub "
            "or MLflow does, where the settings say that this source does."
        )
    return message


Verified = Annotated[Signed, Depends(verified)]


def standard_webhooks(request: Request, body: bytes) -> Signed | None:
    """None, here and below: a header is missing, is there twice, or is no id at all."""
    named = _once(request, "webhook-id", "webhook-timestamp", "webhook-signature")
    if named is None or not _is_id(named[0]):
        return None
    message_id, timestamp, signatures = named
    return whole(message_id, timestamp, body, tuple(signatures.split(" ")))


def mlflow(request: Request, body: bytes) -> Signed | None:
    named = _once(request, "x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature")
    if named is None or not _is_id(named[0]):
        return None
    message_id, timestamp, signature = named
    return whole(message_id, timestamp, body, (signature,))


def github(request: Request, body: bytes) -> Signed | None:
    """The id of a delivery and its time are not signed: whoever overheard a message could send it for ever
    under new ones. So its id is what its body says, and the same body is the same message.
    """
    named = _once(request, "x-hub-signature-256")
    if named is None:
        return None
    message_id = hashlib.sha256(body).hexdigest()
    return Signed(message_id, None, body, tuple(named), lambda key: f"sha256={_mac(key, body).hex()}")


READERS: dict[SigningStyle, Callable[[Request, bytes], Signed | None]] = {
    SigningStyle.STANDARD_WEBHOOKS: standard_webhooks,
    SigningStyle.GITHUB: github,
    SigningStyle.MLFLOW: mlflow,
}


def _once(request: Request, *names: str) -> list[str] | None:
    values = [request.headers.getlist(name) for name in names]
    return [value for [value] in values] if all(len(each) == 1 for each in values) else None


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]{1,200}", text) is not None


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()
