"""Forced rollbacks by operators, to a version that an admin forced before."""

from alembic import op

revision = "0048"
down_revision = "0047"
_EXPIRES = "forced = (expires_at IS NOT NULL)"


def upgrade() -> None:
    op.execute("ALTER TABLE promotions DROP CONSTRAINT ck_promotions_forced")
    op.execute(
        f"ALTER TABLE promotions ADD CONSTRAINT ck_promotions_forced CHECK ({_EXPIRES} AND (NOT forced OR "
        "reason <> '' AND (role = 'admin' OR role = 'operator' AND kind = 'rollback')))"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE promotions DROP CONSTRAINT ck_promotions_forced")
    # not validated: a rollback recorded meanwhile stays
    op.execute(
        f"ALTER TABLE promotions ADD CONSTRAINT ck_promotions_forced CHECK ({_EXPIRES} AND (NOT forced OR "
        "role = 'admin' AND reason <> '')) NOT VALID"
    )
