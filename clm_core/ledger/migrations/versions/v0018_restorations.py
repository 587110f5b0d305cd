"""A lost production version that is registered again and serves again: promotions of kind `restoration`."""

from alembic import op

revision = "0018"
down_revision = "0017"

_KINDS = """
ALTER TABLE promotions DROP CONSTRAINT ck_promotions_kind;
UPDATE promotions SET kind = 'rollback' WHERE kind NOT IN ({kinds});
ALTER TABLE promotions ADD CONSTRAINT ck_promotions_kind CHECK (kind IN ({kinds}));
"""
FORMER_KINDS = ("promotion", "rollback", "adoption", "loss", "alias_moved")
KINDS = ("promotion", "rollback", "adoption", "loss", "restoration", "alias_moved")


def upgrade() -> None:
    op.execute(_KINDS.format(kinds=_quoted(*KINDS)))


def downgrade() -> None:
    op.execute(_KINDS.format(kinds=_quoted(*FORMER_KINDS)))


def _quoted(*kinds: str) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds)
