"""Standings of production versions: the newest measurement of each model."""

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.standings import ProductionStanding
from clm_core.ledger.tables import Base, StandingRow

_STANDINGS = Base.metadata.tables[StandingRow.__tablename__]


class StandingStore:
    """Newest standings. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, standing: ProductionStanding) -> None:
        """Replace the standing of the model, unless a newer measurement is recorded."""
        row = {
            "model_id": standing.model_id,
            "version": standing.version,
            "at": standing.at,
            "standing": standing.model_dump(mode="json"),
        }
        new = insert(_STANDINGS).values(row)
        replaced = new.on_conflict_do_update(
            index_elements=["model_id"],
            set_={name: new.excluded[name] for name in ("version", "at", "standing")},
            where=_STANDINGS.c.at <= new.excluded.at,
        )
        with self._engine.begin() as connection:
            connection.execute(replaced)

    def newest(self, model_id: str | None = None) -> dict[str, ProductionStanding]:
        """Standing of one model or of all, by model."""
        query = select(_STANDINGS.c.standing)
        if model_id is not None:
            query = query.where(_STANDINGS.c.model_id == model_id)
        with self._engine.begin() as connection:
            stored = connection.scalars(query).all()
        standings = (ProductionStanding.model_validate(each) for each in stored)
        return {each.model_id: each for each in standings}
