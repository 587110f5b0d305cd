"""Drift of each feature by day, kept for the false-discovery rate over features and days."""

from alembic import op

revision = "0033"
down_revision = "0032"

CREATE = """
CREATE TABLE drift_measurements (
    model_id text NOT NULL,
    version text NOT NULL,
    day date NOT NULL,
    name text NOT NULL,
    score double precision NOT NULL CONSTRAINT ck_drift_measurements_score CHECK (score >= 0),
    p_value double precision NOT NULL
        CONSTRAINT ck_drift_measurements_p_value CHECK (p_value BETWEEN 0 AND 1),
    CONSTRAINT pk_drift_measurements PRIMARY KEY (model_id, version, day, name),
    CONSTRAINT fk_drift_measurements_model_id_version
        FOREIGN KEY (model_id, version) REFERENCES model_versions (model_id, version)
);

REVOKE UPDATE, DELETE ON drift_measurements FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE drift_measurements")
