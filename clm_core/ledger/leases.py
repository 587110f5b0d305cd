"""Leases: the exclusive right of a process to write about a job in progress.

The process that runs a job renews the job's lease. An expired lease alone is no proof of a dead process: the
clock may have been set, the machine may have slept, or the database may have been away. The reaper therefore
waits for `grace`, several heartbeats long, and takes a lease over, under a new fencing token, if the lease
was not renewed meanwhile. A revived process still writes with the old token, and is refused: the database
compares tokens in the transaction of every write, and the lease cannot change hands before the transaction
ends.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, ScalarSelect, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from clm_core.domain.errors import IllegalTransition, LeaseLost
from clm_core.domain.jobs import Lease
from clm_core.ledger.tables import Base, LeaseRow

logger = logging.getLogger(__name__)
_LEASES = Base.metadata.tables[LeaseRow.__tablename__]
MAX_INTERVAL = timedelta(seconds=10)
HEARTBEATS_PER_LEASE = 6
HEARTBEATS_IN_GRACE = 3


def interval(length: timedelta) -> timedelta:
    """Time between two heartbeats of a lease; at most 10 s, so that the grace of a long lease is short."""
    return min(length / HEARTBEATS_PER_LEASE, MAX_INTERVAL)


def grace(suspects: Sequence[Lease]) -> timedelta:
    """Time in which a living holder renews each of these leases; zero without leases."""
    lengths = (timedelta(seconds=lease.seconds) for lease in suspects)
    return HEARTBEATS_IN_GRACE * max(map(interval, lengths), default=timedelta(0))


def take(connection: Connection, job_id: UUID, holder: str, now: datetime, length: timedelta) -> Lease:
    row = {"job_id": job_id, "holder": holder, **_until(now, length)}
    taken = connection.execute(insert(_LEASES).returning(*_LEASES.c), row)
    return Lease.model_validate(dict(taken.mappings().one()))


def suspects(connection: Connection, now: datetime) -> list[Lease]:
    """Leases whose holder may be dead: expired leases, and leases that expire implausibly late.

    A renewal never sets an expiry later than the length of the lease. A later expiry, with another length as
    a margin for concurrent renewals, was set before the clock was put back.
    """
    implausible = now + 2 * func.make_interval(0, 0, 0, 0, 0, 0, _LEASES.c.seconds)
    suspicious = or_(_LEASES.c.expires_at <= now, _LEASES.c.expires_at > implausible)
    rows = connection.execute(select(_LEASES).where(suspicious).order_by(_LEASES.c.token))
    return [Lease.model_validate(dict(row)) for row in rows.mappings()]


def take_over(
    connection: Connection, seen: Sequence[Lease], holder: str, now: datetime, length: timedelta
) -> list[Lease]:
    """Take the leases over that are as they were seen, neither renewed nor taken over by another reaper."""
    unchanged = tuple_(_LEASES.c.token, _LEASES.c.expires_at).in_(
        [(lease.token, lease.expires_at) for lease in seen]
    )
    taken = connection.execute(
        update(_LEASES)
        .where(unchanged)
        .values(holder=holder, token=text("DEFAULT"), **_until(now, length))
        .returning(*_LEASES.c)
    )
    return [Lease.model_validate(dict(row)) for row in taken.mappings()]


def renew(connection: Connection, lease: Lease, now: datetime, length: timedelta) -> None:
    """Prolong a lease, even an expired lease that was not taken over.

    Raises:
        LeaseLost: the lease was taken over, or the job has ended.
    """
    own = (_LEASES.c.job_id == lease.job_id) & (_LEASES.c.token == lease.token)
    if not connection.execute(update(_LEASES).where(own).values(_until(now, length))).rowcount:
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
    """Renew a lease at regular intervals until the block ends.

    A failure leaves the lease to the next heartbeat, for as long as the database is away.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every.total_seconds()):
            try:
                renewal()
            except LeaseLost:
                # the block is refused at its next write
                return
            except SQLAlchemyError as error:
                # an expired lease is renewed too, unless a reaper took the lease over
                logger.warning("The lease was not renewed, and the next heartbeat tries again: %s", error)

    thread = threading.Thread(target=beat, name="lease heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _until(now: datetime, length: timedelta) -> dict[str, datetime | float]:
    return {"expires_at": now + length, "seconds": length.total_seconds()}


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"{lease.holder} no longer runs job {lease.job_id}: the lease (token {lease.token}) expired and was "
        "taken over, or the job has ended. Nothing was written; see `clm jobs`, and ask for a new job."
    )
