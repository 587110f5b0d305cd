"""Counts of models, versions, jobs and promotions."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType
from clm_core.ledger.tables import Base, JobRow, VersionRow

_JOBS = Base.metadata.tables[JobRow.__tablename__]
_VERSIONS = Base.metadata.tables[VersionRow.__tablename__]
_CHANGES = text("""
SELECT count(*) FILTER (WHERE kind IN ('promotion', 'adoption')) AS promotions,
       count(*) FILTER (WHERE kind = 'rollback') AS rollbacks,
       count(*) FILTER (WHERE forced) AS forced,
       coalesce(sum(confirmations), 0) AS confirmations
FROM promotions WHERE state = 'committed'
""")
_PROMOTION_RATE = text("""
SELECT avg(EXISTS (
    SELECT FROM promotions p
    WHERE p.state = 'committed' AND p.kind IN ('promotion', 'adoption') AND NOT p.forced
    AND p.model_id = judged.model_id AND p.to_version = judged.version
)::int)::float8
FROM (SELECT DISTINCT model_id, version FROM evaluations) AS judged
""")


@dataclass(frozen=True)
class Counts:
    """Number of records in the ledger; a status without records is left out."""

    models: int
    """Model ids with at least one version."""
    types: Mapping[ModelType, int]
    """Model ids with at least one version, by type of model."""
    versions: Mapping[ModelStatus, int]
    jobs: Mapping[JobStatus, int]
    promotions: int
    """Committed promotions and adoptions, forced promotions included."""
    rollbacks: int
    forced: int
    """Promotions, adoptions and rollbacks for which an admin overruled the gate."""
    confirmations: int
    """Number of times an admin prolonged a forced change."""
    promotion_rate: float | None
    """Share of the judged versions promoted without force, 0..1; None if no version is judged."""


def count(connection: Connection) -> Counts:
    distinct = func.count(_VERSIONS.c.model_id.distinct())
    types = connection.execute(select(_VERSIONS.c.model_type, distinct).group_by("model_type")).all()
    versions = connection.execute(select(_VERSIONS.c.status, func.count()).group_by("status"))
    jobs = connection.execute(select(_JOBS.c.status, func.count()).group_by("status"))
    changes = connection.execute(_CHANGES).one()
    return Counts(
        models=sum(number for _, number in types),
        types={ModelType(model_type): number for model_type, number in types},
        versions={ModelStatus(status): number for status, number in versions},
        jobs={JobStatus(status): number for status, number in jobs},
        promotions=changes.promotions,
        rollbacks=changes.rollbacks,
        forced=changes.forced,
        confirmations=int(changes.confirmations),
        promotion_rate=connection.scalar(_PROMOTION_RATE),
    )
