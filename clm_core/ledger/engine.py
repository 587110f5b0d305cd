"""Connections to a ledger in the role `clm_app`, which may append to the audit, but not change entries."""

import os
import select
import time
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

UNUSED_SECONDS = 5.0
"""Longest time without use before a pooled connection is asked for a sign of life."""
_LOCKS: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()
_POOLED: WeakSet[Engine] = WeakSet()


def open_engine(url: str, outlives_server: bool = True) -> Engine:
    """Engine for a ledger with existing tables; connects at the first use.

    Args:
        outlives_server: True to replace connections of a server that has ended.
    """
    # the API answers 32 requests at a time, beside its event streams
    engine = create_engine(url, max_overflow=35)
    if outlives_server:
        _replace_dead_connections(engine)
    event.listen(engine, "connect", _become_the_application)
    return engine


def _become_the_application(connection: Any, _: object) -> None:
    connection.execute("SET ROLE clm_app")
    # a rollback would undo the change of role
    connection.commit()


def lock_engine(engine: Engine) -> Engine:
    """Engine whose connections hold advisory locks for a while, in the role of the URL.

    A pool beside that of the stores and without a limit: threads waiting for a lock must not use up the
    connections of the holder. A new connection costs the server 4 ms of processor time, so that
    two are kept. Disposed of with the engine of the stores.
    """
    if engine not in _LOCKS:
        locks = pooled_engine(engine.url, kept=2)
        _LOCKS[engine] = locks
        event.listen(engine, "engine_disposed", lambda _: locks.dispose())
    return _LOCKS[engine]


def pooled_engine(url: str | URL, kept: int) -> Engine:
    """Engine that keeps a few connections open, opens more as needed, and none in a forked child."""
    engine = create_engine(url, pool_size=kept, max_overflow=-1)
    _replace_dead_connections(engine)
    _POOLED.add(engine)
    return engine


def _replace_dead_connections(engine: Engine) -> None:
    """Ask a pooled connection for a sign of life before a use if the connection may be dead.

    An ended server closes every connection, visible at the socket without a request to the server; the
    request of SQLAlchemy's `pool_pre_ping` is a tenth of the requests of a change. A network that fails
    closes nothing, so a connection without use for seconds is asked, too.
    """

    def note_use(_: object, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    def ask_if_in_doubt(connection: Any, record: Any, _: object) -> None:
        used_at = record.info.get("used_at")
        if used_at is None:
            # new
            return
        if time.monotonic() - used_at < UNUSED_SECONDS and not _has_input(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("the server has ended or was restarted") from error

    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", ask_if_in_doubt)


def _has_input(connection: Any) -> bool:
    """True for a connection closed by the server or with an unread message."""
    if connection.closed or not hasattr(select, "poll"):
        return True
    sockets = select.poll()
    sockets.register(connection.fileno(), select.POLLIN)
    return bool(sockets.poll(0))


def _forget_connections() -> None:
    # the connections belong to the parent, which goes on using them
    for engine in list(_POOLED):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)
