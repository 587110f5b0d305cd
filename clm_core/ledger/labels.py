"""Reservation of version labels, so that no two registrations take the same label."""

import contextlib
from collections.abc import Callable, Iterator, Set
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import OperationalError

from clm_core.domain.versions import version_label
from clm_core.ledger.engine import lock_engine
from clm_core.platform.locks import AdvisoryLock


class LabelStore:
    """Labels of versions that are being stored.

    Each label has a lock of its own: no registration waits for the upload of another, and no promotion waits
    for a registration.
    """

    def __init__(self, engine: Engine) -> None:
        # no transaction: an upload takes minutes
        self._locks = lock_engine(engine).execution_options(isolation_level="AUTOCOMMIT")

    @contextlib.contextmanager
    def reserved(self, model_id: str, now: datetime, taken: Callable[[], Set[str]]) -> Iterator[str]:
        """The label of the present second, or of the next second without a version.

        The label is reserved for the block, or until the death of the process.

        Args:
            taken: reads the labels of the stored versions.
        """
        with self._locks.connect() as connection:
            try:
                yield _free_label(connection, model_id, now, taken)
            finally:
                # a lost connection has lost its locks as well
                with contextlib.suppress(OperationalError):
                    connection.execute(select(func.pg_advisory_unlock_all()))


def _free_label(connection: Connection, model_id: str, now: datetime, taken: Callable[[], Set[str]]) -> str:
    """A label without a version, whose lock the connection holds."""
    moment = now
    known = frozenset[str]()
    while True:
        label = version_label(moment)
        lock = (AdvisoryLock.LABEL, func.hashtext(f"{model_id} {label}"))
        if label not in known and connection.execute(select(func.pg_try_advisory_lock(*lock))).scalar_one():
            # read under the lock: a registration that held the lock until now has stored its version
            known = frozenset(taken())
            if label not in known:
                return label
            connection.execute(select(func.pg_advisory_unlock(*lock)))
        moment += timedelta(seconds=1)
