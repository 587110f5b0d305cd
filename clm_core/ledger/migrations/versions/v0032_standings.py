"""Standings of production versions for the pages, and an index for the audit entries about a subject."""

from alembic import op

revision = "0032"
down_revision = "0031"

CREATE = """
CREATE TABLE production_standings (
    model_id text NOT NULL CONSTRAINT pk_production_standings PRIMARY KEY,
    version text NOT NULL,
    at timestamptz NOT NULL,
    standing jsonb NOT NULL,
    CONSTRAINT fk_production_standings_model_id_version FOREIGN KEY (model_id, version)
        REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_audit_log_subject_seq ON audit_log (subject, seq);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP INDEX ix_audit_log_subject_seq")
    op.execute("DROP TABLE production_standings")
