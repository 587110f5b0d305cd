"""Searches for strategies, with the trials of each generation as a batch."""

from alembic import op

revision = "0041"
down_revision = "0040"

CREATE = """
CREATE TABLE strategy_searches (
    name text CONSTRAINT pk_strategy_searches PRIMARY KEY,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_strategy_searches_symbol_timeframe_created_at
    ON strategy_searches (symbol, timeframe, created_at);

CREATE TABLE strategy_trials (
    search text NOT NULL,
    batch integer NOT NULL,
    trials integer NOT NULL CONSTRAINT ck_strategy_trials_trials CHECK (trials > 0),
    genes bytea NOT NULL,
    scores bytea NOT NULL,
    highest bytea NOT NULL,
    lowest bytea NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT pk_strategy_trials PRIMARY KEY (search, batch),
    CONSTRAINT fk_strategy_trials_search FOREIGN KEY (search) REFERENCES strategy_searches (name)
);

CREATE TABLE strategy_search_results (
    search text NOT NULL,
    at timestamptz NOT NULL,
    result jsonb NOT NULL,
    CONSTRAINT pk_strategy_search_results PRIMARY KEY (search, at),
    CONSTRAINT fk_strategy_search_results_search FOREIGN KEY (search) REFERENCES strategy_searches (name)
);

-- as the trials: the application adds to them and no more
REVOKE UPDATE, DELETE ON strategy_searches, strategy_trials, strategy_search_results FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE strategy_search_results, strategy_trials, strategy_searches")
