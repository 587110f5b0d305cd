"""Messages received, requests to retrain with their answers, and the runs started for them."""

from alembic import op

revision = "0007"
down_revision = "0006"

CREATE = """
CREATE TABLE inbox (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_inbox PRIMARY KEY,
    source text NOT NULL,
    message_id text NOT NULL,
    body bytea NOT NULL,
    body_hash text NOT NULL,
    received_at timestamptz NOT NULL,
    processed_at timestamptz,
    error text,
    CONSTRAINT uq_inbox_source_message_id UNIQUE (source, message_id),
    CONSTRAINT ck_inbox_error CHECK (error IS NULL OR processed_at IS NOT NULL)
);
CREATE INDEX ix_inbox_waiting ON inbox (number) WHERE processed_at IS NULL;
CREATE INDEX ix_inbox_processed_at ON inbox (processed_at);

CREATE TABLE trigger_requests (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_trigger_requests PRIMARY KEY,
    model_id text NOT NULL,
    trigger_reason text NOT NULL CONSTRAINT ck_trigger_requests_trigger_reason CHECK (trigger_reason IN (
        'drift_detected', 'performance_degraded', 'periodic', 'manual', 'regime_change', 'data_threshold',
        'strategy_evolution')),
    key text,
    request jsonb NOT NULL,
    at timestamptz NOT NULL,
    reply text NOT NULL CONSTRAINT ck_trigger_requests_reply CHECK (
        reply IN ('accepted', 'coalesced', 'rejected')),
    because text NOT NULL,
    job_id uuid CONSTRAINT fk_trigger_requests_job_id REFERENCES training_jobs (id),
    waits_for uuid CONSTRAINT fk_trigger_requests_waits_for REFERENCES training_jobs (id),
    inbox_number bigint
        CONSTRAINT fk_trigger_requests_inbox_number REFERENCES inbox (number) ON DELETE SET NULL,
    CONSTRAINT ck_trigger_requests_job CHECK ((job_id IS NULL) = (reply = 'rejected'))
);
CREATE INDEX ix_trigger_requests_model_id_at ON trigger_requests (model_id, at);
CREATE INDEX ix_trigger_requests_at ON trigger_requests (at);
CREATE INDEX ix_trigger_requests_key ON trigger_requests (key);
CREATE UNIQUE INDEX ix_trigger_requests_accepted ON trigger_requests (job_id) WHERE reply = 'accepted';

CREATE TABLE job_runs (
    job_id uuid CONSTRAINT pk_job_runs PRIMARY KEY
        CONSTRAINT fk_job_runs_job_id REFERENCES training_jobs (id),
    run_id uuid NOT NULL,
    at timestamptz NOT NULL,
    expires_at timestamptz
);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE job_runs, trigger_requests, inbox")
