"""Changes of the production version record the key of their request; keys are bound before the work."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute("ALTER TABLE promotions ADD COLUMN request_key text")
    op.execute(
        "CREATE INDEX ix_promotions_request_key ON promotions (request_key) WHERE request_key IS NOT NULL"
    )
    op.execute(
        "ALTER TABLE api_replies ALTER status DROP NOT NULL, ALTER media_type DROP NOT NULL, "
        "ALTER body DROP NOT NULL, ADD CONSTRAINT ck_api_replies_reply CHECK "
        "((status IS NULL) = (body IS NULL) AND (status IS NULL) = (media_type IS NULL))"
    )


def downgrade() -> None:
    op.execute("DELETE FROM api_replies WHERE status IS NULL")
    op.execute(
        "ALTER TABLE api_replies DROP CONSTRAINT ck_api_replies_reply, ALTER status SET NOT NULL, "
        "ALTER media_type SET NOT NULL, ALTER body SET NOT NULL"
    )
    op.execute("ALTER TABLE promotions DROP COLUMN request_key")
