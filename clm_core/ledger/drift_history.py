"""Drift of production versions by day: the first measurement of a day, never changed."""

from collections.abc import Sequence
from datetime import date

from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.drift_history import DriftMeasurement
from clm_core.ledger.tables import Base, DriftMeasurementRow

_DRIFT = Base.metadata.tables[DriftMeasurementRow.__tablename__]

_MEASURED = [_DRIFT.c[name] for name in DriftMeasurement.model_fields]


class DriftStore:
    """Measured drift of versions. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, model_id: str, version: str, measurements: Sequence[DriftMeasurement]) -> int:
        """Record measurements; those of a day and name recorded before stay.

        Returns:
            Number of new records.
        """
        rows = [{"model_id": model_id, "version": version, **each.model_dump()} for each in measurements]
        if not rows:
            return 0
        new = insert(_DRIFT).on_conflict_do_nothing().returning(_DRIFT.c.name)
        with self._engine.begin() as connection:
            return len(connection.execute(new, rows).all())

    def since(self, model_id: str, version: str, first: date) -> list[DriftMeasurement]:
        """Measurements of a version from a day on, by day and name."""
        query = (
            select(*_MEASURED)
            .where(_DRIFT.c.model_id == model_id, _DRIFT.c.version == version, _DRIFT.c.day >= first)
            .order_by(_DRIFT.c.day, _DRIFT.c.name)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [DriftMeasurement.model_validate(dict(row)) for row in rows]

    def small(
        self, model_id: str, version: str, first: date, last: date, max_p_value: float
    ) -> tuple[int, list[DriftMeasurement]]:
        """Number of the measurements of a version in a span of days, both included, and the measurements with
        a p-value of at most `max_p_value`."""
        in_span = (
            _DRIFT.c.model_id == model_id,
            _DRIFT.c.version == version,
            _DRIFT.c.day.between(first, last),
        )
        count = select(func.count()).select_from(_DRIFT).where(*in_span)
        query = (
            select(*_MEASURED)
            .where(*in_span, _DRIFT.c.p_value <= max_p_value)
            .order_by(_DRIFT.c.day, _DRIFT.c.name)
        )
        with self._engine.begin() as connection:
            tests = connection.scalar(count) or 0
            rows = connection.execute(query).mappings().all()
        return tests, [DriftMeasurement.model_validate(dict(row)) for row in rows]
