"""Fills reported by traders: recorded once, never changed or deleted."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert as insert_once

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.fills import FillQuery, RecordedFill
from clm_core.domain.listings import Page
from clm_core.ledger import paging
from clm_core.ledger.tables import Base, FillRow

_FILLS = Base.metadata.tables[FillRow.__tablename__]


class FillStore:
    """Fills of all models. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, fills: Sequence[RecordedFill], fault: Fault | None = None) -> int:
        """Record all fills or none; fills known with the same contents stay as they are.

        Returns:
            Number of new records.

        Raises:
            AlreadyExists: a fill is recorded with the same id and other contents.
        """
        if not fills:
            return 0
        new = insert_once(_FILLS).on_conflict_do_nothing().returning(_FILLS.c.id)
        known = select(*_FILLS.c).where(
            _FILLS.c.model_id.in_({each.model_id for each in fills}),
            _FILLS.c.id.in_({each.id for each in fills}),
        )
        with self._engine.begin() as connection:
            added = connection.execute(new, [each.model_dump() for each in fills]).all()
            crash_at(Fault.FILLS_INSERTED, fault)
            stored = {
                (row["model_id"], row["id"]): _fill(row) for row in connection.execute(known).mappings()
            }
            for number, each in enumerate(fills, start=1):
                before = stored[each.model_id, each.id]
                if not each.repeats(before):
                    raise AlreadyExists(
                        f"Fill {number} ({each.id}): {each.model_id} has a fill of the same id with other "
                        f"contents, reported by {before.reported_by} at {before.at:%Y-%m-%d %H:%M} UTC. A "
                        "report is never changed: send a correction as a fill of its own, with its own id."
                    )
        return len(added)

    def known(self, model_id: str, ids: Collection[str]) -> dict[str, RecordedFill]:
        """Recorded fills of a model among the ids."""
        query = select(*_FILLS.c).where(_FILLS.c.model_id == model_id, _FILLS.c.id.in_(ids))
        with self._engine.begin() as connection:
            return {row["id"]: _fill(row) for row in connection.execute(query).mappings()}

    def of_model(self, model_id: str, since: datetime | None = None) -> list[RecordedFill]:
        """Fills of a model from a moment on, oldest first."""
        query = select(*_FILLS.c).where(_FILLS.c.model_id == model_id)
        if since is not None:
            query = query.where(_FILLS.c.time >= since)
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(_FILLS.c.time, _FILLS.c.id)).mappings()
            return [_fill(row) for row in rows]

    def find(self, model_id: str, query: FillQuery) -> Page[RecordedFill]:
        """
        Raises:
            InvalidCursor: the cursor is malformed, or belongs to another list.
            InvalidSymbol: the symbol of the query is malformed.
        """
        conditions = [_FILLS.c[name] == value for name, value in paging.filters(query, "version", "symbol")]
        rows = select(*_FILLS.c).where(
            _FILLS.c.model_id == model_id, *conditions, *paging.created(query, _FILLS.c.time)
        )
        keys = (_FILLS.c.time, _FILLS.c.id)
        with self._engine.begin() as connection:
            matching = connection.execute(paging.seek(rows, keys, query)).mappings().all()
        return paging.page(matching, keys, query, _fill)


def _fill(row: Mapping[Any, Any]) -> RecordedFill:
    return RecordedFill.model_validate(dict(row))
