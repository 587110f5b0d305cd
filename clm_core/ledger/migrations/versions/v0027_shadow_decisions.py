"""Places of recipes under shadow testing, and the decisions on their versions."""

from alembic import op

revision = "0027"
down_revision = "0026"

CREATE = """
CREATE TABLE shadow_places (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_shadow_places PRIMARY KEY,
    model_id text NOT NULL,
    recipe text NOT NULL,
    started_at timestamptz NOT NULL,
    year integer,
    rank integer CONSTRAINT ck_shadow_places_rank CHECK (rank > 0),
    level double precision CONSTRAINT ck_shadow_places_level CHECK (level > 0 AND level < 1),
    closed_at timestamptz,
    outcome text CONSTRAINT ck_shadow_places_outcome CHECK (outcome IN ('promoted', 'retired', 'expired')),
    CONSTRAINT ck_shadow_places_budget CHECK (
        (year IS NULL) = (rank IS NULL) AND (year IS NULL) = (level IS NULL)
    ),
    CONSTRAINT ck_shadow_places_closed CHECK ((closed_at IS NULL) = (outcome IS NULL)),
    CONSTRAINT uq_shadow_places_model_id_year_rank UNIQUE (model_id, year, rank)
);
CREATE UNIQUE INDEX ix_shadow_places_open ON shadow_places (model_id, recipe) WHERE closed_at IS NULL;

CREATE TABLE shadow_decisions (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_shadow_decisions PRIMARY KEY,
    place_id bigint CONSTRAINT fk_shadow_decisions_place_id REFERENCES shadow_places (id),
    model_id text NOT NULL,
    version text NOT NULL,
    champion text,
    decision jsonb NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT fk_shadow_decisions_model_id_version
        FOREIGN KEY (model_id, version) REFERENCES model_versions (model_id, version)
);
CREATE INDEX ix_shadow_decisions_model_id_version_id ON shadow_decisions (model_id, version, id);

-- decisions as the trials: the application adds to them and no more; a place changes until it is closed
REVOKE UPDATE, DELETE ON shadow_decisions FROM clm_app;
REVOKE DELETE ON shadow_places FROM clm_app;
"""


def upgrade() -> None:
    op.execute(CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE shadow_decisions, shadow_places")
