"""Whether a ledger's tables are those that this release was written for."""

from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import Connection, NullPool, create_engine, text

from clm_core.ledger.migrations import HEAD, current_revision, pending
from clm_core.ledger.tables import Base

APPEND_ONLY = ("audit_log", "trials", "begun_trials", "tunings", "shadow_positions")
_RIGHTS = text("""
SELECT what || ' on ' || relname FROM pg_class, unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) what
WHERE relname = ANY (:tables) AND relnamespace = 'public'::regnamespace
    AND has_table_privilege('clm_app', pg_class.oid, what)
ORDER BY 1
""")
_GUARD = text("""
SELECT count(*) FROM pg_trigger
WHERE tgrelid = to_regclass('audit_log') AND tgname = 'audit_log_append_only' AND tgenabled = 'A'
""")


class Schema(BaseModel):
    """How a ledger's tables stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str | None
    """Newest that was applied; None: there are no tables."""
    newest: str
    """Newest that this release knows."""
    pending: tuple[str, ...]
    """Revisions still to be applied."""
    differences: tuple[str, ...]
    """What the tables have or lack, as alembic says it; not looked for while revisions are pending."""
    rights: tuple[str, ...]
    """Rights of the application that it must not have: audit, trials and shadows are only added to."""
    guarded: bool
    """Whether the trigger is on that refuses anybody a change of the audit."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence each, with what to do; empty: all is as it should be."""
        if self.pending:
            return (f"{', '.join(self.pending)} not applied yet: run `clm db upgrade`.",)
        found = [
            f"{difference}: somebody changed the tables by hand; undo that, or restore a backup."
            for difference in self.differences
        ]
        found += [
            f"the application has {right}: as the tables' owner, REVOKE {right} FROM clm_app, PUBLIC."
            for right in self.rights
        ]
        if not self.guarded:
            found.append(
                "the audit's trigger is off: ALTER TABLE audit_log ENABLE ALWAYS TRIGGER "
                "audit_log_append_only, then run `clm audit verify`."
            )
        return tuple(found)


def examine(url: str) -> Schema:
    """
    Raises:
        DatabaseUnavailable: a newer release has upgraded this ledger.
    """
    with create_engine(url, poolclass=NullPool).connect() as connection:
        revision = current_revision(connection)
        missing = pending(revision)
        return Schema(
            revision=revision,
            newest=HEAD,
            pending=missing,
            differences=() if missing else _differences(connection),
            rights=_rights(connection),
            guarded=connection.scalars(_GUARD).one() == 1,
        )


def _rights(connection: Connection) -> tuple[str, ...]:
    """None of a ledger that has no tables yet."""
    return tuple(connection.scalars(_RIGHTS, {"tables": list(APPEND_ONLY)}))


def _differences(connection: Connection) -> tuple[str, ...]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    return tuple(_sentence(difference) for difference in found)


def _sentence(difference: Any) -> str:
    """Of one difference as `compare_metadata` gives it: what a migration would have to do."""
    if isinstance(difference, list):
        kind, _, table, column, *_ = difference[0]
        return f"{table}.{column} is otherwise ({kind.removeprefix('modify_')})"
    kind, *where = difference
    what = where[-1]
    of = where[1] if kind.endswith("_column") else getattr(getattr(what, "table", None), "name", "")
    name = f"{of}.{what.name}" if of else what.name
    return f"{name} {'is missing' if kind.startswith('add') else 'does not belong there'}"
