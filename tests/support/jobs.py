"""End of jobs: tests share a ledger, and requests would wait for jobs of earlier tests."""

from dataclasses import replace
from datetime import datetime, timedelta

from clm_core.domain.jobs import Lease
from clm_core.domain.vocabulary import JobStatus
from clm_core.ledger.store import Ledger
from clm_core.services import Services

MINUTE = timedelta(minutes=1)


def take_over_suspects(ledger: Ledger, holder: str, now: datetime) -> list[Lease]:
    """Take over at once every lease that has expired at a moment."""
    return ledger.take_over(ledger.suspect_leases(now), holder, now, MINUTE)


def after(services: Services, **time: float) -> Services:
    """The services with a clock so much later, by which the leases of dead processes have expired."""
    return replace(services, clock=lambda: services.clock() + timedelta(**time), pause=lambda seconds: None)


def end_all_jobs(services: Services) -> None:
    now = services.clock()
    for lease in take_over_suspects(services.ledger, "tests", now + timedelta(days=1)):
        services.ledger.fail_job(lease, "another test's", now)
    for job in services.ledger.jobs(status=JobStatus.PENDING, limit=1000):
        services.ledger.fail_job(
            services.ledger.start_job(job.id, "tests", now, MINUTE), "another test's", now
        )
