"""Schedules and last successes of the scheduled passes, by the clock of the database."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from clm_core.domain.passes import PassSchedule, ScheduledPass
from clm_core.ledger.tables import Base, ScheduledPassRow

_PASSES = Base.metadata.tables[ScheduledPassRow.__tablename__]


class PassStore:
    """Scheduled passes. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def succeeded(self, name: str) -> None:
        """Record that a run of the pass has just ended without problems."""
        now = func.clock_timestamp()
        success = insert(_PASSES).values(name=name, paused=False, succeeded_at=now)
        with self._engine.begin() as connection:
            connection.execute(
                success.on_conflict_do_update(index_elements=["name"], set_={"succeeded_at": now})
            )

    def expect(self, schedules: Mapping[str, PassSchedule], removed: Collection[str] = ()) -> None:
        """Take over the schedules of Prefect, and forget the removed passes.

        Runs of a new schedule, of another interval, and after the end of a pause are due from now on.
        """
        now = func.clock_timestamp()
        with self._engine.begin() as connection:
            connection.execute(delete(_PASSES).where(_PASSES.c.name.in_(removed)))
            for name, schedule in schedules.items():
                seconds = schedule.every.total_seconds()
                row = insert(_PASSES).values(
                    name=name, every_seconds=seconds, paused=schedule.paused, expected_since=now
                )
                unchanged = (_PASSES.c.every_seconds == seconds) & ~(_PASSES.c.paused & ~row.excluded.paused)
                connection.execute(
                    row.on_conflict_do_update(
                        index_elements=["name"],
                        set_={
                            "every_seconds": row.excluded.every_seconds,
                            "paused": row.excluded.paused,
                            "expected_since": case((unchanged, _PASSES.c.expected_since), else_=now),
                        },
                    )
                )

    def restart(self) -> None:
        """Count from now on, after a time without servers, or of a suspended machine, when no run could
        succeed."""
        due = update(_PASSES).where(_PASSES.c.expected_since.is_not(None))
        with self._engine.begin() as connection:
            connection.execute(due.values(expected_since=func.clock_timestamp()))

    def read(self) -> tuple[list[ScheduledPass], datetime]:
        """Passes with a known schedule, and the present time of the database."""
        query = select(_PASSES).where(_PASSES.c.every_seconds.is_not(None)).order_by(_PASSES.c.name)
        with self._engine.begin() as connection:
            now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            rows = connection.execute(query).mappings().all()
        passes = [
            ScheduledPass(
                name=row["name"],
                every=timedelta(seconds=row["every_seconds"]),
                paused=row["paused"],
                expected_since=row["expected_since"],
                succeeded_at=row["succeeded_at"],
            )
            for row in rows
        ]
        return passes, now.astimezone(UTC)
