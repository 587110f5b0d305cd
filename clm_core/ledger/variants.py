"""Variants proposed for weak production versions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select, update
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.variants import ProposedVariants
from clm_core.ledger.candidates import record_candidate
from clm_core.ledger.tables import Base, ProposedVariantsRow, storable

_PROPOSED = Base.metadata.tables[ProposedVariantsRow.__tablename__]


class VariantStore:
    """Proposed variants. Every method is a transaction, and a repeated call changes nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self, proposed: ProposedVariants, candidates: Sequence[StrategyCandidate]) -> bool:
        """Record proposed variants together with the candidates.

        Returns:
            False if variants with the same id are recorded.

        Raises:
            NotFound: a parent of a candidate is not recorded.
        """
        row = proposed.model_dump() | {
            "search": proposed.search.model_dump(mode="json"),
            "candidates": list(proposed.candidates),
        }
        opened = insert(_PROPOSED).values(row).on_conflict_do_nothing().returning(_PROPOSED.c.id)
        with self._engine.begin() as connection:
            if connection.scalar(opened) is None:
                return False
            for each in candidates:
                record_candidate(connection, each)
        return True

    def find(self, proposed_id: UUID) -> ProposedVariants | None:
        query = select(*_PROPOSED.c).where(_PROPOSED.c.id == proposed_id)
        with self._engine.begin() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _proposed(row)

    def unanswered(self) -> list[ProposedVariants]:
        """Proposed variants without an answer, oldest first."""
        query = select(*_PROPOSED.c).where(_PROPOSED.c.ended_at.is_(None))
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(_PROPOSED.c.opened_at, _PROPOSED.c.id)).mappings()
            return [_proposed(row) for row in rows]

    def newest(self, model_id: str | None, limit: int) -> list[ProposedVariants]:
        """Proposed variants, newest first.

        Args:
            model_id: only variants of this model; None for all models.
        """
        query = select(*_PROPOSED.c).order_by(_PROPOSED.c.opened_at.desc(), _PROPOSED.c.id).limit(limit)
        if model_id is not None:
            query = query.where(_PROPOSED.c.model_id == model_id)
        with self._engine.begin() as connection:
            return [_proposed(row) for row in connection.execute(query).mappings()]

    def end(self, proposed_id: UUID, outcome: str, job_id: UUID | None, now: datetime) -> None:
        """Record the answer.

        Args:
            outcome: answer in words.
            job_id: job of the requested retrain, if any.
        """
        ended = update(_PROPOSED).where(_PROPOSED.c.id == proposed_id, _PROPOSED.c.ended_at.is_(None))
        with self._engine.begin() as connection:
            connection.execute(ended.values(outcome=storable(outcome), job_id=job_id, ended_at=now))


def _proposed(row: Mapping[Any, Any]) -> ProposedVariants:
    return ProposedVariants.model_validate({name: row[name] for name in ProposedVariants.model_fields})
