"""Newest whole comparison of a version's recorded positions with the positions computed then."""

from alembic import op

revision = "0030"
down_revision = "0029"

CREATE = """
CREATE TABLE shadow_checks (
    model_id text NOT NULL,
    version text NOT NULL,
    symbol text NOT NULL DEFAULT '',
    checked_at timestamptz NOT NULL,
    corrections integer NOT NULL,
    explained integer NOT NULL,
    problem text,
    CONSTRAINT pk_shadow_checks PRIMARY KEY (model_id, version, symbol),
    CONSTRAINT fk_shadow_checks_model_id_version
        FOREIGN KEY (model_id, version) REFERENCES model_versions (model_id, version),
    CONSTRAINT ck_shadow_checks_counts CHECK (corrections >= 0 AND explained >= 0)
);
REVOKE DELETE ON shadow_checks FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE shadow_checks")
