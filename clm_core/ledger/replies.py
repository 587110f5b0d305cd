"""What was answered to requests with an `Idempotency-Key`: asked again, the same is answered again."""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, NullPool, create_engine, delete, func, insert, select, text
from sqlalchemy.exc import OperationalError

from clm_core.domain.errors import ConflictError, KeyReused
from clm_core.ledger.tables import Base, ReplyRow
from clm_core.platform.locks import AdvisoryLock

_REPLIES = Base.metadata.tables[ReplyRow.__tablename__]
LOCK_WAIT_SECONDS = 60
KEPT_FOR = timedelta(hours=24)


class KeptReply(BaseModel):
    """What was asked under a key, and the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caller: str
    """Keys of different callers have nothing to do with each other."""
    key: str
    request_hash: str
    """SHA-256 of the path and the body, hexadecimal."""
    status: int
    media_type: str
    body: str
    at: datetime


class ReplyStore:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # a connection of its own: those who wait for a lock must not use up the pool its holder needs
        self._locks = create_engine(engine.url, poolclass=NullPool)

    @contextlib.contextmanager
    def lock(self, caller: str, key: str) -> Iterator[None]:
        """Nobody else works on this key inside the block; freed if we die in it.

        Raises:
            ConflictError: somebody has worked on it for longer than we wait.
        """
        with self._locks.connect() as connection, connection.begin():
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
            try:
                named = func.hashtext(f"{caller} {key}")
                connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.REPLY, named)))
            except OperationalError as error:
                raise ConflictError(
                    "A request with this Idempotency-Key is still under way: ask again later."
                ) from error
            yield

    def find(self, caller: str, key: str, request_hash: str, now: datetime) -> KeptReply | None:
        """What was answered under the key in the last 24 hours.

        Raises:
            KeyReused: it was another request.
        """
        mine = (_REPLIES.c.caller == caller, _REPLIES.c.key == key, _REPLIES.c.at > now - KEPT_FOR)
        with self._engine.begin() as connection:
            row: Any = connection.execute(select(_REPLIES).where(*mine)).mappings().one_or_none()
        if row is None:
            return None
        if row["request_hash"] != request_hash:
            raise KeyReused(
                "This Idempotency-Key came with another request before: take a new key for a new request."
            )
        return KeptReply.model_validate(dict(row))

    def keep(self, reply: KeptReply) -> None:
        """Also forgets what is older than 24 hours."""
        with self._engine.begin() as connection:
            connection.execute(delete(_REPLIES).where(_REPLIES.c.at <= reply.at - KEPT_FOR))
            connection.execute(insert(_REPLIES).values(reply.model_dump()))
