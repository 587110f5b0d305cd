"""Leases of the jobs in progress."""

from alembic import op

revision = "0004"
down_revision = "0003"

CREATE = """
CREATE TABLE job_leases (
    job_id uuid CONSTRAINT pk_job_leases PRIMARY KEY
        CONSTRAINT fk_job_leases_job_id REFERENCES training_jobs (id),
    holder text NOT NULL,
    token bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ix_job_leases_expires_at ON job_leases (expires_at);

-- who runs these has never heard of leases: the next sweep ends them
INSERT INTO job_leases (job_id, holder, expires_at)
SELECT id, 'an earlier release', started_at FROM training_jobs WHERE status = 'in_progress';
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE job_leases")
