"""Evaluations record the terms of trading, as JSON and by digest; older evaluations have none."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE evaluations ADD COLUMN terms jsonb, ADD COLUMN terms_digest text, "
        "ADD CONSTRAINT ck_evaluations_terms CHECK ((terms IS NULL) = (terms_digest IS NULL))"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE evaluations DROP CONSTRAINT ck_evaluations_terms, DROP COLUMN terms, "
        "DROP COLUMN terms_digest"
    )
