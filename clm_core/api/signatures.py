"""Signatures of webhooks: Standard Webhooks, GitHub and MLflow.

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
from clm_core.domain.webhook_settings import SigningStyle, WebhookSource

TOLERANCE = timedelta(seconds=300)
"""Maximum age of a message, and maximum clock difference to the sender."""


@dataclass(frozen=True)
class SignedMessage:
    """Message with the signatures of its sender."""

    id: str
    timestamp: str | None
    """Unix time in digits; None where the style signs no time."""
    body: bytes
    signatures: tuple[str, ...]
    sign: Callable[[bytes], str]
    """Signature of the message with a key."""

    def is_fresh(self, now: datetime) -> bool:
        if self.timestamp is None:
            return True
        if not re.fullmatch(r"[0-9]{1,12}", self.timestamp, re.ASCII):
            return False
        return abs(now.timestamp() - int(self.timestamp)) <= TOLERANCE.total_seconds()

    def is_signed_with(self, keys: Sequence[bytes]) -> bool:
        expected = [self.sign(key) for key in keys]
        # compare all of them: the time taken reveals nothing
        matches = [
            hmac.compare_digest(own.encode(), given.encode(errors="replace"))
            for own in expected
            for given in self.signatures
        ]
        return any(matches)


def signed_with_time(
    message_id: str, timestamp: str, body: bytes, signatures: tuple[str, ...]
) -> SignedMessage:
    """Message signed over id, time and body."""
    return SignedMessage(
        message_id, timestamp, body, signatures, lambda key: sign(key, message_id, timestamp, body)
    )


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA-256 of id, time and body, in base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(_mac(key, signed)).decode()}"


async def _raw(request: Request) -> bytes:
    return await request.body()


def verified(
    source: str, request: Request, body: Annotated[bytes, Depends(_raw)], clm: Connected
) -> SignedMessage:
    """Message with a valid signature of the source.

    Raises:
        NotAuthenticated: the signature is not valid; the reason is not revealed.
        SecretUnavailable: the server of secrets does not give a secret of the source.
    """
    sender = clm.settings.webhooks.get(source)
    message = sender and READERS[sender.style](request, body)
    if not (sender and message and message.is_fresh(clm.clock()) and _is_signed(message, sender)):
        raise NotAuthenticated(
            "The signature is not valid: sign webhook-id, webhook-timestamp (now, within 300 s) and the body "
            "with the secret of the source in webhook-signature, as in Standard Webhooks; or as GitHub or "
            "MLflow do, where the settings give the source that style."
        )
    return message


def _is_signed(message: SignedMessage, sender: WebhookSource) -> bool:
    """True for a signature by one of the keys, which a rotation may just have changed."""
    if message.is_signed_with(sender.keys):
        return True
    return sender.read_again() and message.is_signed_with(sender.keys)


Verified = Annotated[SignedMessage, Depends(verified)]


def standard_webhooks(request: Request, body: bytes) -> SignedMessage | None:
    """Message of a sender in the style; None, as below, for a missing, repeated or invalid header.

    Svix sends the same headers under names of its own.
    """
    prefix = "webhook" if "webhook-id" in request.headers else "svix"
    headers = _single_headers(request, f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature")
    if headers is None or not _is_id(headers[0]):
        return None
    message_id, timestamp, signatures = headers
    return signed_with_time(message_id, timestamp, body, tuple(signatures.split(" ")))


def mlflow(request: Request, body: bytes) -> SignedMessage | None:
    headers = _single_headers(request, "x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature")
    if headers is None or not _is_id(headers[0]):
        return None
    message_id, timestamp, signature = headers
    return signed_with_time(message_id, timestamp, body, (signature,))


def github(request: Request, body: bytes) -> SignedMessage | None:
    """Message with the hash of the body as id.

    GitHub signs neither delivery id nor time: an intercepted message could be replayed under new ids, so
    the same body counts as the same message.
    """
    headers = _single_headers(request, "x-hub-signature-256")
    if headers is None:
        return None
    message_id = hashlib.sha256(body).hexdigest()
    return SignedMessage(
        message_id, None, body, tuple(headers), lambda key: f"sha256={_mac(key, body).hex()}"
    )


READERS: dict[SigningStyle, Callable[[Request, bytes], SignedMessage | None]] = {
    SigningStyle.STANDARD_WEBHOOKS: standard_webhooks,
    SigningStyle.GITHUB: github,
    SigningStyle.MLFLOW: mlflow,
}


def _single_headers(request: Request, *names: str) -> list[str] | None:
    values = [request.headers.getlist(name) for name in names]
    return [value for [value] in values] if all(len(each) == 1 for each in values) else None


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]{1,200}", text) is not None


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()
