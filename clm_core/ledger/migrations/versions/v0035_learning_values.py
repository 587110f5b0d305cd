"""Values of continuous learning for the pages."""

from alembic import op

revision = "0035"
down_revision = "0034"

CREATE = """
CREATE TABLE learning_values (
    model_id text NOT NULL CONSTRAINT pk_learning_values PRIMARY KEY,
    frozen text NOT NULL,
    at timestamptz NOT NULL,
    value jsonb NOT NULL,
    CONSTRAINT fk_learning_values_model_id_frozen FOREIGN KEY (model_id, frozen)
        REFERENCES model_versions (model_id, version)
);
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE learning_values")
