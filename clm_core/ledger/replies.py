"""Replies to requests with an `Idempotency-Key`, repeated when a request is repeated."""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import OperationalError

from clm_core.domain.errors import ConflictError, KeyReused
from clm_core.ledger.engine import lock_engine
from clm_core.ledger.tables import Base, ReplyRow
from clm_core.platform.locks import AdvisoryLock

_REPLIES = Base.metadata.tables[ReplyRow.__tablename__]
LOCK_WAIT_SECONDS = 60
KEPT_FOR = timedelta(hours=24)


class KeptReply(BaseModel):
    """A request under an idempotency key, and the reply."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caller: str
    """Owner of the key: different callers may use equal keys."""
    key: str
    request_hash: str
    """SHA-256 of the path and the body, hexadecimal."""
    status: int
    media_type: str
    body: str
    at: datetime


class ReplyStore:
    """Kept replies. Every method but `lock` is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks = lock_engine(engine)

    @contextlib.contextmanager
    def lock(self, caller: str, key: str) -> Iterator[None]:
        """Lock a key for the duration of the block, or until the death of the process.

        Raises:
            ConflictError: another request has held the lock for longer than the time limit.
        """
        with self._locks.connect() as connection, connection.begin():
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
            try:
                named = func.hashtext(f"{caller} {key}")
                connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.REPLY, named)))
            except OperationalError as error:
                raise ConflictError(
                    "A request with the same Idempotency-Key is still under way: repeat the request later."
                ) from error
            yield

    def begin(self, caller: str, key: str, request_hash: str, now: datetime) -> KeptReply | None:
        """Bind a key to its request before the work begins.

        Returns:
            The reply to the key's request in the last 24 hours; None if there is none, as the request is new,
            failed, or was interrupted.

        Raises:
            KeyReused: the key was used with a different request.
        """
        bound = {"caller": caller, "key": key, "request_hash": request_hash, "at": now}
        own = (_REPLIES.c.caller == caller, _REPLIES.c.key == key)
        with self._engine.begin() as connection:
            connection.execute(delete(_REPLIES).where(_REPLIES.c.at <= now - KEPT_FOR))
            connection.execute(upsert(_REPLIES).values(bound).on_conflict_do_nothing())
            row = connection.execute(select(_REPLIES).where(*own)).mappings().one()
        if row["request_hash"] != request_hash:
            raise KeyReused(
                "The Idempotency-Key was used with a different request: use a new key for every request."
            )
        return None if row["status"] is None else KeptReply.model_validate(dict(row))

    def keep(self, reply: KeptReply) -> None:
        """Keep the reply to a begun request."""
        row = reply.model_dump()
        kept = upsert(_REPLIES).values(row).on_conflict_do_update(index_elements=["caller", "key"], set_=row)
        with self._engine.begin() as connection:
            connection.execute(kept)
