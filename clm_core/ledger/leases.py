"""Who runs a job, and that only who runs it writes about it.

A job in progress has one lease, which whoever runs it renews. What has run out a sweeper takes over under a
new token. A process that wakes up after that still writes with its old token, and is refused: the database
compares the tokens in the transaction of every write, and keeps the lease from changing hands until it ends.
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
    """Every lease that has run out, ours now; of two who try at once one gets it."""
    taken = connection.execute(
        update(_LEASES)
        .where(_LEASES.c.expires_at <= now)
        .values(holder=holder, token=text("DEFAULT"), expires_at=now + length)
        .returning(*_LEASES.c)
    )
    return [Lease.model_validate(dict(row)) for row in taken.mappings()]


def renew(connection: Connection, lease: Lease, now: datetime, length: timedelta) -> None:
    """Also one that has run out, as long as nobody has taken it over.

    Raises:
        LeaseLost: somebody has, or the job has ended.
    """
    own = (_LEASES.c.job_id == lease.job_id) & (_LEASES.c.token == lease.token)
    if not connection.execute(update(_LEASES).where(own).values(expires_at=now + length)).rowcount:
        raise _lost(lease)


def give_back(connection: Connection, lease: Lease) -> None:
    """
    Raises:
        LeaseLost: somebody has taken it over, or the job has ended.
    """
    own = (_LEASES.c.job_id == lease.job_id) & (_LEASES.c.token == lease.token)
    if not connection.execute(delete(_LEASES).where(own)).rowcount:
        raise _lost(lease)


def require(connection: Connection, job: UUID | ScalarSelect[UUID], lease: Lease | None) -> None:
    """Let only those write about a job who run it; about one that isn't in progress, who has no lease.

    Raises:
        LeaseLost: the lease is no longer the job's.
        IllegalTransition: there is no lease given, and the job is in progress.
    """
    found = select(_LEASES.c.job_id, _LEASES.c.holder).where(_LEASES.c.job_id == job)
    if lease is not None:
        own = found.where(_LEASES.c.token == lease.token).with_for_update(read=True)
        if connection.execute(own).one_or_none() is None:
            raise _lost(lease)
    elif (other := connection.execute(found).one_or_none()) is not None:
        raise IllegalTransition(
            f"Job {other.job_id} is being run by {other.holder}, which alone writes about it: "
            "try again when it has ended, as `clm jobs` tells."
        )


@contextlib.contextmanager
def heartbeat(renewal: Callable[[], None], every: timedelta) -> Iterator[None]:
    """Renew, again and again, until the block ends."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every.total_seconds()):
            try:
                renewal()
            except LeaseLost:
                # the block hears of it at its next write
                return
            except OperationalError:
                # the database is away; it may be back before the lease runs out
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
        f"{lease.holder} no longer runs job {lease.job_id}: its lease (token {lease.token}) ran out and was "
        "taken over, or the job has ended. Nothing was written; see `clm jobs`, and ask for a new job."
    )
