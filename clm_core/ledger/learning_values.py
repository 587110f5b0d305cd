"""Values of continuous learning: the newest measurement of each model."""

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.paper import LearningValue
from clm_core.ledger.tables import Base, LearningValueRow

_VALUES = Base.metadata.tables[LearningValueRow.__tablename__]


class LearningValueStore:
    """Newest values of continuous learning. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, value: LearningValue) -> None:
        """Replace the value of the model, unless a newer measurement is recorded."""
        row = {
            "model_id": value.model_id,
            "frozen": value.frozen,
            "at": value.at,
            "value": value.model_dump(mode="json"),
        }
        new = insert(_VALUES).values(row)
        replaced = new.on_conflict_do_update(
            index_elements=["model_id"],
            set_={name: new.excluded[name] for name in ("frozen", "at", "value")},
            where=_VALUES.c.at <= new.excluded.at,
        )
        with self._engine.begin() as connection:
            connection.execute(replaced)

    def newest(self, model_id: str | None = None) -> dict[str, LearningValue]:
        """Value of one model or of all, by model."""
        query = select(_VALUES.c.value)
        if model_id is not None:
            query = query.where(_VALUES.c.model_id == model_id)
        with self._engine.begin() as connection:
            stored = connection.scalars(query).all()
        values = (LearningValue.model_validate(each) for each in stored)
        return {each.model_id: each for each in values}
