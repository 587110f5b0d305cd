"""Upgrade of a ledger's tables to the newest revision of this release."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from clm_core.domain.errors import DatabaseUnavailable
from clm_core.platform.locks import AdvisoryLock

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).parent
REVISIONS = tuple(sorted(file.stem[1:5] for file in FOLDER.glob("versions/v[0-9]*.py")))
HEAD = REVISIONS[-1]
"""Newest revision. Revisions are numbered in order and never branch, so that the newest revision is known
without alembic, whose import takes longer than the rest of an unneeded upgrade."""


def is_current(engine: Engine) -> bool:
    """True for a ledger at the newest revision, by a connection that the engine keeps for later.

    Raises:
        DatabaseUnavailable: a newer release has upgraded the ledger.
    """
    try:
        with engine.begin() as connection:
            # the role of the application, which an empty ledger lacks, may not read the revision
            connection.execute(text("SET LOCAL ROLE NONE"))
            return current_revision(connection) == HEAD
    except DBAPIError:
        return False


def upgrade(url: str) -> tuple[str, ...]:
    """Apply the pending revisions in a single transaction. Safe to call from several processes at once.

    Returns:
        The applied revisions.

    Raises:
        DatabaseUnavailable: a newer release has upgraded the ledger.
    """
    with create_engine(url, poolclass=NullPool).begin() as connection:
        if current_revision(connection) == HEAD:
            return ()
        # the second of two processes finds the tables created
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AdvisoryLock.MIGRATION})
        missing = pending(current_revision(connection))
        from alembic import command

        command.upgrade(alembic_config(connection), "head")
    return missing


def create_or_require(url: str) -> None:
    """Create the tables of a ledger on a shared server; existing tables are never changed.

    Raises:
        DatabaseUnavailable: the tables belong to an older or a newer release.
    """
    with create_engine(url, poolclass=NullPool).connect() as connection:
        revision = current_revision(connection)
    if revision is None:
        upgrade(url)
    elif missing := pending(revision):
        raise DatabaseUnavailable(
            f"The ledger on the server of CLM_DATABASE_URL stands at revision {revision}, this release needs "
            f"{missing[-1]}: stop the processes of the older release, back up the ledger, then run "
            "`clm db upgrade`."
        )


def pending(revision: str | None) -> tuple[str, ...]:
    """Revisions after the given revision; all revisions for None, a ledger without tables."""
    return tuple(known for known in REVISIONS if revision is None or known > revision)


def current_revision(connection: Connection) -> str | None:
    """Current revision of the ledger; None without tables.

    Raises:
        DatabaseUnavailable: a newer release has upgraded the ledger.
    """
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision > HEAD:
        raise DatabaseUnavailable(
            f"The ledger stands at revision {revision}, this release knows revisions up to {HEAD}: "
            "install the release that upgraded it, or a newer one."
        )
    return revision


def alembic_config(connection: Connection) -> "Config":
    """Configuration that runs alembic's commands on the connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
