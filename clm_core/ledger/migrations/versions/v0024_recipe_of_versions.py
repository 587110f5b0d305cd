"""Recipe of each version; a version registered before has none."""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.execute("ALTER TABLE model_versions ADD COLUMN recipe_digest text")
    columns = "(recipe_digest, created_at)"
    op.execute(f"CREATE INDEX ix_model_versions_recipe_digest_created_at ON model_versions {columns}")


def downgrade() -> None:
    op.execute("ALTER TABLE model_versions DROP COLUMN recipe_digest")
