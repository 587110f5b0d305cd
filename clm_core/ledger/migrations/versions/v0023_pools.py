"""Pools: symbols of the members and the state of each series with a job, shadow positions by symbol."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE training_jobs ADD COLUMN symbols text[] NOT NULL DEFAULT '{}', "
        "ADD COLUMN data_snapshots text[] NOT NULL DEFAULT '{}', "
        "ADD CONSTRAINT ck_training_jobs_members "
        "CHECK (cardinality(symbols) = cardinality(data_snapshots))"
    )
    op.execute("CREATE INDEX ix_training_jobs_pools ON training_jobs (symbol) WHERE symbols <> '{}'")
    op.execute(
        "ALTER TABLE shadow_positions ADD COLUMN symbol text NOT NULL DEFAULT '', "
        "DROP CONSTRAINT pk_shadow_positions, "
        "ADD CONSTRAINT pk_shadow_positions PRIMARY KEY (model_id, version, symbol, bar_time)"
    )


def downgrade() -> None:
    op.execute("DELETE FROM shadow_positions WHERE symbol <> ''")
    op.execute(
        "ALTER TABLE shadow_positions DROP CONSTRAINT pk_shadow_positions, DROP COLUMN symbol, "
        "ADD CONSTRAINT pk_shadow_positions PRIMARY KEY (model_id, version, bar_time)"
    )
    op.execute("DROP INDEX ix_training_jobs_pools")
    op.execute(
        "ALTER TABLE training_jobs DROP CONSTRAINT ck_training_jobs_members, DROP COLUMN symbols, "
        "DROP COLUMN data_snapshots"
    )
