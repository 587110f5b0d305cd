"""Interval of the fitness of each candidate; a candidate recorded before has none."""

from alembic import op

revision = "0026"
down_revision = "0025"
ENDS = ("fitness_low", "fitness_high")


def upgrade() -> None:
    for end in ENDS:
        op.execute(f"ALTER TABLE strategy_candidates ADD COLUMN {end} double precision")


def downgrade() -> None:
    for end in ENDS:
        op.execute(f"ALTER TABLE strategy_candidates DROP COLUMN {end}")
