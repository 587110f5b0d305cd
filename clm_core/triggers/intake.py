"""The one door: every request to retrain is answered and recorded here, wherever it comes from."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection

from clm_core.decisions.retraining import decide
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import Answer, Reply, TriggerDecision, TriggerRequest
from clm_core.domain.vocabulary import Role
from clm_core.ledger import triggers
from clm_core.ledger.jobs import record_job
from clm_core.ledger.tables import storable
from clm_core.market.validation import normalise_symbol
from clm_core.retraining.jobs import new_job, reap_dead_jobs
from clm_core.services import Services


def submit(services: Services, request: TriggerRequest, run_id: UUID | None = None) -> Answer:
    """Answer a request and record it; when it is accepted, with a job that waits to be started.

    Args:
        run_id: the Prefect run that asks and would run the job itself, at once. The job is its to start, for
            as long as a lease lasts; unless another one of the model is in progress: then nobody has it yet.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range; nothing is recorded.
        UnknownSeries: no source has these bars; nothing is recorded.
    """
    job = new_job(services, request.training)
    with services.ledger.triggers.transaction() as connection:
        return decide_in(services, connection, request, job, run_id)


def submit_and_claim(
    services: Services, training: RetrainRequest, source: str, run_id: UUID
) -> TrainingJob | Answer:
    """Ask for a run that would do the work itself; the job it has to do, or why it has none.

    Jobs that died are ended first: no request waits for one that nobody runs.
    """
    reap_dead_jobs(services)
    actor = Actor(name=training.requested_by, role=Role.OPERATOR)
    given = submit(services, TriggerRequest(training=training, actor=actor, source=source), run_id)
    if given.reply is Reply.ACCEPTED and given.job_id is not None and given.waits_for is None:
        return services.ledger.job(given.job_id)
    return given


def decide_in(
    services: Services,
    connection: Connection,
    request: TriggerRequest,
    job: TrainingJob,
    run_id: UUID | None = None,
    inbox_number: int | None = None,
) -> Answer:
    """`submit` in the caller's transaction, until whose end every other request waits.

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
        if run_id is not None and waits_for is None:
            expires_at = now + timedelta(seconds=services.settings.lease_seconds)
            triggers.give_to_run(connection, job.id, run_id, now, expires_at)
    return triggers.record(connection, request, job.model_id, decision, job_id, waits_for, inbox_number, now)


def refuse(
    services: Services, connection: Connection, request: TriggerRequest, because: str, inbox_number: int
) -> Answer:
    """Reject, in the caller's transaction, what cannot be trained here: the policy is not asked."""
    triggers.lock(connection)
    symbol = normalise_symbol(request.training.symbol)
    model_id = request.training.model_copy(update={"symbol": symbol}).model_id
    decision = TriggerDecision(Reply.REJECTED, storable(because))
    return triggers.record(
        connection, request, model_id, decision, None, None, inbox_number, services.clock()
    )
