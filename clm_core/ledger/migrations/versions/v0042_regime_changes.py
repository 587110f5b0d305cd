"""Events about a changed regime of a market."""

from alembic import op

revision = "0042"
down_revision = "0041"

FORMER_TYPES = (
    "clm.training_job_created",
    "clm.model_trained",
    "clm.model_evaluated",
    "clm.model_promoted",
    "clm.model_rollback",
    "clm.model_halted",
    "clm.allocation_changed",
    "clm.strategy_candidate_created",
    "clm.audit_anchored",
)
NEW = "market.regime_changed"
_TYPES = """
ALTER TABLE outbox DROP CONSTRAINT ck_outbox_type;
ALTER TABLE outbox ADD CONSTRAINT ck_outbox_type CHECK (type IN ({types}));
"""


def upgrade() -> None:
    op.execute(_TYPES.format(types=_quoted(*FORMER_TYPES, NEW)))


def downgrade() -> None:
    op.execute(f"DELETE FROM outbox WHERE type = '{NEW}'")
    op.execute(_TYPES.format(types=_quoted(*FORMER_TYPES)))


def _quoted(*types: str) -> str:
    return ", ".join(f"'{kind}'" for kind in types)
