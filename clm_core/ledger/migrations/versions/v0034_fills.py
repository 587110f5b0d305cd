"""Fills that traders report."""

from alembic import op

revision = "0034"
down_revision = "0033"

CREATE = """
CREATE TABLE fills (
    model_id text NOT NULL,
    id text NOT NULL,
    version text NOT NULL,
    symbol text NOT NULL,
    time timestamptz NOT NULL,
    change double precision NOT NULL
        CONSTRAINT ck_fills_change CHECK (change BETWEEN -2 AND 2 AND change <> 0),
    price double precision NOT NULL CONSTRAINT ck_fills_price CHECK (price > 0 AND price < 'Infinity'),
    fee_bps double precision,
    resting boolean NOT NULL,
    reported_by text NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT pk_fills PRIMARY KEY (model_id, id),
    CONSTRAINT fk_fills_model_id_version FOREIGN KEY (model_id, version)
        REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_fills_model_id_time_id ON fills (model_id, time, id);

REVOKE UPDATE, DELETE ON fills FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE fills")
