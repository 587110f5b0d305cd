"""Strategy candidates of plug-ins are told apart by the plug-in's name, as jobs and versions are."""

from alembic import op

revision = "0012"
down_revision = "0011"

ADD = """
ALTER TABLE strategy_candidates ADD COLUMN plugin text;
-- nobody could say which
UPDATE strategy_candidates SET plugin = 'unnamed' WHERE model_type = 'other';
ALTER TABLE strategy_candidates ADD CONSTRAINT ck_strategy_candidates_plugin
    CHECK ((plugin IS NOT NULL) = (model_type = 'other'));
"""


def upgrade() -> None:
    op.execute(ADD)


def downgrade() -> None:
    op.execute("ALTER TABLE strategy_candidates DROP COLUMN plugin")
