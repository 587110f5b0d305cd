"""Halted models, and versions whose hard stop a person switched off for a while."""

from alembic import op

revision = "0028"
down_revision = "0027"

FORMER_TYPES = (
    "clm.training_job_created",
    "clm.model_trained",
    "clm.model_evaluated",
    "clm.model_promoted",
    "clm.model_rollback",
    "clm.strategy_candidate_created",
    "clm.audit_anchored",
)
TYPES = (*FORMER_TYPES[:5], "clm.model_halted", *FORMER_TYPES[5:])
FORMER_KINDS = ("promotion", "rollback", "adoption", "loss", "restoration", "alias_moved")
KINDS = (*FORMER_KINDS[:4], "halt", *FORMER_KINDS[4:])
_CHECKS = """
ALTER TABLE outbox DROP CONSTRAINT ck_outbox_type;
ALTER TABLE outbox ADD CONSTRAINT ck_outbox_type CHECK (type IN ({types}));
ALTER TABLE promotions DROP CONSTRAINT ck_promotions_kind, DROP CONSTRAINT ck_promotions_target;
ALTER TABLE promotions
    ADD CONSTRAINT ck_promotions_kind CHECK (kind IN ({kinds})),
    ADD CONSTRAINT ck_promotions_target CHECK (
        kind = 'alias_moved' OR (to_version IS NULL) = (kind IN ({without_target})));
"""
CREATE = """
CREATE TABLE hard_stop_exemptions (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_hard_stop_exemptions PRIMARY KEY,
    model_id text NOT NULL,
    version text NOT NULL,
    until timestamptz NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL CONSTRAINT ck_hard_stop_exemptions_reason CHECK (reason <> ''),
    at timestamptz NOT NULL,
    CONSTRAINT fk_hard_stop_exemptions_model_id_version FOREIGN KEY (model_id, version)
        REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_hard_stop_exemptions_model_id_version ON hard_stop_exemptions (model_id, version);
REVOKE UPDATE, DELETE ON hard_stop_exemptions FROM clm_app;
"""


def upgrade() -> None:
    op.execute(_checks(TYPES, KINDS, ("loss", "halt")))
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE hard_stop_exemptions")
    op.execute("DELETE FROM outbox WHERE type = 'clm.model_halted'")
    # nothing serves after a loss, as after a halt
    op.execute("UPDATE promotions SET kind = 'loss' WHERE kind = 'halt'")
    op.execute(_checks(FORMER_TYPES, FORMER_KINDS, ("loss",)))


def _checks(types: tuple[str, ...], kinds: tuple[str, ...], without_target: tuple[str, ...]) -> str:
    return _CHECKS.format(types=_quoted(types), kinds=_quoted(kinds), without_target=_quoted(without_target))


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)
