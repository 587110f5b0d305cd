"""Models of plug-ins are told apart by the plug-in's name; ensembles are a type."""

from alembic import op

revision = "0010"
down_revision = "0009"

TYPES = ("xgboost", "lightgbm", "nhits", "patchtst", "rl_v2", "rl_v3")
TABLES = ("training_jobs", "model_versions", "strategy_candidates")
WITH_PLUGIN = ("training_jobs", "model_versions")


def upgrade() -> None:
    _allow((*TYPES, "ensemble", "other"))
    for table in WITH_PLUGIN:
        op.execute(f"ALTER TABLE {table} ADD COLUMN plugin text")
        # nothing could train one, but somebody may have recorded it
        op.execute(f"UPDATE {table} SET plugin = 'unnamed' WHERE model_type = 'other'")
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_plugin "
            "CHECK ((plugin IS NOT NULL) = (model_type = 'other'))"
        )


def downgrade() -> None:
    for table in WITH_PLUGIN:
        op.execute(f"ALTER TABLE {table} DROP COLUMN plugin")
    _allow((*TYPES, "other"))


def _allow(types: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{each}'" for each in types)
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_model_type")
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_model_type CHECK (model_type IN ({listed}))"
        )
