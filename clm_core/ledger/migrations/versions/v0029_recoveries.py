"""Recoveries: the end of a condition is sent to the people who were alerted."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE alerts ADD COLUMN recovers bigint "
        "CONSTRAINT fk_alerts_recovers REFERENCES alerts (seq) ON DELETE CASCADE"
    )


def downgrade() -> None:
    op.execute("DELETE FROM alerts WHERE recovers IS NOT NULL")
    op.execute("ALTER TABLE alerts DROP COLUMN recovers")
