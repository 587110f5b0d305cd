"""Promotions, and the outbox of what is told about them."""

from alembic import op

revision = "0003"
down_revision = "0002"

CREATE = """
CREATE TABLE promotions (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_promotions PRIMARY KEY,
    model_id text NOT NULL,
    kind text NOT NULL CONSTRAINT ck_promotions_kind CHECK (
        kind IN ('promotion', 'rollback', 'adoption', 'loss', 'drift')),
    state text NOT NULL CONSTRAINT ck_promotions_state CHECK (
        state IN ('intent', 'committed', 'aborted', 'drift')),
    from_version text,
    to_version text,
    expected boolean NOT NULL,
    actor text NOT NULL,
    role text NOT NULL CONSTRAINT ck_promotions_role CHECK (role IN ('viewer', 'operator', 'admin')),
    reason text NOT NULL,
    forced boolean NOT NULL,
    expires_at timestamptz,
    at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT ck_promotions_drift CHECK ((kind = 'drift') = (state = 'drift')),
    CONSTRAINT ck_promotions_target CHECK (
        to_version IS NOT NULL AND kind <> 'loss' OR kind = 'drift' OR to_version IS NULL AND kind = 'loss'),
    CONSTRAINT ck_promotions_forced CHECK (
        forced = (expires_at IS NOT NULL) AND (NOT forced OR role = 'admin' AND reason <> '')),
    CONSTRAINT ck_promotions_finished CHECK (
        state = 'drift' OR (finished_at IS NULL) = (state = 'intent')),
    CONSTRAINT fk_promotions_model_id_from_version
        FOREIGN KEY (model_id, from_version) REFERENCES model_versions (model_id, version),
    CONSTRAINT fk_promotions_model_id_to_version
        FOREIGN KEY (model_id, to_version) REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_promotions_model_id_id ON promotions (model_id, id);
CREATE UNIQUE INDEX ix_promotions_under_way ON promotions (model_id) WHERE finished_at IS NULL;
CREATE UNIQUE INDEX ix_model_versions_production ON model_versions (model_id) WHERE status = 'production';

CREATE TABLE outbox (
    id uuid CONSTRAINT pk_outbox PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    type text NOT NULL CONSTRAINT ck_outbox_type CHECK (type IN ('clm.model_promoted', 'clm.model_rollback')),
    payload jsonb NOT NULL,
    at timestamptz NOT NULL,
    delivered_at timestamptz
);
CREATE INDEX ix_outbox_undelivered ON outbox (seq) WHERE delivered_at IS NULL;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE outbox, promotions; DROP INDEX ix_model_versions_production")
