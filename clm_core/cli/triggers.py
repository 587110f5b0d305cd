"""`clm trigger`, `clm triggers`, `clm dispatch`: requests to retrain, their answers and their jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.output import AsJson, parsed_params, plain, print_json, problem
from clm_core.cli.renamed import keep_old_name
from clm_core.cli.running import services_to_look
from clm_core.cli.search_options import (
    Again,
    Days,
    KindName,
    Plugin,
    Timeframe,
    TrainingParams,
    TrainingSeed,
    span_of,
)
from clm_core.cli.settings_in_force import settings_for_change
from clm_core.domain.vocabulary import TriggerReason

if TYPE_CHECKING:
    from pydantic import BaseModel

    from clm_core.domain.triggers import Answer, Message, TriggerRequest
    from clm_core.triggers.dispatch import DispatchResult

app = typer.Typer(rich_markup_mode=None)


@app.command()
def trigger(
    event: Annotated[
        Path | None,
        typer.Argument(
            metavar="EVENT.json",
            help="Webhook message in a file; alternative to --model.",
            exists=True,
        ),
    ] = None,
    model: Annotated[KindName | None, typer.Option(help="Kind of model to retrain.")] = None,
    plugin: Plugin = None,
    symbol: Annotated[str | None, typer.Option(help="Market, as in `clm data list`.")] = None,
    timeframe: Timeframe = "1h",
    days: Days = None,
    param: TrainingParams = None,
    seed: TrainingSeed = 0,
    again: Again = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Cancel the model's pending jobs if the request is accepted.")
    ] = False,
    reason: Annotated[TriggerReason, typer.Option(help="Reason for the retrain.")] = TriggerReason.MANUAL,
    sharpe: Annotated[float | None, typer.Option(help="Observed Sharpe ratio, annualised.")] = None,
    samples: Annotated[int | None, typer.Option(min=0, help="New bars since the training.")] = None,
    age: Annotated[float | None, typer.Option(min=0, help="Age of the production version, days.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: requests with the same key lead to a single retrain.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Request a retrain by a worker; the answer is accepted, coalesced or rejected, with the reason."""
    if (event is None) == (model is None or symbol is None):
        raise typer.BadParameter("give EVENT.json, or --model and --symbol")
    if event is not None:
        _print(_submit_file(event), as_json)
        return
    training = {
        "model_type": model,
        "plugin": plugin,
        "symbol": symbol,
        "timeframe": timeframe,
        **span_of(days),
        "trigger_reason": reason,
        "training_params": parsed_params(param or []),
        "seed": seed,
        "again": again,
    }
    observed = {"sharpe_ratio": sharpe, "new_samples": samples, "age_days": age}
    _print([_submit(_request(training, observed, key, replace))], as_json)


@app.command()
def triggers(
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only this model id.")] = None,
    reply: Annotated[
        Literal["accepted", "coalesced", "rejected"] | None,
        typer.Option(help="Only requests with this answer."),
    ] = None,
    before: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Only requests before this number, as the next page."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of requests, newest first.")] = 20,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="List the messages that could not be answered instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the requests to retrain and their answers, newest first."""
    from clm_core.domain.triggers import Reply

    reply_filter = None if reply is None else Reply(reply)
    with services_to_look() as services:
        store = services.ledger.triggers
        if set_aside:
            messages = store.messages(set_aside=True, limit=limit)
        else:
            answers = store.answers(model_id=model, reply=reply_filter, before=before, limit=limit)
    if set_aside:
        _print_messages(messages, as_json)
    else:
        _print_listing(answers, as_json)


@app.command()
def dispatch(as_json: AsJson = False) -> None:
    """Answer the pending messages and start the pending jobs; `clm up` does so every minute."""
    from clm_core.services import open_services

    with (
        Console(stderr=True).status("Opening the database"),
        open_services(settings_for_change()) as services,
    ):
        from clm_core.triggers.dispatch import dispatch_pending

        result = dispatch_pending(services)
    if as_json:
        started = result.started
        print_json(
            {
                "answers": _plain(result.answers),
                "set_aside": result.set_aside,
                "runs": {str(job): str(run) for job, run in started.runs.items()},
                "failed": [str(job) for job in started.failed],
                "waiting": [str(job) for job in started.waiting],
                "problem": started.problem,
            }
        )
    else:
        _show(result)


