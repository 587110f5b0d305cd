"""Comparison of a ledger's tables with the tables of this release."""

from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import Connection, NullPool, create_engine, text

from clm_core.ledger.migrations import HEAD, current_revision, pending
from clm_core.ledger.tables import Base

APPEND_ONLY = (
    "audit_log",
    "trials",
    "begun_trials",
    "tunings",
    "strategy_searches",
    "strategy_trials",
    "strategy_search_results",
    "evaluation_evidence",
    "market_costs",
    "shadow_decisions",
    "shadow_positions",
    "hard_stop_exemptions",
    "drift_measurements",
    "allocations",
    "allocation_weights",
    "allocation_ends",
    "allocation_served",
    "fills",
    "removed_files",
)
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
    """State of a ledger's tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str | None
    """Newest applied revision; None without tables."""
    newest: str
    """Newest revision of this release."""
    pending: tuple[str, ...]
    """Revisions not applied yet."""
    differences: tuple[str, ...]
    """Differences found by alembic; empty while revisions are pending."""
    rights: tuple[str, ...]
    """Rights that the application must not have: audit, trials and shadow positions are append-only."""
    guarded: bool
    """True if the trigger that protects the audit from changes is on."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences with the problem and the remedy; empty if the tables are in order."""
        if self.pending:
            return (f"{', '.join(self.pending)} not applied yet: run `clm db upgrade`.",)
        problems = [
            f"{difference}: the tables were changed by hand; undo the change, or restore a backup."
            for difference in self.differences
        ]
        problems += [
            f"the application has {right}: as the tables' owner, REVOKE {right} FROM clm_app, PUBLIC."
            for right in self.rights
        ]
        if not self.guarded:
            problems.append(
                "the audit's trigger is off: ALTER TABLE audit_log ENABLE ALWAYS TRIGGER "
                "audit_log_append_only, then run `clm audit verify`."
            )
        return tuple(problems)


def examine(url: str) -> Schema:
    """
    Raises:
        DatabaseUnavailable: a newer release has upgraded the ledger.
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
    """Forbidden rights of the application; empty without tables."""
    return tuple(connection.scalars(_RIGHTS, {"tables": list(APPEND_ONLY)}))


def _differences(connection: Connection) -> tuple[str, ...]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    return tuple(_sentence(difference) for difference in differences)


def _sentence(difference: Any) -> str:
    """Sentence about a difference as returned by `compare_metadata`."""
    if isinstance(difference, list):
        kind, _, table, column, *_ = difference[0]
        return f"{table}.{column} differs ({kind.removeprefix('modify_')})"
    kind, *where = difference
    item = where[-1]
    table = where[1] if kind.endswith("_column") else getattr(getattr(item, "table", None), "name", "")
    name = f"{table}.{item.name}" if table else item.name
    return f"{name} {'is missing' if kind.startswith('add') else 'is unexpected'}"
