"""Strategy candidates: proposed by a person or by the evolution."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import AlreadyExists, NotFound, TooManyWaiting
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.events import EventType
from clm_core.domain.listings import CandidateQuery, Page
from clm_core.domain.vocabulary import CandidateOrder
from clm_core.ledger import events, paging
from clm_core.ledger.tables import Base, CandidateRow, storable
from clm_core.platform.locks import AdvisoryLock

_CANDIDATES = Base.metadata.tables[CandidateRow.__tablename__]
_RANKS = {
    CandidateOrder.CREATED_AT: _CANDIDATES.c.created_at,
    CandidateOrder.FITNESS_SCORE: _CANDIDATES.c.fitness_rank,
}


class CandidateStore:
    """Strategy candidates. Every method but `evaluation` is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks = create_engine(engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def add(self, candidate: StrategyCandidate) -> StrategyCandidate:
        """Record a candidate and the event about the candidate.

        Raises:
            AlreadyExists: a candidate with the same id is recorded.
            NotFound: a parent of the candidate is not recorded.
        """
        from psycopg.errors import UniqueViolation

        try:
            with self._engine.begin() as connection:
                record_candidate(connection, candidate)
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                raise AlreadyExists(
                    f"Candidate {candidate.id} is recorded already: choose another id."
                ) from error
            raise
        return candidate

    def post(self, candidate: StrategyCandidate, max_waiting: int) -> StrategyCandidate:
        """Record a waiting candidate; a candidate recorded before stays unchanged.

        Returns:
            The recorded candidate.

        Raises:
            TooManyWaiting: `max_waiting` candidates wait already.
        """
        with self._engine.begin() as connection:
            # two posts at once could both see the last free place
            connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.CANDIDATES)))
            known = select(*_CANDIDATES.c).where(_CANDIDATES.c.id == candidate.id)
            recorded = connection.execute(known).mappings().one_or_none()
            if recorded is not None:
                return _candidate(recorded)
            waiting = select(func.count()).where(_CANDIDATES.c.awaits_evaluation)
            if connection.execute(waiting).scalar_one() >= max_waiting:
                raise TooManyWaiting(
                    f"{max_waiting} candidates wait for their evaluation, as many as may wait: "
                    "`clm candidates evaluate` evaluates them at once, the scheduled pass a few an hour."
                )
            record_candidate(connection, candidate)
        return candidate

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[bool]:
        """The right to evaluate candidates, for the block or until the death of the process.

        Yields:
            False if another process has the right.
        """
        with self._locks.connect() as connection:
            taken = select(func.pg_try_advisory_lock(AdvisoryLock.CANDIDATE_EVALUATION))
            yield connection.execute(taken).scalar_one()

    def count_waiting(self) -> int:
        waiting = select(func.count()).where(_CANDIDATES.c.awaits_evaluation)
        with self._engine.begin() as connection:
            return connection.execute(waiting).scalar_one()

    def waiting(self, limit: int, without: Collection[UUID] = ()) -> list[StrategyCandidate]:
        """Waiting candidates, oldest first.

        Args:
            without: ids left out.
        """
        rows = (
            select(*_CANDIDATES.c)
            .where(_CANDIDATES.c.awaits_evaluation, _CANDIDATES.c.id.not_in(without))
            .order_by(_CANDIDATES.c.created_at, _CANDIDATES.c.id)
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return [_candidate(row) for row in connection.execute(rows).mappings()]

    def evaluated(
        self, candidate_id: UUID, fitness: IntervalEstimate | float | None, failure_cause: str | None = None
    ) -> None:
        """Record the result of an evaluation; a candidate evaluated before keeps its result.

        Args:
            fitness: measured fitness, with the interval where measured; None without fitness.
            failure_cause: reason for a missing fitness.
        """
        interval = fitness if isinstance(fitness, IntervalEstimate) else None
        changed = update(_CANDIDATES).where(_CANDIDATES.c.id == candidate_id, _CANDIDATES.c.awaits_evaluation)
        values = {
            "awaits_evaluation": False,
            "fitness_score": interval.value if interval is not None else fitness,
            "fitness_low": None if interval is None else interval.low,
            "fitness_high": None if interval is None else interval.high,
            "failure_cause": None if failure_cause is None else storable(failure_cause),
        }
        with self._engine.begin() as connection:
            connection.execute(changed.values(values))

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
        if query.awaits_evaluation is not None:
            conditions.append(_CANDIDATES.c.awaits_evaluation.is_(query.awaits_evaluation))
        rows = select(*_CANDIDATES.c).where(*conditions, *paging.created(query, _CANDIDATES.c.created_at))
        keys = (_RANKS[query.order], _CANDIDATES.c.id)
        with self._engine.begin() as connection:
            matching = connection.execute(paging.seek(rows, keys, query)).mappings().all()
        return paging.page(matching, keys, query, _candidate)


def record_candidate(connection: Connection, candidate: StrategyCandidate) -> None:
    """Record a candidate and the event about it in the caller's transaction.

    Raises:
        NotFound: a parent of the candidate is not recorded.
    """
    _require_parents(connection, candidate)
    row = candidate.model_dump() | {"parents": list(candidate.parents)}
    connection.execute(insert(_CANDIDATES).values(row))
    events.record(connection, EventType.STRATEGY_CANDIDATE_CREATED, candidate, candidate.created_at)


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
