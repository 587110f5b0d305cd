"""Brings a ledger's tables up to what this release expects."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, NullPool, create_engine, text

from clm_core.domain.errors import DatabaseUnavailable
from clm_core.platform.locks import AdvisoryLock

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).parent
REVISIONS = tuple(sorted(file.stem[1:5] for file in FOLDER.glob("versions/v[0-9]*.py")))
HEAD = REVISIONS[-1]
"""Newest revision; they are numbered in order and never branch. Found without alembic, whose import costs
more than everything else an unneeded upgrade does."""


def upgrade(url: str) -> tuple[str, ...]:
    """Apply what is missing, in one transaction; nothing when nothing is. Safe to call from many processes.

    Returns:
        The revisions that were applied.

    Raises:
        DatabaseUnavailable: a newer release has upgraded this ledger already.
    """
    with create_engine(url, poolclass=NullPool).begin() as connection:
        if current_revision(connection) == HEAD:
            return ()
        # two processes would create the same tables; the second one finds them done
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AdvisoryLock.MIGRATION})
        missing = pending(current_revision(connection))
        from alembic import command

        command.upgrade(alembic_config(connection), "head")
    return missing


def create_or_require(url: str) -> None:
    """The tables of a ledger whose server is shared: made where there are none, never changed.

    Raises:
        DatabaseUnavailable: they are an older, or a newer, release's.
    """
    with create_engine(url, poolclass=NullPool).connect() as connection:
        revision = current_revision(connection)
    if revision is None:
        upgrade(url)
    elif missing := pending(revision):
        raise DatabaseUnavailable(
            f"The ledger on the server of CLM_DATABASE_URL stands at revision {revision}, this release needs "
            f"{missing[-1]}: stop what runs the older release, back the ledger up, then run `clm db upgrade`."
        )


def pending(revision: str | None) -> tuple[str, ...]:
    """What a ledger that stands at a revision lacks; None: it has no tables."""
    return tuple(known for known in REVISIONS if revision is None or known > revision)


def current_revision(connection: Connection) -> str | None:
    """Revision the ledger stands at; None: it has no tables."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision > HEAD:
        raise DatabaseUnavailable(
            f"The ledger stands at revision {revision}, this release knows those up to {HEAD}: "
            "install the release that upgraded it, or a newer one."
        )
    return revision


def alembic_config(connection: Connection) -> "Config":
    """For alembic's own commands, run on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
