"""Training jobs."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from clm_core.api.auth import Caller
from clm_core.api.context import Connected, Drain
from clm_core.api.errors import problem
from clm_core.api.once import DoneOnce, written
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.listings import JobQuery, Page
from clm_core.domain.triggers import Answer, Reply, TriggerRequest
from clm_core.triggers import intake


def list_jobs(clm: Connected, query: Annotated[JobQuery, Query()]) -> Page[TrainingJob]:
    """Training jobs, newest first."""
    return clm.ledger.find_jobs(query)


def one_job(job_id: UUID, clm: Connected) -> TrainingJob:
    """One training job."""
    return clm.ledger.job(job_id)


def train(asked: RetrainRequest, actor: Caller, clm: Connected, once: DoneOnce, drain: Drain) -> Response:
    """Ask for a retrain: accepted with a job of its own, coalesced with one that waits, or rejected."""
    said = asked if "requested_by" in asked.model_fields_set else _in_the_name_of(actor, asked)
    request = TriggerRequest(training=said, actor=actor, source="api", key=once.key)
    answer = once(asked, lambda: _answered(intake.submit(clm, request)))
    drain()
    return answer


def _in_the_name_of(actor: Actor, asked: RetrainRequest) -> RetrainRequest:
    return asked.model_copy(update={"requested_by": actor.name})


def _answered(answer: Answer) -> Response:
    if answer.reply is Reply.REJECTED:
        return problem(409, f"Rejected: {answer.because}.", "urn:clm:problem:retrain-rejected")
    return written(answer, status=202)
