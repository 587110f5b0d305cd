"""Removed files of failed versions."""

from alembic import op

revision = "0045"
down_revision = "0044"

CREATE = """
CREATE TABLE removed_files (
    model_id text NOT NULL,
    version text NOT NULL,
    files integer NOT NULL CONSTRAINT ck_removed_files_files CHECK (files >= 0),
    size bigint NOT NULL CONSTRAINT ck_removed_files_size CHECK (size >= 0),
    by text NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT pk_removed_files PRIMARY KEY (model_id, version),
    CONSTRAINT fk_removed_files_model_id_version FOREIGN KEY (model_id, version)
        REFERENCES model_versions (model_id, version)
);
REVOKE UPDATE, DELETE ON removed_files FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE removed_files")
