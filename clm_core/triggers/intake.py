"""Single intake of retraining requests from all sources: decides, records and creates jobs."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection

from clm_core.decisions.retraining import decide
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.triggers import (
    Answer,
    History,
    Reply,
    TrainedBefore,
    TriggerDecision,
    TriggerRequest,
)
from clm_core.domain.vocabulary import Role
from clm_core.ledger import triggers
from clm_core.ledger.jobs import cancel_pending, record_job
from clm_core.ledger.replies import KEPT_FOR
from clm_core.ledger.tables import storable
from clm_core.platform import tracing
from clm_core.retraining.jobs import new_job, reap_dead_jobs
from clm_core.services import Services
from clm_core.triggers.regime_changes import towards_measured_regime
from clm_core.triggers.retrain_values import value_of


def submit(services: Services, request: TriggerRequest, run_id: UUID | None = None) -> Answer:
    """Decides about a request and records the answer, with a pending job for an accepted request.

    Args:
        run_id: Prefect run that made the request and would run the job at once. The job is reserved for the
            run for the duration of a lease, unless the job waits for another job of the model.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range; nothing is recorded.
        UnknownSeries: no source has these bars; nothing is recorded.
    """
    job = job_of(services, request)
    with services.ledger.triggers.transaction() as connection:
        return decide_in(services, connection, request, job, run_id)


def job_of(services: Services, request: TriggerRequest) -> TrainingJob:
    """The job of a request, not yet recorded; a retrain for a changed regime is weighted towards the regime.

    Raises:
        NotEnoughBars: the bars are too few for the kind of model; the message names the days to request.
        CLMError: see `retraining.jobs.new_job`.
    """
    # the server starts without the libraries of models and bars
    from clm_core.retraining.window import require_trainable_job

    origin = {"recipe_from": request.recipe_from, "candidate_id": request.candidate_id}
    job = new_job(services, request.training).model_copy(update=origin)
    require_trainable_job(services, job)
    return towards_measured_regime(services, request, job)


def submit_unless_pending(services: Services, request: TriggerRequest) -> Answer | None:
    """`submit`, or None without a record while another job of the model is pending.

    A pending job would serve the request with parameters of its own.

    Raises:
        InvalidTrainingParams, UnknownSeries: as for `submit`.
    """
    job = job_of(services, request)
    with services.ledger.triggers.transaction() as connection:
        triggers.lock(connection)
        history = triggers.history(connection, job, request.key, services.clock())
        if history.same_key is None and history.pending is not None:
            return None
        return decide_in(services, connection, request, job)


def submit_once(services: Services, request: TriggerRequest) -> Answer:
    """`submit`, or the answer recorded for the same key in the last 24 hours: a crash may have kept it back.

    Raises:
        InvalidTrainingParams, UnknownSeries: as for `submit`.
    """
    if request.key is not None:
        with services.ledger.triggers.transaction() as connection:
            # a killed process may be committing the answer still
            triggers.lock(connection)
            answered = triggers.answer_to(connection, request.key, services.clock() - KEPT_FOR)
        if answered is not None:
            return answered
    return submit(services, request)


def submit_and_claim(
    services: Services, training: RetrainRequest, source: str, run_id: UUID, actor: Actor | None = None
) -> TrainingJob | Answer:
    """Submits the request of a run that would do the work; the job for the run, or the answer without a job.

    Dead jobs are ended first, so that no request waits for a dead job.

    Args:
        actor: actor for the audit; by default the requester.
    """
    reap_dead_jobs(services)
    actor = actor or Actor(name=training.requested_by, role=Role.OPERATOR)
    answer = submit(services, TriggerRequest(training=training, actor=actor, source=source), run_id)
    if answer.job_id is not None and services.ledger.triggers.is_reserved_for(answer.job_id, run_id):
        return services.ledger.job(answer.job_id)
    return answer


def decide_in(
    services: Services,
    connection: Connection,
    request: TriggerRequest,
    job: TrainingJob,
    run_id: UUID | None = None,
    inbox_number: int | None = None,
) -> Answer:
    """`submit` within the caller's transaction, which holds back all other requests.

    Args:
        job: pending job created if the request is accepted.
    """
    with tracing.span(
        "intake", model_id=job.model_id, source=request.source, reason=job.trigger_reason.value
    ):
        answer = _decided(services, connection, request, job, run_id, inbox_number)
        tracing.annotate(reply=answer.reply.value, job_id=answer.job_id)
        if answer.reply is Reply.ACCEPTED:
            with tracing.trace_span(
                "accepted", job.id, job_id=job.id, model_id=job.model_id, source=request.source
            ):
                return answer
        return answer


def _decided(
    services: Services,
    connection: Connection,
    request: TriggerRequest,
    job: TrainingJob,
    run_id: UUID | None,
    inbox_number: int | None,
) -> Answer:
    trained = _trained_before(services, request, job)
    value = value_of(services, request, job)
    triggers.lock(connection)
    now = services.clock()
    history = triggers.history(connection, job, request.key, now)
    overtakes = run_id is not None and (
        history.pending is None or not triggers.has_started_pending(connection, job.model_id, now)
    )
    history = replace(history, trained=trained, overtakes=overtakes)
    if request.replace_pending:
        history = replace(history, pending=None, same_training=None)
    decision = decide(request, history, services.settings.triggers, now, value)
    job_id = decision.job_id
    if decision.reply is Reply.ACCEPTED:
        if request.replace_pending:
            cancel_pending(connection, job.model_id, request.actor, now)
        record_job(connection, job, request.actor)
        job_id = job.id
    if run_id is not None and _may_run(decision, history):
        assert job_id is not None
        expires_at = now + timedelta(seconds=services.settings.lease_seconds)
        triggers.give_to_run(connection, job_id, run_id, now, expires_at)
    return triggers.record(connection, request, job.model_id, decision, job_id, inbox_number, now)


def _may_run(decision: TriggerDecision, history: History) -> bool:
    """True if the run of a request may start the job of the answer at once.

    The run takes over a pending job of the same training without a run.
    """
    if decision.reply is Reply.ACCEPTED:
        return decision.waits_for is None
    takes_over = decision.job_id is not None and decision.job_id == history.same_training
    return takes_over and history.overtakes and history.running is None


def _trained_before(services: Services, request: TriggerRequest, job: TrainingJob) -> TrainedBefore | None:
    """Version that the job would yield again; None without a version, and for a candidate."""
    # an evaluated candidate is trained as a version of its own, whatever it resembles
    if request.training.again or request.candidate_id is not None:
        return None
    # the server starts without the libraries of models and bars
    from clm_core.retraining.identical import identical_version

    version = identical_version(services, job)
    return None if version is None else TrainedBefore(version.version, version.training_job_id)


def refuse(
    services: Services, connection: Connection, request: TriggerRequest, because: str, inbox_number: int
) -> Answer:
    """Rejects a request that cannot be trained, in the caller's transaction, without asking the policy."""
    triggers.lock(connection)
    symbol = normalise_symbol(request.training.symbol)
    model_id = request.training.model_copy(update={"symbol": symbol}).model_id
    decision = TriggerDecision(Reply.REJECTED, storable(because))
    return triggers.record(connection, request, model_id, decision, None, inbox_number, services.clock())
