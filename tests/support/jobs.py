"""End of all jobs, since tests share a ledger and requests would wait for jobs of earlier tests."""

from datetime import timedelta

from clm_core.domain.vocabulary import JobStatus
from clm_core.services import Services

MINUTE = timedelta(minutes=1)


def end_all_jobs(services: Services) -> None:
    now = services.clock()
    for lease in services.ledger.take_over_expired("tests", now + timedelta(days=1), MINUTE):
        services.ledger.fail_job(lease, "another test's", now)
    for job in services.ledger.jobs(status=JobStatus.PENDING, limit=1000):
        services.ledger.fail_job(
            services.ledger.start_job(job.id, "tests", now, MINUTE), "another test's", now
        )