keep_old_name(app, "drain", "dispatch", dispatch)


def _request(
    training: dict[str, Any], observed: dict[str, Any], key: str | None, replace: bool
) -> "TriggerRequest":
    import getpass

    from pydantic import ValidationError

    from clm_core.domain.triggers import TriggerRequest

    user = getpass.getuser()
    content = {
        "training": training | {"requested_by": user},
        "actor": {"name": user, "role": "admin"},
        "source": "terminal",
        "key": key,
        "observed": observed,
        "replace_pending": replace,
    }
    try:
        return TriggerRequest.model_validate(content)
    except ValidationError as error:
        raise typer.BadParameter(problem(error)) from None


def _submit(request: "TriggerRequest") -> "Answer":
    from clm_core.services import open_services

    with open_services(settings_for_change()) as services:
        from clm_core.triggers import intake

        return intake.submit(services, request)


def _submit_file(event: Path) -> "list[Answer]":
    """Answers to the message in the file; messages already pending are answered first."""
    import uuid

    from clm_core.services import open_services

    with open_services(settings_for_change()) as services:
        from clm_core.triggers import dispatch, inbox, messages

        body = event.read_bytes()
        messages.parse(body)
        message_id = str(uuid.uuid4())
        inbox.receive(services, "terminal", message_id, body, services.clock())
        dispatch.answer_messages(services)
        return services.ledger.triggers.answers(message=("terminal", message_id))


def _print(answers: "Sequence[Answer]", as_json: bool) -> None:
    if as_json:
        print_json(_plain(answers))
        return
    for answer in answers:
        plain.print(_sentence(answer), soft_wrap=True)
    if not answers:
        plain.print("No request; if the message was set aside, `clm triggers --set-aside` has the reason.")


def _sentence(answer: "Answer") -> str:
    return f"{answer.model_id}: {answer.sentence}."


def _print_listing(answers: "Sequence[Answer]", as_json: bool) -> None:
    if as_json:
        print_json(_plain(answers))
        return
    table = Table(box=SIMPLE_HEAVY)
    for column in ("number", "requested (UTC)", "model", "reason", "by", "through", "answer"):
        table.add_column(column, no_wrap=True)
    table.add_column("because", overflow="fold")
    for answer in answers:
        training = answer.request.training
        table.add_row(
            str(answer.number),
            f"{answer.at:%Y-%m-%d %H:%M}",
            answer.model_id,
            training.trigger_reason.value,
            training.requested_by,
            answer.request.source,
            answer.reply.value,
            answer.because,
        )
    plain.print(table if answers else "No requests yet.")


def _print_messages(messages: "Sequence[Message]", as_json: bool) -> None:
    if as_json:
        print_json([message.model_dump(mode="json", exclude={"body"}) for message in messages])
        return
    for message in messages:
        plain.print(f"{message.source}/{message.message_id}, {message.received_at:%Y-%m-%d %H:%M} UTC")
        plain.print(f"    {message.error}", soft_wrap=True)
    if not messages:
        plain.print("No message was set aside.")


def _show(result: "DispatchResult") -> None:
    for answer in result.answers:
        plain.print(_sentence(answer), soft_wrap=True)
    started = result.started
    for job_id, run_id in started.runs.items():
        plain.print(f"Job {job_id} has run {run_id}.")
    for job_id in started.failed:
        plain.print(f"Job {job_id} failed: the run ended before the start.")
    plain.print(
        f"{len(result.answers)} requests answered, {result.set_aside} messages set aside, "
        f"{len(started.runs)} jobs started, {len(started.waiting)} wait."
    )
    if started.problem:
        plain.print(f"Reason: {started.problem}.", soft_wrap=True)


def _plain(values: "Sequence[BaseModel]") -> list[Any]:
    return [value.model_dump(mode="json") for value in values]
