"""Tokens of the REST API, replies kept for repeated requests, and what a caller said about who asked."""

from alembic import op

revision = "0008"
down_revision = "0007"

CREATE = """
CREATE TABLE api_tokens (
    id text CONSTRAINT pk_api_tokens PRIMARY KEY,
    digest text NOT NULL,
    name text NOT NULL,
    role text NOT NULL CONSTRAINT ck_api_tokens_role CHECK (role IN ('viewer', 'operator', 'admin')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CONSTRAINT ck_api_tokens_expiry CHECK (expires_at > created_at),
    revoked_at timestamptz,
    last_used_at timestamptz
);
CREATE TABLE api_replies (
    caller text NOT NULL,
    key text NOT NULL,
    request_hash text NOT NULL,
    status integer NOT NULL,
    media_type text NOT NULL,
    body text NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT pk_api_replies PRIMARY KEY (caller, key)
);
CREATE INDEX ix_api_replies_at ON api_replies (at);
ALTER TABLE promotions ADD COLUMN said_by text;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE api_tokens, api_replies; ALTER TABLE promotions DROP COLUMN said_by")
