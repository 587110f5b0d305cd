"""The one door: every request to retrain is answered and recorded here, wherever it comes from."""

from sqlalchemy import Connection

from clm_core import retraining
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.triggers import Answer, Reply, TriggerRequest
from clm_core.ledger import triggers
from clm_core.ledger.store import record_job
from clm_core.services import Services
from clm_core.triggers.policy import decide


def ask(services: Services, request: TriggerRequest) -> Answer:
    """Answer a request and record it; when it is accepted, with a job that waits to be started.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range; nothing is recorded.
        UnknownSeries: no source has these bars; nothing is recorded.
    """
    job = retraining.new_job(services, request.training)
    with services.ledger.triggers.transaction() as connection:
        return answer(services, connection, request, job)


def answer(
    services: Services,
    connection: Connection,
    request: TriggerRequest,
    job: TrainingJob,
    inbox_number: int | None = None,
) -> Answer:
    """`ask` in the caller's transaction, until whose end every other request waits.

    Args:
        job: what the request would become.
    """
    triggers.lock(connection)
    now = services.clock()
    history = triggers.history(connection, job.model_id, request.key, now)
    decision = decide(request, history, services.settings.triggers, now)
    job_id, waits_for = decision.job_id, None
    if decision.reply is Reply.ACCEPTED:
        record_job(connection, job, request.actor)
        job_id, waits_for = job.id, history.running
    return triggers.record(connection, request, job.model_id, decision, job_id, waits_for, inbox_number, now)
