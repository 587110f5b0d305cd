"""Decision of each evaluation in a column of its own: counts need not read the long verdicts."""

from alembic import op

revision = "0046"
down_revision = "0045"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE evaluations ADD COLUMN decision text GENERATED ALWAYS AS (verdict ->> 'decision') STORED"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE evaluations DROP COLUMN decision")
