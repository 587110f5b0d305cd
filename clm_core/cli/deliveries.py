"""`clm deliveries …`: receivers of events and alerts, and dead letters."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, listing, plain, print_json
from clm_core.cli.running import services_to_look
from clm_core.cli.settings_in_force import settings_for_change

if TYPE_CHECKING:
    from clm_core.domain.deliveries import DeadLetter, ReceiverState

app = typer.Typer(
    help="Delivery of events and alerts: the state of each receiver, and the dead letters.",
    no_args_is_help=True,
)
Receiver = Annotated[str, typer.Argument(help="Name of a receiver, or an unambiguous part of the name.")]


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, help="Number of dead letters, oldest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List all receivers, past ones included, and the dead letters: messages refused for three days."""

    with services_to_look() as services:
        states = services.receivers.states()
        letters = services.receivers.dead(limit)
    if as_json:
        print_json(
            {
                "receivers": [state.model_dump(mode="json") for state in states],
                "dead_letters": [letter.model_dump(mode="json") for letter in letters],
            }
        )
        return
    _print_receivers(states)
    if letters:
        _print_letters(letters)


@app.command()
def retry(receiver: Receiver, as_json: AsJson = False) -> None:
    """Mark the dead letters of a receiver for another attempt by the next maintenance pass."""
    from clm_core.services import open_services

    with open_services(settings_for_change(delivers=True)) as services:
        name = services.receivers.named(receiver)
        letters = services.receivers.ask_retry(name)
    if as_json:
        print_json({"receiver": name, "retried": letters})
    else:
        typer.echo(f"{name}: {letters} are sent once more by the next maintenance (`clm maintenance`).")


@app.command()
def skip(
    receiver: Receiver,
    reason: Annotated[str, typer.Option(help="Reason, recorded in the audit log.")],
    as_json: AsJson = False,
) -> None:
    """Turn the next message of a receiver into a dead letter, so that delivery continues after it."""
    from clm_core.cli.promotion import this_user
    from clm_core.services import open_services

    with open_services(settings_for_change(delivers=True)) as services:
        name = services.receivers.named(receiver)
        letter = services.receivers.skip(name, reason, this_user(), services.clock())
    if as_json:
        print_json(letter.model_dump(mode="json"))
    else:
        typer.echo(f"{name}: {letter.about} of {letter.happened_at:%Y-%m-%d %H:%M} UTC is a dead letter now.")


@app.command()
def forget(receiver: Receiver, as_json: AsJson = False) -> None:
    """Delete the dead letters of a receiver; the audit log keeps the numbers."""
    from clm_core.cli.promotion import this_user
    from clm_core.services import open_services

    with open_services(settings_for_change(delivers=True)) as services:
        name = services.receivers.named(receiver)
        deleted = services.receivers.forget(name, this_user(), services.clock())
    if as_json:
        print_json({"receiver": name, "forgotten": deleted})
    else:
        typer.echo(f"{name}: {deleted} dead letters are forgotten.")


def _print_receivers(states: "list[ReceiverState]") -> None:
    table = listing("receiver", "stream", "waiting", "dead letters", "next attempt (UTC)", "last error")
    for state in states:
        due = f"{state.retry_at:%m-%d %H:%M:%S}" if state.retry_at else ""
        counts = str(state.waiting), str(state.given_up)
        table.add_row(state.name, state.stream.value, *counts, due, state.last_error or "")
    plain.print(table if states else "No receiver yet: see `events.subscribers` and `alerts.urls`.")


def _print_letters(letters: "list[DeadLetter]") -> None:
    table = listing("receiver", "number", "about", "happened (UTC)", "attempts", "last answer")
    for letter in letters:
        happened = f"{letter.happened_at:%Y-%m-%d %H:%M}"
        answer = (
            f"{letter.error} (sent once more by the next maintenance)" if letter.retry_asked else letter.error
        )
        table.add_row(letter.receiver, str(letter.seq), letter.about, happened, str(letter.attempts), answer)
    plain.print(table)
