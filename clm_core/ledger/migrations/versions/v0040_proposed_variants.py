"""Variants proposed for weak production versions, and the candidate that a job trains."""

from alembic import op

revision = "0040"
down_revision = "0039"

CREATE = """
ALTER TABLE training_jobs ADD COLUMN candidate_id uuid
    CONSTRAINT fk_training_jobs_candidate_id REFERENCES strategy_candidates (id);

CREATE TABLE proposed_variants (
    id uuid CONSTRAINT pk_proposed_variants PRIMARY KEY,
    model_id text NOT NULL,
    version text NOT NULL,
    because text NOT NULL,
    search jsonb NOT NULL,
    candidates uuid[] NOT NULL,
    opened_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text,
    job_id uuid CONSTRAINT fk_proposed_variants_job_id REFERENCES training_jobs (id),
    CONSTRAINT fk_proposed_variants_model_id_version FOREIGN KEY (model_id, version)
        REFERENCES model_versions (model_id, version),
    CONSTRAINT ck_proposed_variants_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    CONSTRAINT ck_proposed_variants_job CHECK (job_id IS NULL OR ended_at IS NOT NULL)
);
CREATE INDEX ix_proposed_variants_unanswered ON proposed_variants (opened_at, id) WHERE ended_at IS NULL;
"""

DROP = """
DROP TABLE proposed_variants;
ALTER TABLE training_jobs DROP COLUMN candidate_id;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute(DROP)
