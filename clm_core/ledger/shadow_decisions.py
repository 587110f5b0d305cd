"""Places of recipes under shadow testing, with their share of the year's error budget, and decisions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update

from clm_core.domain.errors import ConflictError
from clm_core.domain.shadow_decisions import (
    PlaceOutcome,
    RecordedDecision,
    ShadowDecision,
    ShadowPlace,
)
from clm_core.evidence.alpha_spending import share
from clm_core.ledger.tables import Base, ShadowDecisionRow, ShadowPlaceRow
from clm_core.platform.locks import AdvisoryLock

_PLACES = Base.metadata.tables[ShadowPlaceRow.__tablename__]
_DECISIONS = Base.metadata.tables[ShadowDecisionRow.__tablename__]


class ShadowDecisionStore:
    """Places and decisions. Every method is a transaction, and a repeated call changes nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open_places(self) -> list[ShadowPlace]:
        """Open places of all models, oldest first."""
        query = select(_PLACES).where(_PLACES.c.closed_at.is_(None))
        query = query.order_by(_PLACES.c.started_at, _PLACES.c.id)
        with self._engine.begin() as connection:
            return [_place(row) for row in connection.execute(query).mappings()]

    def open_place(self, model_id: str, recipe: str) -> ShadowPlace | None:
        """Open place of a recipe, if any."""
        with self._engine.begin() as connection:
            return _open(connection, model_id, recipe)

    def take_place(self, model_id: str, recipe: str, started_at: datetime) -> ShadowPlace:
        """Open place of a recipe; a new place, started at a moment, for a recipe without."""
        with self._engine.begin() as connection:
            _lock(connection, model_id)
            place = _open(connection, model_id, recipe)
            if place is not None:
                return place
            values = {"model_id": model_id, "recipe": recipe, "started_at": started_at}
            taken = insert(_PLACES).values(values).returning(*_PLACES.c)
            return _place(connection.execute(taken).mappings().one())

    def take_level(self, place: ShadowPlace, year: int, yearly_error: float) -> ShadowPlace:
        """The place with a level: the share of the next rank of the year; a place with a level keeps it.

        Args:
            year: calendar year (UTC).
            yearly_error: error budget of the year.

        Raises:
            ConflictError: the place was closed meanwhile.
        """
        with self._engine.begin() as connection:
            # two recipes at once would take the same rank
            _lock(connection, place.model_id)
            stored = _open(connection, place.model_id, place.recipe)
            if stored is None or stored.id != place.id:
                raise ConflictError(
                    f"The place of {place.model_id} {place.recipe} was closed meanwhile: run `clm shadow` "
                    "again."
                )
            if stored.level is not None:
                return stored
            of_year = (_PLACES.c.model_id == place.model_id) & (_PLACES.c.year == year)
            rank = 1 + (connection.scalar(select(func.max(_PLACES.c.rank)).where(of_year)) or 0)
            budget = {"year": year, "rank": rank, "level": yearly_error * share(rank)}
            ranked = update(_PLACES).where(_PLACES.c.id == place.id).values(budget).returning(*_PLACES.c)
            return _place(connection.execute(ranked).mappings().one())

    def close_place(self, place: ShadowPlace, outcome: PlaceOutcome, now: datetime) -> None:
        """Close a place; a closed place keeps time and outcome."""
        closed = update(_PLACES).where(_PLACES.c.id == place.id, _PLACES.c.closed_at.is_(None))
        with self._engine.begin() as connection:
            connection.execute(closed.values(closed_at=now, outcome=outcome))

    def record(
        self,
        place: ShadowPlace | None,
        model_id: str,
        version: str,
        champion: str | None,
        decision: ShadowDecision,
        now: datetime,
    ) -> RecordedDecision:
        """Record a decision, unless the newest one of the UTC day has the same action, obstacle and champion.

        Returns:
            The recorded decision, or the newest one.
        """
        with self._engine.begin() as connection:
            _lock(connection, model_id)
            newest = _newest(connection, model_id, version)
            if newest is not None and _alike(newest, champion, decision, now):
                return newest
            values = {
                "place_id": None if place is None else place.id,
                "model_id": model_id,
                "version": version,
                "champion": champion,
                "decision": decision.model_dump(mode="json"),
                "at": now,
            }
            recorded = insert(_DECISIONS).values(values).returning(*_DECISIONS.c)
            return _decision(connection.execute(recorded).mappings().one())

    def newest(self, model_id: str, version: str) -> RecordedDecision | None:
        """Newest decision on a version, if any."""
        with self._engine.begin() as connection:
            return _newest(connection, model_id, version)

    def newest_of(self, place: ShadowPlace) -> RecordedDecision | None:
        """Newest decision about the holder of a place, if any."""
        query = select(_DECISIONS).where(_DECISIONS.c.place_id == place.id).order_by(_DECISIONS.c.id.desc())
        with self._engine.begin() as connection:
            row = connection.execute(query.limit(1)).mappings().one_or_none()
        return None if row is None else _decision(row)

    def history(self, model_id: str, version: str) -> list[RecordedDecision]:
        """Decisions on a version, oldest first."""
        query = select(_DECISIONS).where(_of(model_id, version)).order_by(_DECISIONS.c.id)
        with self._engine.begin() as connection:
            return [_decision(row) for row in connection.execute(query).mappings()]


def _alike(newest: RecordedDecision, champion: str | None, decision: ShadowDecision, now: datetime) -> bool:
    same_day = newest.at.date() == now.astimezone(newest.at.tzinfo).date()
    before = newest.decision
    return (
        same_day
        and newest.champion == champion
        and (before.action, before.waits_for) == (decision.action, decision.waits_for)
    )


def _lock(connection: Connection, model_id: str) -> None:
    lock = func.pg_advisory_xact_lock(AdvisoryLock.SHADOW_PLACES, func.hashtext(model_id))
    connection.execute(select(lock))


def _open(connection: Connection, model_id: str, recipe: str) -> ShadowPlace | None:
    query = select(_PLACES).where(
        _PLACES.c.model_id == model_id, _PLACES.c.recipe == recipe, _PLACES.c.closed_at.is_(None)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _place(row)


def _of(model_id: str, version: str) -> Any:
    return (_DECISIONS.c.model_id == model_id) & (_DECISIONS.c.version == version)


def _newest(connection: Connection, model_id: str, version: str) -> RecordedDecision | None:
    query = select(_DECISIONS).where(_of(model_id, version)).order_by(_DECISIONS.c.id.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _decision(row)


def _place(row: Mapping[Any, Any]) -> ShadowPlace:
    return ShadowPlace.model_validate({name: row[name] for name in ShadowPlace.model_fields})


def _decision(row: Mapping[Any, Any]) -> RecordedDecision:
    return RecordedDecision.model_validate({name: row[name] for name in RecordedDecision.model_fields})
