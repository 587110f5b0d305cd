"""Allocations: versions that share the capital of a model, their weights, ends and reported bars."""

from alembic import op

revision = "0031"
down_revision = "0030"

FORMER_TYPES = (
    "clm.training_job_created",
    "clm.model_trained",
    "clm.model_evaluated",
    "clm.model_promoted",
    "clm.model_rollback",
    "clm.model_halted",
    "clm.strategy_candidate_created",
    "clm.audit_anchored",
)
TYPES = (*FORMER_TYPES[:6], "clm.allocation_changed", *FORMER_TYPES[6:])
_TYPE = """
ALTER TABLE outbox DROP CONSTRAINT ck_outbox_type;
ALTER TABLE outbox ADD CONSTRAINT ck_outbox_type CHECK (type IN ({types}));
"""
CREATE = """
CREATE TABLE allocations (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_allocations PRIMARY KEY,
    model_id text NOT NULL,
    arms text[] NOT NULL CONSTRAINT ck_allocations_arms CHECK (cardinality(arms) >= 2),
    observed text NOT NULL CONSTRAINT ck_allocations_observed CHECK (observed IN ('paper', 'fills')),
    started_at timestamptz NOT NULL,
    started_by text NOT NULL,
    reason text NOT NULL,
    forced boolean NOT NULL
);
CREATE INDEX ix_allocations_model_id_id ON allocations (model_id, id);

CREATE TABLE allocation_weights (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_allocation_weights PRIMARY KEY,
    allocation_id bigint NOT NULL CONSTRAINT fk_allocation_weights_allocation_id REFERENCES allocations (id),
    at timestamptz NOT NULL,
    arms jsonb NOT NULL,
    reasons text[] NOT NULL
);
CREATE INDEX ix_allocation_weights_allocation_id_id ON allocation_weights (allocation_id, id);

CREATE TABLE allocation_ends (
    allocation_id bigint CONSTRAINT pk_allocation_ends PRIMARY KEY
        CONSTRAINT fk_allocation_ends_allocation_id REFERENCES allocations (id),
    outcome text NOT NULL CONSTRAINT ck_allocation_ends_outcome CHECK (
        outcome IN ('stopped', 'promoted', 'retired', 'expired', 'champion_changed', 'halted')),
    at timestamptz NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL CONSTRAINT ck_allocation_ends_reason CHECK (reason <> '')
);

CREATE TABLE allocation_served (
    allocation_id bigint NOT NULL CONSTRAINT fk_allocation_served_allocation_id REFERENCES allocations (id),
    bar_time timestamptz NOT NULL,
    version text NOT NULL,
    reported_by text NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT pk_allocation_served PRIMARY KEY (allocation_id, bar_time)
);

REVOKE UPDATE, DELETE ON allocations, allocation_weights, allocation_ends, allocation_served FROM clm_app;
"""


def upgrade() -> None:
    op.execute(_TYPE.format(types=_quoted(TYPES)))
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE allocation_served, allocation_ends, allocation_weights, allocations")
    op.execute("DELETE FROM outbox WHERE type = 'clm.allocation_changed'")
    op.execute(_TYPE.format(types=_quoted(FORMER_TYPES)))


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)
