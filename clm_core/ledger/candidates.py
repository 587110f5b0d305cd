"""The record of proposed strategies."""

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
        """Record a proposal, and the event that tells of it.

        Raises:
            AlreadyExists: a candidate of that id is recorded.
            NotFound: one of its parents isn't.
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
                    f"Candidate {candidate.id} is recorded already: give another id."
                ) from error
            raise
        return candidate

    def get(self, candidate_id: UUID) -> StrategyCandidate:
        """
        Raises:
            NotFound: there is no such candidate.
        """
        if candidate_id not in (found := self.known([candidate_id])):
            raise NotFound(
                f"There is no candidate {candidate_id}: GET /clm/candidates lists those there are."
            )
        return found[candidate_id]

    def known(self, ids: Collection[UUID]) -> dict[UUID, StrategyCandidate]:
        """Of these ids, the candidates that are recorded."""
        rows = select(*_CANDIDATES.c).where(_CANDIDATES.c.id.in_(ids))
        with self._engine.begin() as connection:
            return {row["id"]: _candidate(row) for row in connection.execute(rows).mappings()}

    def find(self, query: CandidateQuery) -> Page[StrategyCandidate]:
        """
        Raises:
            InvalidCursor: the cursor is none, or another list's.
            InvalidSymbol: nothing can have that symbol.
        """
        names = ("base_strategy", "model_type", "plugin", "symbol", "timeframe", "origin")
        wanted = [_CANDIDATES.c[name] == value for name, value in paging.filters(query, *names)]
        if query.min_fitness is not None:
            wanted.append(_CANDIDATES.c.fitness_rank >= query.min_fitness)
        rows = select(*_CANDIDATES.c).where(*wanted, *paging.created(query, _CANDIDATES.c.created_at))
        keys = (_RANKS[query.order], _CANDIDATES.c.id)
        with self._engine.begin() as connection:
            found = connection.execute(paging.seek(rows, keys, query)).mappings().all()
        return paging.page(found, keys, query, _candidate)


def _candidate(row: Mapping[Any, Any]) -> StrategyCandidate:
    return StrategyCandidate.model_validate({name: row[name] for name in StrategyCandidate.model_fields})


def _require_parents(connection: Connection, candidate: StrategyCandidate) -> None:
    # nothing deletes a candidate: what is there now stays
    wanted = set(candidate.parents)
    known = select(_CANDIDATES.c.id).where(_CANDIDATES.c.id.in_(wanted))
    missing = wanted - set(connection.scalars(known))
    if missing:
        raise NotFound(
            f"Candidate {candidate.id} has parents that are not recorded: "
            f"{', '.join(sorted(map(str, missing)))}. Record them first."
        )
