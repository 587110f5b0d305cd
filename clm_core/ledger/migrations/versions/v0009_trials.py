"""Every trial is counted, and an evaluation names the one it is about and the policy it was judged by."""

from alembic import op

revision = "0009"
down_revision = "0008"

CREATE = """
CREATE TABLE trials (
    id uuid CONSTRAINT pk_trials PRIMARY KEY,
    source text NOT NULL CONSTRAINT ck_trials_source CHECK (source IN ('retrain', 'tuning', 'evolution')),
    model_id text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    job_id uuid CONSTRAINT fk_trials_job_id REFERENCES training_jobs (id),
    params jsonb NOT NULL,
    seed bigint NOT NULL,
    sharpe double precision NOT NULL,
    skewness double precision NOT NULL,
    kurtosis double precision NOT NULL,
    bars integer NOT NULL CONSTRAINT ck_trials_bars CHECK (bars >= 0),
    effective_bars double precision NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    first_day integer NOT NULL,
    daily_returns bytea NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX ix_trials_symbol_timeframe_at ON trials (symbol, timeframe, at);
CREATE INDEX ix_trials_job_id ON trials (job_id);

-- what was judged before anything was counted is a trial too; its returns are not known
INSERT INTO trials
SELECT e.id, 'retrain', v.model_id, v.symbol, v.timeframe, v.training_job_id, j.training_params, v.seed,
       'NaN', 'NaN', 'NaN', 0, 'NaN', e.period_start, e.period_end,
       floor(extract(epoch FROM e.period_start) / 86400)::integer, '', e.created_at
FROM evaluations e JOIN model_versions v USING (model_id, version)
    JOIN training_jobs j ON j.id = v.training_job_id;

-- as the audit: the application adds to it and no more
REVOKE UPDATE, DELETE ON trials FROM clm_app;

ALTER TABLE evaluations ADD COLUMN trial_id uuid CONSTRAINT fk_evaluations_trial_id REFERENCES trials (id);
UPDATE evaluations SET trial_id = id;
ALTER TABLE evaluations ALTER COLUMN trial_id SET NOT NULL;
CREATE INDEX ix_evaluations_trial_id ON evaluations (trial_id);
ALTER TABLE evaluations ADD COLUMN policy jsonb;
UPDATE evaluations
    SET policy = jsonb_build_object('name', 'thresholds-only', 'criteria', criteria, 'evidence', NULL);
ALTER TABLE evaluations ALTER COLUMN policy SET NOT NULL, DROP COLUMN criteria;
"""

DROP = """
ALTER TABLE evaluations ADD COLUMN criteria jsonb;
UPDATE evaluations SET criteria = policy -> 'criteria';
ALTER TABLE evaluations ALTER COLUMN criteria SET NOT NULL, DROP COLUMN policy, DROP COLUMN trial_id;
DROP TABLE trials;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute(DROP)
