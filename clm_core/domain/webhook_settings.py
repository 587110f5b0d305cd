"""Settings of webhooks: senders whose messages are accepted, and receivers of events, with shared secrets."""

import re
from base64 import b64decode
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, SecretStr

from clm_core.domain.secret_references import Referable, SecretReference

MIN_SECRET_BYTES = 24
"""Minimum length of a secret for signing."""
MAX_SECRET_BYTES = 64


class SigningStyle(StrEnum):
    """Signature scheme of a webhook sender: always HMAC-SHA-256; signed content and headers differ."""

    STANDARD_WEBHOOKS = "standard-webhooks"
    GITHUB = "github"
    """Signs the body alone, in X-Hub-Signature-256."""
    MLFLOW = "mlflow"
    """Signs id, time and body, in headers X-MLflow-…"""


def signing_key(secret: SecretStr, style: SigningStyle = SigningStyle.STANDARD_WEBHOOKS) -> bytes:
    """Key bytes of a webhook secret: decoded from base64 for Standard Webhooks, else the text itself.

    Raises:
        ValueError: the secret is not base64, or too short to be safe.
    """
    if style is not SigningStyle.STANDARD_WEBHOOKS:
        key = secret.get_secret_value().encode()
        if len(key) < MIN_SECRET_BYTES:
            raise ValueError(f"must be at least {MIN_SECRET_BYTES} characters long")
        return key
    try:
        key = b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ValueError("must be base64, after whsec_") from error
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"must be {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes long")
    return key


def _usable(secret: SecretStr, _: Mapping[str, Any]) -> None:
    signing_key(secret)


def _usable_in_style(secret: SecretStr, others: Mapping[str, Any]) -> None:
    # a style that was refused itself is missing
    if "style" in others:
        signing_key(secret, others["style"])


WebhookSecret = Annotated[SecretStr, Referable(_usable)]
"""24 to 64 random bytes in base64, after `whsec_`."""


def of_http(url: SecretStr, _: Mapping[str, Any]) -> None:
    if not re.match(r"https?://[^/]", url.get_secret_value()):
        raise ValueError("must look like https://host/path")


class Subscriber(BaseModel):
    """Receiver of every event."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    url: Annotated[SecretStr, Referable(of_http)]
    """`https://host/path`; treated as a secret, because the path alone grants access to many services."""
    secret: WebhookSecret
    """Secret that signs the deliveries to the subscriber."""


class EventSettings(BaseModel):
    """Receivers of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subscribers: tuple[Subscriber, ...] = ()
    """Receivers of every event, each by a signed HTTP request."""


class WebhookSource(BaseModel):
    """Authorised sender of webhooks."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    style: SigningStyle = SigningStyle.STANDARD_WEBHOOKS
    """Signature scheme of the sender: `standard-webhooks`, `github` or `mlflow`."""
    secrets: tuple[Annotated[SecretStr, Referable(_usable_in_style)], ...]
    """Secrets shared with the sender; several during a rotation: a signature by any of them is valid.
    24 to 64 bytes in base64; for GitHub and MLflow a text of at least 24 characters."""

    @property
    def keys(self) -> list[bytes]:
        """Keys of the secrets.

        Raises:
            SecretUnavailable: the server of secrets does not give one.
        """
        return [signing_key(secret, self.style) for secret in self.secrets]

    def read_again(self) -> bool:
        """Read the keys in the server of secrets anew; False if no key can have changed."""
        references = [secret for secret in self.secrets if isinstance(secret, SecretReference)]
        # of every secret, not up to the first
        return bool([secret for secret in references if secret.read_again()])
