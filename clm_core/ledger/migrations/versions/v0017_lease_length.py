"""Leases record their length, from which a reaper knows the time between two heartbeats."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    # the default is the length of a lease that nobody set: a process of the release before inserts no length
    op.execute("ALTER TABLE job_leases ADD COLUMN seconds double precision NOT NULL DEFAULT 60")


def downgrade() -> None:
    op.execute("ALTER TABLE job_leases DROP COLUMN seconds")
