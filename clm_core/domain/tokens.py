"""Tokens for the REST API: what their holders show, and what is kept of it."""

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
"""Of a person or a program: `ada`, `ada@quantum.io`, `airflow`."""

_FORM = re.compile(r"clm_([0-9a-f]{12})_[0-9a-f]{64}")


@dataclass(frozen=True)
class Secret:
    """`clm_`, the token's public id, `_`, 256 random bits; its form lets scanners find a leaked one."""

    text: str = field(repr=False)

    @classmethod
    def draw(cls, random_bytes: Callable[[int], bytes]) -> Self:
        """A new one; `random_bytes(n)` has to be fit for secrets, as `secrets.token_bytes` is."""
        return cls(f"clm_{random_bytes(6).hex()}_{random_bytes(32).hex()}")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        return cls(text) if _FORM.fullmatch(text) else None

    @property
    def token_id(self) -> str:
        return self.text[4:16]

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal. Nothing slower is needed: 256 random bits can't be guessed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Token(BaseModel):
    """The right to act under a name and in a role, for a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Public, and part of the secret: in logs it tells which token was used."""
    name: Name
    """Whose it is; stands in the audit as who acted. Several tokens may have the same."""
    role: Role
    created_by: str
    created_at: AwareDatetime
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None
    """To the minute."""

    @property
    def actor(self) -> Actor:
        return Actor(name=self.name, role=self.role)

    def refusal(self, now: datetime) -> str | None:
        """Why it opens nothing any more; None: it does."""
        if self.revoked_at is not None:
            return f"was revoked at {self.revoked_at:%Y-%m-%d %H:%M} UTC"
        if not now < self.expires_at:
            return f"expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return None


def new_token(secret: Secret, name: str, role: Role, actor: Actor, now: datetime, lasts: timedelta) -> Token:
    """One that opens from now on what its role may."""
    return Token(
        id=secret.token_id,
        name=name,
        role=role,
        created_by=actor.name,
        created_at=now,
        expires_at=now + lasts,
    )
