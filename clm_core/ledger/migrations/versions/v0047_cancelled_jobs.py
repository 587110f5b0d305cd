"""Person who cancelled a pending job, which counts as failed without a fault."""

from alembic import op

revision = "0047"
down_revision = "0046"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE training_jobs ADD COLUMN cancelled_by text "
        "CONSTRAINT ck_training_jobs_cancelled CHECK (cancelled_by IS NULL OR status = 'failed')"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE training_jobs DROP COLUMN cancelled_by")
