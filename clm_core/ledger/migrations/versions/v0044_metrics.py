"""Role of a monitoring server, and the time of receipt of the message behind a request."""

from alembic import op

revision = "0044"
down_revision = "0043"

FORMER_ROLES = ("reporter", "viewer", "operator", "admin")
TABLES = ("api_tokens", "audit_log", "promotions")
_ROLE = """
ALTER TABLE {table} DROP CONSTRAINT ck_{table}_role;
ALTER TABLE {table} ADD CONSTRAINT ck_{table}_role CHECK (role IN ({roles}));
"""
ADD = """
ALTER TABLE trigger_requests ADD COLUMN received_at timestamptz;
UPDATE trigger_requests r SET received_at = i.received_at FROM inbox i WHERE i.number = r.inbox_number;
"""


def upgrade() -> None:
    _set_roles("reporter", "scraper", *FORMER_ROLES[1:])
    op.execute(ADD)


def downgrade() -> None:
    op.execute("DELETE FROM api_tokens WHERE role = 'scraper'")
    _set_roles(*FORMER_ROLES)
    op.execute("ALTER TABLE trigger_requests DROP COLUMN received_at")


def _set_roles(*roles: str) -> None:
    listed = ", ".join(f"'{role}'" for role in roles)
    for table in TABLES:
        op.execute(_ROLE.format(table=table, roles=listed))
