import subprocess
import sys
from collections.abc import Callable

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from clm_core.domain.errors import DatabaseUnavailable
from clm_core.ledger.migrations import HEAD, alembic_config, current_revision, upgrade
from clm_core.ledger.tables import Base

CONSTRAINTS = text(
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass ORDER BY 1, 2"
)
INDEXES = text(
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
)


def tables(connection: Connection) -> list[str]:
    return list(
        connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
    )


def test_up_down_and_up_again_leave_the_newest_tables(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), "base")
        assert tables(connection) == ["alembic_version"]
        assert current_revision(connection) is None
    upgrade(url)
    with create_engine(url).begin() as connection:
        assert tables(connection) == [
            "alembic_version",
            "alerts",
            "allocation_ends",
            "allocation_served",
            "allocation_weights",
            "allocations",
            "api_replies",
            "api_tokens",
            "audit_log",
            "begun_trials",
            "dead_letters",
            "drift_measurements",
            "evaluation_evidence",
            "evaluations",
            "fills",
            "hard_stop_exemptions",
            "inbox",
            "job_leases",
            "job_runs",
            "learning_values",
            "market_costs",
            "model_versions",
            "outbox",
            "production_standings",
            "promotions",
            "proposed_variants",
            "receivers",
            "removed_files",
            "scheduled_passes",
            "shadow_checks",
            "shadow_decisions",
            "shadow_places",
            "shadow_positions",
            "strategy_candidates",
            "strategy_search_results",
            "strategy_searches",
            "strategy_trials",
            "training_jobs",
            "trials",
            "trigger_requests",
            "tunings",
        ]
        assert current_revision(connection) == HEAD


def test_head_is_the_only_end_of_one_line_of_revisions(empty_database: Callable[[], str]) -> None:
    with create_engine(empty_database()).begin() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    assert script.get_heads() == [HEAD]
    assert [revision.revision for revision in script.walk_revisions()] == sorted(
        (revision.revision for revision in script.walk_revisions()), reverse=True
    )


def test_alembic_finds_no_difference_between_migrations_and_tables(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    with create_engine(url).begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrations_make_the_constraints_and_indexes_that_the_tables_declare(
    empty_database: Callable[[], str],
) -> None:
    migrated = empty_database()
    declared = empty_database()
    upgrade(migrated)
    with create_engine(migrated).begin() as one, create_engine(declared).begin() as other:
        other.execute(text("CREATE TABLE alembic_version ()"))
        Base.metadata.create_all(other)
        assert one.execute(CONSTRAINTS).all() == other.execute(CONSTRAINTS).all()
        assert set(one.scalars(INDEXES)) == set(other.scalars(INDEXES))


def test_two_processes_upgrading_at_once_both_succeed(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    script = "import sys; from clm_core.ledger.migrations import upgrade; upgrade(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", script, url], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0), (b"", 0)]


def test_an_upgrade_that_has_nothing_to_do_does_not_import_alembic(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    script = (
        "import sys; from clm_core.ledger.migrations import upgrade; upgrade(sys.argv[1]); "
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, url], check=False).returncode == 0


def test_a_ledger_of_a_newer_release_is_refused(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    with create_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        DatabaseUnavailable, match="stands at revision 9999, this release knows revisions up to"
    ):
        upgrade(url)
