"""Schedules and last successes of the scheduled passes."""

from alembic import op

revision = "0019"
down_revision = "0018"

CREATE = """
CREATE TABLE scheduled_passes (
    name text NOT NULL,
    every_seconds double precision CONSTRAINT ck_scheduled_passes_every CHECK (every_seconds > 0),
    paused boolean NOT NULL,
    expected_since timestamptz,
    succeeded_at timestamptz,
    CONSTRAINT pk_scheduled_passes PRIMARY KEY (name),
    CONSTRAINT ck_scheduled_passes_schedule CHECK ((every_seconds IS NULL) = (expected_since IS NULL))
)
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE scheduled_passes")
