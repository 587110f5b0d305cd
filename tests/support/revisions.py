"""Moves of a ledger between revisions."""

from alembic import command
from sqlalchemy import NullPool, create_engine

from clm_core.ledger.migrations import alembic_config


def move(url: str, revision: str, down: bool = False) -> None:
    """Upgrade or downgrade the ledger at a URL to a revision."""
    with create_engine(url, poolclass=NullPool).begin() as connection:
        (command.downgrade if down else command.upgrade)(alembic_config(connection), revision)
