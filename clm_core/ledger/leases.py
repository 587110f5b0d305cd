"""Leases: the exclusive right of a process to write about a job in progress.

The process that runs a job renews the job's lease. The reaper takes an expired lease over under a new fencing
token. A revived process still writes with the old token, and is refused: the database compares tokens in the
transaction of every write, and the lease cannot change hands before the transaction ends.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, ScalarSelect, delete, insert, select, text, update
from sqlalchemy.exc import OperationalError

from clm_core.domain.errors import IllegalTransition, LeaseLost
from clm_core.domain.jobs import Lease
from clm_core.ledger.tables import Base, LeaseRow

_LEASES = Base.metadata.tables[LeaseRow.__tablename__]


def take(connection: Connection, job_id: UUID, holder: str, now: datetime, length: timedelta) -> Lease:
    row = {"job_id": job_id, "holder": holder, "expires_at": now + length}
    taken = connection.execute(insert(_LEASES).values(row).returning(*_LEASES.c))
    return Lease.model_validate(dict(taken.mappings().one()))


def take_over_expired(connection: Connection, holder: str, now: datetime, length: timedelta) -> list[Lease]:
    """Take every expired lease over; of two concurrent callers only the first gets a lease."""
    taken = connection.execute(
        update(_LEASES)
        .where(_LEASES.c.expires_at <= now)
        .values(holder=holder, token=text("DEFAULT"), expires_at=now + length)
        .returning(*_LEASES.c)
    )
    return [Lease.model_validate(dict(row)) for row in taken.mappings()]


def renew(connection: Connection, lease: Lease, now: datetime, length: timedelta) -> None:
    """Prolong a lease, even an expired lease that was not taken over.

    Raises:
        LeaseLost: the lease was taken over, or the job has ended.
    """
    own = (_LEASES.c.job_id == lease.job_id) & (_LEASES.c.token == lease.token)
    if not connection.execute(update(_LEASES).where(own).values(expires_at=now + length)).rowcount:
        raise _lost(lease)


def give_back(connection: Connection, lease: Lease) -> None:
    """
    Raises:
        LeaseLost: the lease was taken over, or the job has ended.
    """
    own = (_LEASES.c.job_id == lease.job_id) & (_LEASES.c.token == lease.token)
    if not connection.execute(delete(_LEASES).where(own)).rowcount:
        raise _lost(lease)


def require(connection: Connection, job: UUID | ScalarSelect[UUID], lease: Lease | None) -> None:
    """Permit writes about a job: with the lease of a job in progress, without a lease otherwise.

    Raises:
        LeaseLost: the lease was taken over, or the job has ended.
        IllegalTransition: no lease is given, and the job is in progress.
    """
    query = select(_LEASES.c.job_id, _LEASES.c.holder).where(_LEASES.c.job_id == job)
    if lease is not None:
        own = query.where(_LEASES.c.token == lease.token).with_for_update(read=True)
        if connection.execute(own).one_or_none() is None:
            raise _lost(lease)
    elif (other := connection.execute(query).one_or_none()) is not None:
        raise IllegalTransition(
            f"Job {other.job_id} is being run by {other.holder}, which alone may write about the job: "
            "try again after the end of the job (see `clm jobs`)."
        )


@contextlib.contextmanager
def heartbeat(renewal: Callable[[], None], every: timedelta) -> Iterator[None]:
    """Renew a lease at regular intervals until the block ends."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every.total_seconds()):
            try:
                renewal()
            except LeaseLost:
                # the block is refused at its next write
                return
            except OperationalError:
                # the database may answer again before the lease expires
                continue

    thread = threading.Thread(target=beat, name="lease heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"{lease.holder} no longer runs job {lease.job_id}: the lease (token {lease.token}) expired and was "
        "taken over, or the job has ended. Nothing was written; see `clm jobs`, and ask for a new job."
    )
