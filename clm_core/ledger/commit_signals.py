"""Signals of PostgreSQL (LISTEN and NOTIFY) at the commit of a transaction with a new event or alert."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, text

CHANNEL = "clm_outgoing"
KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""Options of a connection that listens: an unreachable server is noticed within a minute."""


def signal(connection: Connection) -> None:
    """Wake every listener at the commit of the caller's transaction; a rollback wakes nobody."""
    connection.execute(text(f"NOTIFY {CHANNEL}"))


@contextlib.contextmanager
def listening(address: str) -> Iterator[Callable[[float], bool]]:
    """Listen on a connection while the block lasts.

    Args:
        address: URL of the ledger's database for psycopg.

    Yields:
        Function waiting at most a number of seconds for a signal; True after a signal.

    Raises:
        psycopg.OperationalError: the server does not answer, or the connection is lost.
    """
    import psycopg

    with psycopg.connect(address, autocommit=True, connect_timeout=10, **KEEPALIVES) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield lambda seconds: bool(list(connection.notifies(timeout=seconds, stop_after=1)))
