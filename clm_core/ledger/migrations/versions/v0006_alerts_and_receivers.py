"""Alerts, who has been told what, what stands beside a bundle, and confirmed forced promotions."""

from alembic import op

revision = "0006"
down_revision = "0005"

# 0x434C4D41 is the lock of whoever appends to the audit: with one lock there is no order to get wrong.
# Statement triggers fire before a row gets its number.
CREATE = """
CREATE TABLE alerts (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_alerts PRIMARY KEY,
    kind text NOT NULL,
    subject text NOT NULL,
    message text NOT NULL,
    at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE UNIQUE INDEX ix_alerts_lasting ON alerts (kind, subject) WHERE ended_at IS NULL;

CREATE TABLE receivers (
    name text CONSTRAINT pk_receivers PRIMARY KEY,
    position bigint NOT NULL,
    failures integer NOT NULL,
    failing_since timestamptz,
    retry_at timestamptz,
    last_error text
);

ALTER TABLE outbox DROP COLUMN delivered_at;
CREATE UNIQUE INDEX ix_outbox_seq ON outbox (seq);

CREATE FUNCTION one_after_the_other() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(x'434C4D41'::bigint);
    RETURN NULL;
END
$$;
CREATE TRIGGER outbox_in_order BEFORE INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION one_after_the_other();
CREATE TRIGGER alerts_in_order BEFORE INSERT ON alerts
    FOR EACH STATEMENT EXECUTE FUNCTION one_after_the_other();

ALTER TABLE model_versions ADD package_digest text;
ALTER TABLE promotions ADD confirmations integer DEFAULT 0 NOT NULL;
"""

DROP = """
ALTER TABLE promotions DROP confirmations;
ALTER TABLE model_versions DROP package_digest;
DROP TABLE alerts, receivers;
DROP TRIGGER outbox_in_order ON outbox;
DROP FUNCTION one_after_the_other;
DROP INDEX ix_outbox_seq;
ALTER TABLE outbox ADD delivered_at timestamptz;
CREATE INDEX ix_outbox_undelivered ON outbox (seq) WHERE delivered_at IS NULL;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute(DROP)
