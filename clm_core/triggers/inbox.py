"""Inbox of external messages: stored first, answered later, each message once."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from clm_core.domain.actors import Actor
from clm_core.domain.errors import AlreadyExists, CLMError, NotFound
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.kinds import Kind, model_id
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.triggers import Answer, Message, MessageDelivery, Receipt, TriggerRequest
from clm_core.domain.vocabulary import Role
from clm_core.ledger import triggers
from clm_core.platform import tracing
from clm_core.services import Services
from clm_core.triggers import intake
from clm_core.triggers.messages import REASON_BY_DATA, EventData, RetrainTagged, TrainingRequested, parse
from clm_core.triggers.repeated_recipes import RECIPE, recipe_of_job, recipe_to_repeat, repeated_job

RETENTION = timedelta(days=90)
"""Time for which an answered message is stored to recognise duplicates."""


def receive(services: Services, source: str, message_id: str, body: bytes, now: datetime) -> Receipt:
    """Stores a message of a verified sender for `answer_next`; a repeated delivery has no effect.

    Raises:
        AlreadyExists: the source sent another body under the same id.
    """
    body_hash = hashlib.sha256(body).hexdigest()
    with tracing.trace_span("message received", _trace_id(source, message_id), source=source):
        is_new, received_at, known_hash = services.ledger.triggers.receive(
            source, message_id, body, body_hash, now
        )
    if known_hash != body_hash:
        raise AlreadyExists(
            f"{source} has sent another message under the id {message_id} at "
            f"{received_at:%Y-%m-%d %H:%M:%S} UTC: send the message under a new id."
        )
    return Receipt(
        delivery=MessageDelivery.NEW if is_new else MessageDelivery.KNOWN,
        source=source,
        message_id=message_id,
        received_at=received_at,
    )


def answer_next(services: Services) -> tuple[Message, list[Answer] | None] | None:
    """Submits the requests of the oldest pending message, if any.

    Answers and the mark of the message as processed are written in a single transaction: killed in between,
    the message stays pending. An invalid message, or a message without any trainable request, is set aside
    with the reason.

    Returns:
        The message with the answers (empty without a request, None where the message was set aside), or None
        where no message is pending.
    """
    with services.ledger.triggers.transaction() as connection:
        message = triggers.next_message(connection)
        if message is None:
            return None
        trace_id = _trace_id(message.source, message.message_id)
        with tracing.trace_span("message answered", trace_id, first=True, source=message.source):
            return message, _answered(services, connection, message)


def _answered(services: Services, connection: Connection, message: Message) -> list[Answer] | None:
    """Answers to a message; None where the message was set aside."""
    answers: list[Answer] | None = None
    try:
        with connection.begin_nested():
            answers = _answers(services, connection, message)
    except (CLMError, ValidationError, DataError) as error:
        tracing.annotate(set_aside=str(error))
        triggers.set_aside(connection, message, str(error), services.clock())
    else:
        triggers.processed(connection, message, services.clock())
    return answers


def _trace_id(source: str, message_id: str) -> UUID:
    """Id of the trace of a message: the inbox keeps no context of the request."""
    return uuid5(NAMESPACE_URL, f"{source}/{message_id}")


def forget_old(services: Services) -> int:
    """Deletes the messages answered before the retention period."""
    return services.ledger.triggers.forget(services.clock() - RETENTION)


def _answers(services: Services, connection: Connection, message: Message) -> list[Answer]:
    """An answer for each model of the message; an untrainable model does not affect the rest."""
    requests = list(_requests(services, message))
    jobs = [_job(services, request) for request in requests]
    errors = [job for job in jobs if isinstance(job, CLMError)]
    if errors and len(errors) == len(jobs):
        raise errors[0]
    return [
        intake.refuse(services, connection, request, str(job), message.number)
        if isinstance(job, CLMError)
        else intake.decide_in(services, connection, request, job, inbox_number=message.number)
        for request, job in zip(requests, jobs, strict=True)
    ]


def _job(services: Services, request: TriggerRequest) -> TrainingJob | CLMError:
    """Pending job of the request, or the error that prevents training."""
    try:
        return intake.job_of(services, request)
    except CLMError as error:
        return error


def _requests(services: Services, message: Message) -> Iterator[TriggerRequest]:
    """A request for each model of the message."""
    event = parse(message.body)
    source = f"inbox/{message.source}"
    if event is None:
        return
    data = _tagged_model(services, event) if isinstance(event, RetrainTagged) else event
    for kind in data.kinds or _kinds_on_market(services, data):
        name = model_id(kind, normalise_symbol(data.symbol), data.timeframe)
        repeated = recipe_to_repeat(services, kind, name)
        as_before = recipe_of_job(repeated_job(services, name, repeated))
        yield TriggerRequest(
            training=_training(kind, data, source, as_before),
            recipe_from=repeated.sentence if data.training_params is None else None,
            actor=Actor(name=source, role=Role.OPERATOR),
            source=source,
            key=f"{source}/cause/{data.cause}" if data.cause else f"{source}/{message.message_id}",
            observed=data.observed,
        )


def _tagged_model(services: Services, tagged: RetrainTagged) -> TrainingRequested:
    newest = services.ledger.versions(model_id=tagged.name, limit=1)
    if not newest:
        raise NotFound(f"{tagged.name} has no version here: tag a version of a model that `clm models` lists")
    of_model = newest[0].model_dump(include={"model_type", "plugin", "symbol", "timeframe"})
    return TrainingRequested(**of_model, requested_by="MLflow")


def _kinds_on_market(services: Services, data: EventData) -> list[Kind]:
    symbol = normalise_symbol(data.symbol)
    kinds = services.ledger.triggers.kinds(symbol, data.timeframe)
    if not kinds:
        raise NotFound(
            f"no model of {symbol} {data.timeframe} has a version: name the model types it concerns"
        )
    return kinds


def _training(kind: Kind, data: EventData, source: str, as_before: dict[str, Any]) -> RetrainRequest:
    """Training request of an event.

    Args:
        as_before: parameters and span where the event states none; empty: the defaults.
    """
    stated = data.model_dump(include={*RECIPE, "symbol", "timeframe"}, exclude_none=True)
    return RetrainRequest(
        model_type=kind.model_type,
        plugin=kind.plugin,
        trigger_reason=REASON_BY_DATA[type(data)],
        requested_by=data.requested_by if isinstance(data, TrainingRequested) else source,
        seed=data.seed if isinstance(data, TrainingRequested) else 0,
        again=isinstance(data, TrainingRequested) and data.again,
        **(as_before | stated),
    )
