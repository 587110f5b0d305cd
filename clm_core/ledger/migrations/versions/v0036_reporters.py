"""Role of a trader's machine, which reports fills and nothing else."""

from alembic import op

revision = "0036"
down_revision = "0035"

FORMER_ROLES = ("viewer", "operator", "admin")
TABLES = ("api_tokens", "audit_log", "promotions")
_ROLE = """
ALTER TABLE {table} DROP CONSTRAINT ck_{table}_role;
ALTER TABLE {table} ADD CONSTRAINT ck_{table}_role CHECK (role IN ({roles}));
"""


def upgrade() -> None:
    _set_roles("reporter", *FORMER_ROLES)


def downgrade() -> None:
    op.execute("DELETE FROM api_tokens WHERE role = 'reporter'")
    _set_roles(*FORMER_ROLES)


def _set_roles(*roles: str) -> None:
    listed = ", ".join(f"'{role}'" for role in roles)
    for table in TABLES:
        op.execute(_ROLE.format(table=table, roles=listed))
