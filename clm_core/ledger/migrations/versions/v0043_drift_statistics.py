"""Population stability index and Kolmogorov-Smirnov statistic of measured drift."""

from alembic import op

revision = "0043"
down_revision = "0042"

ADD = """
ALTER TABLE drift_measurements
    ADD COLUMN psi double precision,
    ADD COLUMN ks double precision CONSTRAINT ck_drift_measurements_ks CHECK (ks BETWEEN 0 AND 1);
"""
DROP = "ALTER TABLE drift_measurements DROP COLUMN psi, DROP COLUMN ks;"


def upgrade() -> None:
    op.execute(ADD)


def downgrade() -> None:
    op.execute(DROP)
