"""Jobs record the states of the own series in use; earlier jobs used none."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute("ALTER TABLE training_jobs ADD COLUMN series jsonb NOT NULL DEFAULT '{}'::jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE training_jobs DROP COLUMN series")
