"""Connections to a ledger, as the role that may add to the audit and not change it."""

from typing import Any

from sqlalchemy import Engine, create_engine, event


def open_engine(url: str) -> Engine:
    """Connects at the first use; the ledger's tables have to be there by then."""
    # a server that was restarted closed the pooled connections: found out before they are used
    engine = create_engine(url, pool_pre_ping=True)
    event.listen(engine, "connect", _become_the_application)
    return engine


def _become_the_application(connection: Any, _: object) -> None:
    connection.execute("SET ROLE clm_app")
    # a rollback would undo it
    connection.commit()
