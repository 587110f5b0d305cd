"""Origin of the recipe of a retrain that states none."""

from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    op.execute("ALTER TABLE training_jobs ADD COLUMN recipe_from text")


def downgrade() -> None:
    op.execute("ALTER TABLE training_jobs DROP COLUMN recipe_from")
