"""Studies of hyper-parameters, and their trials from the moment they are begun."""

from alembic import op

revision = "0011"
down_revision = "0010"

CREATE = """
CREATE TABLE tunings (
    name text CONSTRAINT pk_tunings PRIMARY KEY,
    model_id text NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_tunings_model_id_created_at ON tunings (model_id, created_at);

CREATE TABLE begun_trials (
    id uuid CONSTRAINT pk_begun_trials PRIMARY KEY,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    first_day integer NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX ix_begun_trials_symbol_timeframe_at ON begun_trials (symbol, timeframe, at);

-- as the trials: the application adds to them and no more
REVOKE UPDATE, DELETE ON tunings, begun_trials FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE tunings, begun_trials")
