"""What a receiver did not take for days."""

from alembic import op

revision = "0013"
down_revision = "0012"

CREATE = """
ALTER TABLE receivers ADD stream text;
UPDATE receivers SET stream = CASE WHEN name LIKE 'alerts %' THEN 'alerts' ELSE 'events' END;
ALTER TABLE receivers
    ALTER stream SET NOT NULL,
    ADD CONSTRAINT ck_receivers_stream CHECK (stream IN ('events', 'alerts'));

CREATE TABLE dead_letters (
    receiver text NOT NULL CONSTRAINT fk_dead_letters_receiver REFERENCES receivers (name),
    seq bigint NOT NULL,
    about text NOT NULL,
    happened_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    given_up_at timestamptz NOT NULL,
    retry_asked boolean NOT NULL,
    CONSTRAINT pk_dead_letters PRIMARY KEY (receiver, seq)
);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE dead_letters; ALTER TABLE receivers DROP stream")
