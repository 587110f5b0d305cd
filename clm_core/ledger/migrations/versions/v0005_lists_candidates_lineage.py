"""Lists in any order, strategy candidates, what a version was trained with, and more events."""

from alembic import op

revision = "0005"
down_revision = "0004"

CREATE = """
ALTER TABLE model_versions
    ADD params jsonb NOT NULL DEFAULT '{}',
    ADD environment jsonb NOT NULL DEFAULT '{}',
    ADD sharpe_rank double precision NOT NULL DEFAULT '-Infinity',
    ADD score_rank double precision NOT NULL DEFAULT '-Infinity';
ALTER TABLE model_versions ALTER params DROP DEFAULT, ALTER environment DROP DEFAULT;
UPDATE model_versions v SET
    sharpe_rank = CASE e.sharpe_ratio WHEN 'NaN' THEN '-Infinity' ELSE e.sharpe_ratio END,
    score_rank = e.promotion_score
FROM (
    SELECT DISTINCT ON (model_id, version) model_id, version, sharpe_ratio, promotion_score
    FROM evaluations ORDER BY model_id, version, created_at DESC, id DESC
) e WHERE e.model_id = v.model_id AND e.version = v.version;
ALTER TABLE model_versions
    ADD CONSTRAINT ck_model_versions_ranks CHECK (sharpe_rank <> 'NaN' AND score_rank <> 'NaN');
DROP INDEX ix_model_versions_created_at;
CREATE INDEX ix_model_versions_created_at_model_id_version
    ON model_versions (created_at, model_id, version);
CREATE INDEX ix_model_versions_sharpe_rank_model_id_version
    ON model_versions (sharpe_rank, model_id, version);
CREATE INDEX ix_model_versions_score_rank_model_id_version
    ON model_versions (score_rank, model_id, version);

DROP INDEX ix_training_jobs_created_at;
CREATE INDEX ix_training_jobs_created_at_id ON training_jobs (created_at, id);

CREATE TABLE strategy_candidates (
    id uuid CONSTRAINT pk_strategy_candidates PRIMARY KEY,
    base_strategy text NOT NULL,
    model_type text NOT NULL CONSTRAINT ck_strategy_candidates_model_type CHECK (
        model_type IN ('xgboost', 'lightgbm', 'nhits', 'patchtst', 'rl_v2', 'rl_v3', 'other')),
    symbol text NOT NULL,
    timeframe text NOT NULL,
    params jsonb NOT NULL,
    origin text NOT NULL CONSTRAINT ck_strategy_candidates_origin CHECK (
        origin IN ('manual', 'mutation', 'crossover', 'random', 'regime_adaptation')),
    parents uuid[] NOT NULL,
    fitness_score double precision,
    fitness_rank double precision NOT NULL
        GENERATED ALWAYS AS (coalesce(fitness_score, '-Infinity')) STORED
        CONSTRAINT ck_strategy_candidates_rank CHECK (fitness_rank <> 'NaN'),
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_strategy_candidates_created_at_id ON strategy_candidates (created_at, id);
CREATE INDEX ix_strategy_candidates_fitness_rank_id ON strategy_candidates (fitness_rank, id);
CREATE INDEX ix_strategy_candidates_base_strategy ON strategy_candidates (base_strategy);

ALTER TABLE outbox DROP CONSTRAINT ck_outbox_type, ADD CONSTRAINT ck_outbox_type CHECK (
    type IN ('clm.training_job_created', 'clm.model_trained', 'clm.model_evaluated', 'clm.model_promoted',
             'clm.model_rollback', 'clm.strategy_candidate_created'));
"""

DROP = """
DELETE FROM outbox WHERE type NOT IN ('clm.model_promoted', 'clm.model_rollback');
ALTER TABLE outbox DROP CONSTRAINT ck_outbox_type, ADD CONSTRAINT ck_outbox_type CHECK (
    type IN ('clm.model_promoted', 'clm.model_rollback'));
DROP TABLE strategy_candidates;
DROP INDEX ix_training_jobs_created_at_id;
CREATE INDEX ix_training_jobs_created_at ON training_jobs (created_at);
ALTER TABLE model_versions DROP params, DROP environment, DROP sharpe_rank, DROP score_rank;
DROP INDEX ix_model_versions_created_at_model_id_version;
CREATE INDEX ix_model_versions_created_at ON model_versions (created_at);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute(DROP)
