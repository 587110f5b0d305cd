"""Connections to a ledger in the role `clm_app`, which may append to the audit, but not change entries."""

from typing import Any

from sqlalchemy import Engine, create_engine, event


def open_engine(url: str) -> Engine:
    """Engine for a ledger with existing tables; connects at the first use."""
    # after a restart of the server, pooled connections are closed: the ping replaces them
    # the API answers 32 requests at a time, beside its event streams
    engine = create_engine(url, pool_pre_ping=True, max_overflow=35)
    event.listen(engine, "connect", _become_the_application)
    return engine


def _become_the_application(connection: Any, _: object) -> None:
    connection.execute("SET ROLE clm_app")
    # a rollback would undo the change of role
    connection.commit()
