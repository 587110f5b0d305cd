"""Detection of tables that differ from this release, on a real PostgreSQL server."""

from collections.abc import Callable, Iterator

import pytest
from alembic import command
from sqlalchemy import Connection, create_engine, text

from clm_core.domain.errors import DatabaseUnavailable
from clm_core.ledger.migrations import HEAD, REVISIONS, alembic_config, create_or_require, upgrade
from clm_core.ledger.schema import examine


@pytest.fixture(scope="module")
def url(empty_database: Callable[[], str]) -> str:
    made = empty_database()
    assert upgrade(made) == REVISIONS
    return made


@pytest.fixture
def by_hand(url: str) -> Iterator[Connection]:
    """Engine with a superuser's rights."""
    with create_engine(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def test_upgraded_tables_are_in_order(url: str) -> None:
    report = examine(url)
    assert (report.revision, report.newest, report.problems) == (HEAD, HEAD, ())
    assert upgrade(url) == ()


@pytest.mark.parametrize(
    ("change", "back", "problem"),
    [
        pytest.param(
            "ALTER TABLE model_versions DROP COLUMN environment",
            "ALTER TABLE model_versions ADD environment jsonb NOT NULL",
            "model_versions.environment is missing: the tables were changed by hand",
            id="column missing",
        ),
        pytest.param(
            "ALTER TABLE training_jobs ALTER seed DROP NOT NULL",
            "ALTER TABLE training_jobs ALTER seed SET NOT NULL",
            "training_jobs.seed differs (nullable): ",
            id="column changed",
        ),
        pytest.param(
            "DROP INDEX ix_evaluations_created_at",
            "CREATE INDEX ix_evaluations_created_at ON evaluations (created_at)",
            "evaluations.ix_evaluations_created_at is missing",
            id="index missing",
        ),
        pytest.param("CREATE TABLE notes ()", "DROP TABLE notes", "notes is unexpected", id="table too many"),
        pytest.param(
            "GRANT UPDATE ON audit_log TO clm_app",
            "REVOKE UPDATE ON audit_log FROM clm_app",
            "the application has UPDATE on audit_log: as the tables' owner, REVOKE UPDATE on audit_log FROM",
            id="right too many",
        ),
        pytest.param(
            "GRANT DELETE ON trials TO PUBLIC",
            "REVOKE DELETE ON trials FROM PUBLIC",
            "the application has DELETE on trials",
            id="right of everybody",
        ),
        pytest.param(
            "ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only",
            "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only",
            "the audit's trigger is off: ALTER TABLE audit_log ENABLE ALWAYS TRIGGER",
            id="trigger off",
        ),
    ],
)
def test_changes_by_hand_are_named_with_the_remedy(
    change: str, back: str, problem: str, url: str, by_hand: Connection
) -> None:
    by_hand.execute(text(change))
    try:
        [difference] = examine(url).problems
        assert difference.startswith(problem)
    finally:
        by_hand.execute(text(back))
    assert examine(url).problems == ()


def test_a_ledger_on_a_shared_server_is_created_but_never_changed(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    assert examine(url).problems == (f"{', '.join(REVISIONS)} not applied yet: run `clm db upgrade`.",)
    create_or_require(url)
    create_or_require(url)
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), REVISIONS[-2])
    assert examine(url).pending == (HEAD,)
    with pytest.raises(DatabaseUnavailable, match=rf"needs {HEAD}: stop the processes .* `clm db upgrade`"):
        create_or_require(url)
    assert examine(url).revision == REVISIONS[-2]
    assert upgrade(url) == (HEAD,)
    create_or_require(url)
