"""Out-of-sample positions behind a verdict, and the costs of markets in the order of their changes."""

from alembic import op

revision = "0025"
down_revision = "0024"

CREATE = """
CREATE TABLE evaluation_evidence (
    evaluation_id uuid CONSTRAINT pk_evaluation_evidence PRIMARY KEY
        CONSTRAINT fk_evaluation_evidence_evaluation_id REFERENCES evaluations (id),
    digest text NOT NULL,
    content bytea NOT NULL,
    data_hash text NOT NULL,
    code_digest text NOT NULL
);

CREATE TABLE market_costs (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_market_costs PRIMARY KEY,
    symbol text NOT NULL,
    costs jsonb NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX ix_market_costs_symbol_number ON market_costs (symbol, number);

-- as the trials: the application adds to them and no more
REVOKE UPDATE, DELETE ON evaluation_evidence, market_costs FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE evaluation_evidence, market_costs")
