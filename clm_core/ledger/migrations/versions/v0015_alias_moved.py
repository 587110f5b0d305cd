"""An alias moved by hand is called `alias_moved`, no longer `drift`; a failing maintenance by that name."""

from alembic import op

revision = "0015"
down_revision = "0014"

_PROMOTIONS = """
ALTER TABLE promotions
    DROP CONSTRAINT ck_promotions_kind,
    DROP CONSTRAINT ck_promotions_state,
    DROP CONSTRAINT ck_promotions_{old},
    DROP CONSTRAINT ck_promotions_target,
    DROP CONSTRAINT ck_promotions_finished;
UPDATE promotions SET kind = '{new}', state = '{new}' WHERE kind = '{old}';
ALTER TABLE promotions
    ADD CONSTRAINT ck_promotions_kind CHECK (
        kind IN ('promotion', 'rollback', 'adoption', 'loss', '{new}')),
    ADD CONSTRAINT ck_promotions_state CHECK (state IN ('intent', 'committed', 'aborted', '{new}')),
    ADD CONSTRAINT ck_promotions_{new} CHECK ((kind = '{new}') = (state = '{new}')),
    ADD CONSTRAINT ck_promotions_target CHECK (
        to_version IS NOT NULL AND kind <> 'loss' OR kind = '{new}' OR to_version IS NULL AND kind = 'loss'),
    ADD CONSTRAINT ck_promotions_finished CHECK (
        state = '{new}' OR (finished_at IS NULL) = (state = 'intent'));
"""
# a dead letter describes an alert by its kind and its subject
_KIND = """
UPDATE alerts SET kind = '{new}' WHERE kind = '{old}';
UPDATE dead_letters SET about = '{new}' || substr(about, length('{old}') + 1)
    FROM receivers
    WHERE receivers.name = receiver AND stream = 'alerts' AND starts_with(about, '{old} ');
"""
KINDS = {"drift_detected": "alias_moved", "upkeep_failing": "maintenance_failing"}


def upgrade() -> None:
    op.execute(_PROMOTIONS.format(old="drift", new="alias_moved"))
    for old, new in KINDS.items():
        op.execute(_KIND.format(old=old, new=new))


def downgrade() -> None:
    op.execute(_PROMOTIONS.format(old="alias_moved", new="drift"))
    for old, new in KINDS.items():
        op.execute(_KIND.format(old=new, new=old))
