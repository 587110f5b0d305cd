"""Connections to a ledger in the role `clm_app`, which may append to the audit, but not change entries."""

import os
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import URL, Engine, create_engine, event

_LOCKS: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()
_POOLED: WeakSet[Engine] = WeakSet()


def open_engine(url: str, outlives_server: bool = True) -> Engine:
    """Engine for a ledger with existing tables; connects at the first use.

    Args:
        outlives_server: True to ask a pooled connection for a sign of life before each use.
    """
    # after a restart of the server, pooled connections are closed: the ping replaces them
    # the API answers 32 requests at a time, beside its event streams
    engine = create_engine(url, pool_pre_ping=outlives_server, max_overflow=35)
    event.listen(engine, "connect", _become_the_application)
    return engine


def _become_the_application(connection: Any, _: object) -> None:
    connection.execute("SET ROLE clm_app")
    # a rollback would undo the change of role
    connection.commit()


def lock_engine(engine: Engine) -> Engine:
    """Engine whose connections hold advisory locks for a while, in the role of the URL.

    A pool beside that of the stores and without a limit: threads waiting for a lock must not use up the
    connections of the holder. A new connection costs the server 20 ms of processor time, so that
    two are kept. Disposed of with the engine of the stores.
    """
    if engine not in _LOCKS:
        locks = pooled_engine(engine.url, kept=2)
        _LOCKS[engine] = locks
        event.listen(engine, "engine_disposed", lambda _: locks.dispose())
    return _LOCKS[engine]


def pooled_engine(url: str | URL, kept: int) -> Engine:
    """Engine that keeps a few connections open, opens more as needed, and none in a forked child."""
    engine = create_engine(url, pool_pre_ping=True, pool_size=kept, max_overflow=-1)
    _POOLED.add(engine)
    return engine


def _forget_connections() -> None:
    # the connections belong to the parent, which goes on using them
    for engine in list(_POOLED):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)
