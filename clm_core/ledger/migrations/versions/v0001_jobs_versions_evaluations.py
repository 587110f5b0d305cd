"""Jobs, versions and evaluations."""

from alembic import op

revision = "0001"
down_revision = None

CREATE = """
CREATE TABLE training_jobs (
    id uuid CONSTRAINT pk_training_jobs PRIMARY KEY,
    model_id text NOT NULL,
    model_type text NOT NULL CONSTRAINT ck_training_jobs_model_type CHECK (
        model_type IN ('xgboost', 'lightgbm', 'nhits', 'patchtst', 'rl_v2', 'rl_v3', 'other')),
    symbol text NOT NULL,
    timeframe text NOT NULL,
    dataset_span_days integer NOT NULL CONSTRAINT ck_training_jobs_span CHECK (dataset_span_days > 0),
    data_snapshot text NOT NULL,
    trigger_reason text NOT NULL CONSTRAINT ck_training_jobs_trigger_reason CHECK (
        trigger_reason IN ('drift_detected', 'performance_degraded', 'periodic', 'manual', 'regime_change',
                           'data_threshold', 'strategy_evolution')),
    training_params jsonb NOT NULL,
    seed bigint NOT NULL,
    requested_by text NOT NULL,
    status text NOT NULL CONSTRAINT ck_training_jobs_status CHECK (
        status IN ('pending', 'in_progress', 'completed', 'failed')),
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    failure_cause text,
    CONSTRAINT ck_training_jobs_started CHECK ((started_at IS NULL) = (status = 'pending')),
    CONSTRAINT ck_training_jobs_finished CHECK (
        (finished_at IS NOT NULL) = (status IN ('completed', 'failed'))),
    CONSTRAINT ck_training_jobs_cause CHECK ((failure_cause IS NOT NULL) = (status = 'failed'))
);
CREATE INDEX ix_training_jobs_model_id_created_at ON training_jobs (model_id, created_at);
CREATE INDEX ix_training_jobs_status ON training_jobs (status);
CREATE INDEX ix_training_jobs_created_at ON training_jobs (created_at);

CREATE TABLE model_versions (
    model_id text NOT NULL,
    version text NOT NULL,
    model_type text NOT NULL CONSTRAINT ck_model_versions_model_type CHECK (
        model_type IN ('xgboost', 'lightgbm', 'nhits', 'patchtst', 'rl_v2', 'rl_v3', 'other')),
    symbol text NOT NULL,
    timeframe text NOT NULL,
    status text NOT NULL CONSTRAINT ck_model_versions_status CHECK (
        status IN ('training', 'shadow', 'candidate', 'production', 'retired', 'failed')),
    training_job_id uuid NOT NULL CONSTRAINT fk_model_versions_training_job_id REFERENCES training_jobs (id),
    parent_version text,
    model_path text NOT NULL,
    mlflow_version integer NOT NULL,
    mlflow_run_id text NOT NULL,
    bundle_digest text NOT NULL,
    data_hash text NOT NULL,
    code_version text NOT NULL,
    seed bigint NOT NULL,
    train_metrics jsonb NOT NULL,
    validation_metrics jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_model_versions PRIMARY KEY (model_id, version),
    CONSTRAINT fk_model_versions_model_id_parent_version
        FOREIGN KEY (model_id, parent_version) REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_model_versions_model_id_created_at ON model_versions (model_id, created_at);
CREATE INDEX ix_model_versions_status ON model_versions (status);
CREATE INDEX ix_model_versions_created_at ON model_versions (created_at);
CREATE INDEX ix_model_versions_training_job_id ON model_versions (training_job_id);

CREATE TABLE evaluations (
    id uuid CONSTRAINT pk_evaluations PRIMARY KEY,
    model_id text NOT NULL,
    version text NOT NULL,
    bundle_digest text NOT NULL,
    sharpe_ratio double precision NOT NULL,
    sortino_ratio double precision NOT NULL,
    calmar_ratio double precision NOT NULL,
    win_rate double precision NOT NULL,
    profit_factor double precision NOT NULL,
    max_drawdown double precision NOT NULL,
    total_pnl double precision NOT NULL,
    trades integer NOT NULL CONSTRAINT ck_evaluations_trades CHECK (trades >= 0),
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    fee_bps double precision NOT NULL,
    slippage_bps double precision NOT NULL,
    passed boolean NOT NULL,
    promotion_score double precision NOT NULL
        CONSTRAINT ck_evaluations_score CHECK (promotion_score BETWEEN 0 AND 100),
    failure_reason text,
    verdict jsonb NOT NULL,
    criteria jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT ck_evaluations_verdict CHECK (passed = (verdict ->> 'decision' = 'pass')),
    CONSTRAINT fk_evaluations_model_id_version
        FOREIGN KEY (model_id, version) REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_evaluations_model_id_version_created_at ON evaluations (model_id, version, created_at);
CREATE INDEX ix_evaluations_created_at ON evaluations (created_at);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE evaluations, model_versions, training_jobs")
