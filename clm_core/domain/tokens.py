"""Tokens for the REST API: the holder's secret, and the stored record."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from clm_core.domain.actors import Actor
from clm_core.domain.vocabulary import Role

Name = Annotated[str, StringConstraints(max_length=100, pattern=r"^[\w.@+-]([\w.@+ -]*[\w.@+-])?$")]
"""Name of a person or a program: `ada`, `ada@quantum.io`, `airflow`."""

_FORM = re.compile(r"clm_([0-9a-f]{12})_[0-9a-f]{64}")


@dataclass(frozen=True)
class Secret:
    """Secret of a token: `clm_`, the public id, `_`, 256 random bits. The form lets scanners find leaks."""

    text: str = field(repr=False)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> Self:
        """New secret.

        Args:
            random_bytes: source of n bytes fit for secrets, such as `secrets.token_bytes`.
        """
        return cls(f"clm_{random_bytes(6).hex()}_{random_bytes(32).hex()}")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        return cls(text) if _FORM.fullmatch(text) else None

    @property
    def token_id(self) -> str:
        return self.text[4:16]

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal. A slow password hash is unnecessary: 256 random bits cannot be guessed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Token(BaseModel):
    """Right to act under a name and in a role for a limited time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Public part of the secret, which identifies the token in logs."""
    name: Name
    """Holder of the token, and actor in the audit. Several tokens may share a name."""
    role: Role
    created_by: str
    created_at: AwareDatetime
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None
    """Accurate to the minute."""

    @property
    def actor(self) -> Actor:
        return Actor(name=self.name, role=self.role)

    def refusal(self, now: datetime) -> str | None:
        """Reason why the token is no longer valid; None: the token is valid."""
        if self.revoked_at is not None:
            return f"was revoked at {self.revoked_at:%Y-%m-%d %H:%M} UTC"
        if not now < self.expires_at:
            return f"expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return None


def new_token(secret: Secret, name: str, role: Role, actor: Actor, now: datetime, lasts: timedelta) -> Token:
    """Token valid from now on for the given time."""
    return Token(
        id=secret.token_id,
        name=name,
        role=role,
        created_by=actor.name,
        created_at=now,
        expires_at=now + lasts,
    )
