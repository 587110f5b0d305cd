"""Strategy candidates: proposed by a person or by the evolution."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import AlreadyExists, NotFound
from clm_core.domain.events import EventType
from clm_core.domain.listings import CandidateQuery, Page
from clm_core.domain.vocabulary import CandidateOrder
from clm_core.ledger import events, paging
from clm_core.ledger.tables import Base, CandidateRow

_CANDIDATES = Base.metadata.tables[CandidateRow.__tablename__]
_RANKS = {
    CandidateOrder.CREATED_AT: _CANDIDATES.c.created_at,
    CandidateOrder.FITNESS_SCORE: _CANDIDATES.c.fitness_rank,
}


class CandidateStore:
    """Strategy candidates. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, candidate: StrategyCandidate) -> StrategyCandidate:
        """Record a candidate and the event about the candidate.

        Raises:
            AlreadyExists: a candidate with the same id is recorded.
            NotFound: a parent of the candidate is not recorded.
        """
        from psycopg.errors import UniqueViolation

        row = candidate.model_dump() | {"parents": list(candidate.parents)}
        try:
            with self._engine.begin() as connection:
                _require_parents(connection, candidate)
                connection.execute(insert(_CANDIDATES).values(row))
                created = EventType.STRATEGY_CANDIDATE_CREATED
                events.record(connection, created, candidate, candidate.created_at)
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                raise AlreadyExists(
                    f"Candidate {candidate.id} is recorded already: choose another id."
                ) from error
            raise
        return candidate

    def get(self, candidate_id: UUID) -> StrategyCandidate:
        """
        Raises:
            NotFound: the candidate does not exist.
        """
        if candidate_id not in (known := self.known([candidate_id])):
            raise NotFound(f"There is no candidate {candidate_id}: GET /clm/candidates lists the candidates.")
        return known[candidate_id]

    def known(self, ids: Collection[UUID]) -> dict[UUID, StrategyCandidate]:
        """Recorded candidates among the ids."""
        rows = select(*_CANDIDATES.c).where(_CANDIDATES.c.id.in_(ids))
        with self._engine.begin() as connection:
            return {row["id"]: _candidate(row) for row in connection.execute(rows).mappings()}

    def find(self, query: CandidateQuery) -> Page[StrategyCandidate]:
        """
        Raises:
            InvalidCursor: the cursor is malformed, or belongs to another list.
            InvalidSymbol: the symbol of the query is malformed.
        """
        names = ("base_strategy", "model_type", "plugin", "symbol", "timeframe", "origin")
        conditions = [_CANDIDATES.c[name] == value for name, value in paging.filters(query, *names)]
        if query.min_fitness is not None:
            conditions.append(_CANDIDATES.c.fitness_rank >= query.min_fitness)
        rows = select(*_CANDIDATES.c).where(*conditions, *paging.created(query, _CANDIDATES.c.created_at))
        keys = (_RANKS[query.order], _CANDIDATES.c.id)
        with self._engine.begin() as connection:
            matching = connection.execute(paging.seek(rows, keys, query)).mappings().all()
        return paging.page(matching, keys, query, _candidate)


def _candidate(row: Mapping[Any, Any]) -> StrategyCandidate:
    return StrategyCandidate.model_validate({name: row[name] for name in StrategyCandidate.model_fields})


def _require_parents(connection: Connection, candidate: StrategyCandidate) -> None:
    # candidates are never deleted: a parent found now remains
    parents = set(candidate.parents)
    known = select(_CANDIDATES.c.id).where(_CANDIDATES.c.id.in_(parents))
    missing = parents - set(connection.scalars(known))
    if missing:
        raise NotFound(
            f"Candidate {candidate.id} has unrecorded parents: "
            f"{', '.join(sorted(map(str, missing)))}. Record the parents first."
        )
