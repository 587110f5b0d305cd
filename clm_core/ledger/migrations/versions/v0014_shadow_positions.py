"""What versions that do not serve wanted to hold, bar by bar."""

from alembic import op

revision = "0014"
down_revision = "0013"

CREATE = """
CREATE TABLE shadow_positions (
    model_id text NOT NULL,
    version text NOT NULL,
    bar_time timestamptz NOT NULL,
    position double precision NOT NULL
        CONSTRAINT ck_shadow_positions_position CHECK (position BETWEEN -1 AND 1),
    recorded_at timestamptz NOT NULL,
    CONSTRAINT pk_shadow_positions PRIMARY KEY (model_id, version, bar_time),
    CONSTRAINT fk_shadow_positions_model_id_version
        FOREIGN KEY (model_id, version) REFERENCES model_versions (model_id, version)
);

-- as the trials: the application adds to them and no more
REVOKE UPDATE, DELETE ON shadow_positions FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE shadow_positions")
