"""Events about anchors of the audit, for the receiver of `[audit] webhook`."""

from alembic import op

revision = "0021"
down_revision = "0020"

FORMER_TYPES = (
    "clm.training_job_created",
    "clm.model_trained",
    "clm.model_evaluated",
    "clm.model_promoted",
    "clm.model_rollback",
    "clm.strategy_candidate_created",
)
_TYPES = """
ALTER TABLE outbox DROP CONSTRAINT ck_outbox_type;
ALTER TABLE outbox ADD CONSTRAINT ck_outbox_type CHECK (type IN ({types}));
"""


def upgrade() -> None:
    op.execute(_TYPES.format(types=_quoted(*FORMER_TYPES, "clm.audit_anchored")))


def downgrade() -> None:
    op.execute("DELETE FROM outbox WHERE type = 'clm.audit_anchored'")
    op.execute(_TYPES.format(types=_quoted(*FORMER_TYPES)))


def _quoted(*types: str) -> str:
    return ", ".join(f"'{kind}'" for kind in types)
