"""Reservation of version labels, so that no two registrations take the same label."""

import contextlib
from collections.abc import Callable, Iterator, Set
from datetime import datetime, timedelta

from sqlalchemy import Engine, NullPool, create_engine, func, select

from clm_core.domain.versions import version_label
from clm_core.platform.locks import AdvisoryLock


class LabelStore:
    """Labels of versions that are being stored.

    Each label has a lock of its own: no registration waits for the upload of another, and no promotion waits
    for a registration.
    """

    def __init__(self, engine: Engine) -> None:
        # without a pool: the uploads of many threads must not use up the connections of the other stores
        self._locks = create_engine(engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    @contextlib.contextmanager
    def reserved(self, model_id: str, now: datetime, taken: Callable[[], Set[str]]) -> Iterator[str]:
        """The label of the present second, or of the next second without a version.

        The label is reserved for the block, or until the death of the process.

        Args:
            taken: reads the labels of the stored versions.
        """
        with self._locks.connect() as connection:
            moment, known = now, frozenset[str]()
            while True:
                label = version_label(moment)
                lock = (AdvisoryLock.LABEL, func.hashtext(f"{model_id} {label}"))
                if (
                    label not in known
                    and connection.execute(select(func.pg_try_advisory_lock(*lock))).scalar_one()
                ):
                    # read under the lock: a registration that held the lock until now has stored its version
                    known = frozenset(taken())
                    if label not in known:
                        break
                    connection.execute(select(func.pg_advisory_unlock(*lock)))
                moment += timedelta(seconds=1)
            yield label
