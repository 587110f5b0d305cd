"""Training jobs."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from clm_core.api.auth import Caller
from clm_core.api.context import Connected, Dispatch
from clm_core.api.errors import problem
from clm_core.api.idempotency import Idempotent, json_response
from clm_core.domain.evidence_window import EvidenceWindow
from clm_core.domain.jobs import UNNAMED, RetrainRequest, TrainingJob
from clm_core.domain.listings import JobQuery, Page
from clm_core.domain.triggers import Answer, Observation, Reply, TriggerRequest
from clm_core.services import Services
from clm_core.triggers import intake, pending


class TrainObservation(BaseModel):
    """Measurements in favour of a retrain for degraded performance or new data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sharpe_ratio: float | None = Field(
        default=None, description="Annualised Sharpe ratio of the production version since its promotion."
    )
    new_samples: int | None = Field(
        default=None, ge=0, description="Bars after the training data of the production version."
    )


class TrainRequest(RetrainRequest):
    """A retrain, with the measurements that the reason rests on."""

    observed: TrainObservation | None = Field(
        default=None,
        description="Evidence for the reasons performance_degraded (sharpe_ratio) and data_threshold "
        "(new_samples), which are rejected without; kept with the job.",
    )
    replace_pending: bool = Field(
        default=False, description="Cancel the pending jobs of the model if this request is accepted."
    )


class _Nothing(BaseModel):
    """Body of a request whose path says everything."""


class StartedRun(BaseModel):
    """Prefect run that trains a pending job."""

    job_id: UUID
    run_id: UUID


class TrainAnswer(Answer):
    """Answer to a request to train, with the result that the window of bars can prove."""

    evidence_window: EvidenceWindow | None = None
    """Window of the job that serves the request; null if the policy asks for no evidence."""


def list_jobs(clm: Connected, query: Annotated[JobQuery, Query()]) -> Page[TrainingJob]:
    """Training jobs, newest first."""
    return clm.ledger.find_jobs(query)


def one_job(job_id: UUID, clm: Connected) -> TrainingJob:
    """One training job."""
    return clm.ledger.job(job_id)


def cancel(job_id: UUID, actor: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Cancel a pending job; its status is `failed` then, with `cancelled_by`, and nobody is alerted."""
    return idempotent(_Nothing(), lambda: json_response(pending.cancel(clm, job_id, actor)))


def run(job_id: UUID, _: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Start a pending job in a worker now, ahead of older pending jobs of the model."""
    return idempotent(
        _Nothing(),
        lambda: json_response(StartedRun(job_id=job_id, run_id=pending.start(clm, job_id)), status=202),
    )


def train(
    body: TrainRequest, actor: Caller, clm: Connected, idempotent: Idempotent, dispatch: Dispatch
) -> Response:
    """Request a retrain: accepted with a job, coalesced with a pending job, or rejected."""
    fields = body.model_dump(include=set(RetrainRequest.model_fields), exclude_unset=True)
    if fields.get("requested_by") in UNNAMED:
        del fields["requested_by"]
    training = RetrainRequest.model_validate({"requested_by": actor.name} | fields)
    observed = Observation() if body.observed is None else Observation(**body.observed.model_dump())
    request = TriggerRequest(
        training=training,
        actor=actor,
        source="api",
        key=idempotent.key,
        observed=observed,
        replace_pending=body.replace_pending,
    )
    response = idempotent(body, lambda: _response(clm, intake.submit_once(clm, request)))
    dispatch()
    return response


def _response(clm: Services, answer: Answer) -> Response:
    if answer.reply is Reply.REJECTED:
        return problem(409, f"Rejected: {answer.because}.", "urn:clm:problem:retrain-rejected")
    # the server starts without the libraries of bars
    from clm_core.retraining.window import window_of_job

    assert answer.job_id is not None
    # a coalesced request is trained as the earlier request asked
    window = window_of_job(clm, clm.ledger.job(answer.job_id))
    return json_response(TrainAnswer(**dict(answer), evidence_window=window), status=202)
