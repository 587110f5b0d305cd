"""The audit, and the role the application works as, which may add to it and no more."""

from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.errors import DatabaseUnavailable

revision = "0002"
down_revision = "0001"

# ALWAYS: the trigger fires for a session that plays replica too
CREATE = """
CREATE TABLE audit_log (
    seq bigint CONSTRAINT pk_audit_log PRIMARY KEY CONSTRAINT ck_audit_log_seq CHECK (seq > 0),
    at timestamptz NOT NULL,
    actor text NOT NULL,
    role text NOT NULL CONSTRAINT ck_audit_log_role CHECK (role IN ('viewer', 'operator', 'admin')),
    action text NOT NULL,
    subject text NOT NULL,
    details jsonb NOT NULL,
    prev_hash text NOT NULL,
    hash text NOT NULL
);
CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;
"""

GRANT = """
GRANT SELECT, INSERT, UPDATE, DELETE ON training_jobs, model_versions, evaluations TO clm_app;
GRANT SELECT, INSERT ON audit_log TO clm_app;
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO clm_app;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO clm_app;
"""

# the role itself stays: other ledgers on the same server use it
REVOKE = """
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM clm_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM clm_app;
REVOKE ALL ON training_jobs, model_versions, evaluations FROM clm_app;
"""


def upgrade() -> None:
    _create_role(op.get_bind())
    op.execute(CREATE)
    op.execute(GRANT)


def downgrade() -> None:
    op.execute(REVOKE)
    op.execute("DROP TABLE audit_log")
    op.execute("DROP FUNCTION audit_log_refuse")


def _create_role(connection: Connection) -> None:
    from psycopg.errors import DuplicateObject, InsufficientPrivilege, UniqueViolation

    try:
        with connection.begin_nested():
            connection.execute(text("CREATE ROLE clm_app NOLOGIN"))
            connection.execute(text("GRANT clm_app TO CURRENT_USER"))
    except (ProgrammingError, IntegrityError) as error:
        # UniqueViolation: another ledger's upgrade created it at this very moment
        if not isinstance(error.orig, DuplicateObject | UniqueViolation | InsufficientPrivilege):
            raise
    if not _may_become_it(connection):
        raise DatabaseUnavailable(
            "The ledger needs the role clm_app, which the user of CLM_DATABASE_URL can neither create nor "
            "assume. Have an administrator of the server run, with that user's name: "
            "CREATE ROLE clm_app NOLOGIN; GRANT clm_app TO <user>;"
        )


def _may_become_it(connection: Connection) -> bool:
    answer = connection.scalar(
        text("SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = 'clm_app'")
    )
    return bool(answer)
