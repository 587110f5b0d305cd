"""Candidates that await their evaluation, and reasons why an evaluation gave no fitness."""

from alembic import op

revision = "0039"
down_revision = "0037"

CREATE = """
ALTER TABLE strategy_candidates
    ADD COLUMN awaits_evaluation boolean NOT NULL DEFAULT false,
    ADD COLUMN failure_cause text,
    ADD CONSTRAINT ck_strategy_candidates_evaluated
        CHECK (fitness_score IS NULL OR NOT (awaits_evaluation OR failure_cause IS NOT NULL));
CREATE INDEX ix_strategy_candidates_waiting ON strategy_candidates (created_at, id) WHERE awaits_evaluation;
"""

DROP = """
DROP INDEX ix_strategy_candidates_waiting;
ALTER TABLE strategy_candidates
    DROP CONSTRAINT ck_strategy_candidates_evaluated,
    DROP COLUMN failure_cause,
    DROP COLUMN awaits_evaluation;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute(DROP)
