"""Positions of followed versions, recorded once, never changed or deleted, and the newest check of each."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine, Interval, func, literal, select
from sqlalchemy.dialects.postgresql import insert as insert_once

from clm_core.domain.shadows import RecordCheck, ShadowRecord
from clm_core.ledger.tables import Base, ShadowCheckRow, ShadowPositionRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clm_core.market.bars import Floats

_POSITIONS = Base.metadata.tables[ShadowPositionRow.__tablename__]
_CHECKS = Base.metadata.tables[ShadowCheckRow.__tablename__]


class ShadowStore:
    """Positions of shadow versions. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(
        self,
        model_id: str,
        version: str,
        time: "NDArray[np.int64]",
        positions: "Floats",
        now: datetime,
        symbol: str = "",
        bar: timedelta | None = None,
    ) -> int:
        """Record a version's positions after the given bars; existing records stay unchanged.

        Args:
            symbol: member of a pool that the bars belong to; empty for a version of one market.
            time: open times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,).
            positions: target positions in [-1, 1], shape (n_bars,).
            bar: length of a bar, in a replay, where each position is recorded at the close of its bar;
                None records all at `now`.

        Returns:
            Number of new records.
        """
        import pandas as pd

        rows = [
            {
                "model_id": model_id,
                "version": version,
                "symbol": symbol,
                "bar_time": moment.to_pydatetime(),
                "position": position,
                "recorded_at": now if bar is None else moment.to_pydatetime() + bar,
            }
            for moment, position in zip(pd.to_datetime(time, utc=True), positions.tolist(), strict=True)
        ]
        if not rows:
            return 0
        new = insert_once(_POSITIONS).on_conflict_do_nothing().returning(_POSITIONS.c.bar_time)
        with self._engine.begin() as connection:
            return len(connection.execute(new, rows).all())

    def recorded(self, model_id: str, version: str, first: datetime, symbol: str = "") -> ShadowRecord:
        """Recorded positions of a version, from the bar with the given open time on; for one member of a
        pool."""
        import numpy as np

        query = (
            select(_POSITIONS.c.bar_time, _POSITIONS.c.position, _POSITIONS.c.recorded_at)
            .where(
                _POSITIONS.c.model_id == model_id,
                _POSITIONS.c.version == version,
                _POSITIONS.c.symbol == symbol,
                _POSITIONS.c.bar_time >= first,
            )
            .order_by(_POSITIONS.c.bar_time)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        time, position, recorded_at = zip(*rows, strict=True) if rows else ((), (), ())
        positions = np.array(position, dtype=np.float64)
        return ShadowRecord(_nanoseconds(time), positions, _nanoseconds(recorded_at))

    def newest_check(self, model_id: str, version: str, symbol: str = "") -> RecordCheck | None:
        """Newest whole check of a version's record; None before the first."""
        query = select(_CHECKS.c.checked_at, _CHECKS.c.corrections, _CHECKS.c.explained, _CHECKS.c.problem)
        of_version = (
            _CHECKS.c.model_id == model_id,
            _CHECKS.c.version == version,
            _CHECKS.c.symbol == symbol,
        )
        with self._engine.begin() as connection:
            row = connection.execute(query.where(*of_version)).one_or_none()
        return None if row is None else RecordCheck(*row)

    def save_check(self, model_id: str, version: str, symbol: str, check: RecordCheck) -> None:
        """Store a whole check in place of the one before."""
        values = asdict(check)
        row = {"model_id": model_id, "version": version, "symbol": symbol} | values
        keys = [_CHECKS.c.model_id, _CHECKS.c.version, _CHECKS.c.symbol]
        statement = insert_once(_CHECKS).values(row)
        with self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=values))

    def newest_in_time(self, model_id: str, version: str, bar: timedelta) -> datetime | None:
        """Close of the newest bar whose position was recorded before the close of the next bar; None: none.

        Args:
            bar: length of a bar.
        """
        newest = select(func.max(_POSITIONS.c.bar_time)).where(
            _POSITIONS.c.model_id == model_id,
            _POSITIONS.c.version == version,
            _POSITIONS.c.recorded_at - _POSITIONS.c.bar_time <= literal(2 * bar, Interval),
        )
        with self._engine.begin() as connection:
            opened: datetime | None = connection.scalar(newest)
        return None if opened is None else opened + bar


def _nanoseconds(moments: tuple[datetime, ...]) -> "NDArray[np.int64]":
    import numpy as np
    import pandas as pd

    index = pd.DatetimeIndex(moments, tz="UTC")
    return np.asarray(index.as_unit("ns").asi8, dtype=np.int64)
