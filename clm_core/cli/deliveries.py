"""`clm deliveries …`: who is told of events and alerts, and what was given up."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, listing, plain, print_json

if TYPE_CHECKING:
    from clm_core.domain.deliveries import DeadLetter, ReceiverState

app = typer.Typer(
    help="Events and alerts on their way: how each receiver stands, and what it did not take.",
    no_args_is_help=True,
)
Receiver = Annotated[str, typer.Argument(help="A receiver's name, or a part that only it has.")]


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, help="How many dead letters, oldest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Every receiver there ever was, and the dead letters: what nobody took for three days."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        states, letters = services.receivers.states(), services.receivers.dead(limit)
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
def retry(receiver: Receiver) -> None:
    """Have its dead letters sent once more, by the next upkeep."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        name = services.receivers.named(receiver)
        asked = services.receivers.ask_retry(name)
    typer.echo(f"{name}: {asked} are sent once more by the next upkeep (`clm upkeep`).")


@app.command()
def skip(
    receiver: Receiver,
    reason: Annotated[str, typer.Option(help="Why: stands in the audit.")],
) -> None:
    """Give up what it is to take next, so that it hears of what came after; it becomes a dead letter."""
    from clm_core.cli.promotion import this_user
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        name = services.receivers.named(receiver)
        letter = services.receivers.skip(name, reason, this_user(), services.clock())
    typer.echo(f"{name}: {letter.about} of {letter.happened_at:%Y-%m-%d %H:%M} UTC is a dead letter now.")


@app.command()
def forget(receiver: Receiver) -> None:
    """Delete its dead letters; the audit keeps their numbers."""
    from clm_core.cli.promotion import this_user
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    with open_services(load_settings()) as services:
        name = services.receivers.named(receiver)
        gone = services.receivers.forget(name, this_user(), services.clock())
    typer.echo(f"{name}: {gone} dead letters are forgotten.")


def _print_receivers(states: "list[ReceiverState]") -> None:
    table = listing("receiver", "is told", "waiting", "dead letters", "next attempt (UTC)", "last error")
    for state in states:
        due = f"{state.retry_at:%m-%d %H:%M:%S}" if state.retry_at else ""
        counts = str(state.waiting), str(state.given_up)
        table.add_row(state.name, state.stream.value, *counts, due, state.last_error or "")
    plain.print(
        table if states else "Nobody was told anything yet: see `events.subscribers` and `alerts.urls`."
    )


def _print_letters(letters: "list[DeadLetter]") -> None:
    table = listing("to", "number", "about", "happened (UTC)", "attempts", "last answer")
    for letter in letters:
        happened = f"{letter.happened_at:%Y-%m-%d %H:%M}"
        answer = f"{letter.error} (sent once more by the next upkeep)" if letter.retry_asked else letter.error
        table.add_row(letter.receiver, str(letter.seq), letter.about, happened, str(letter.attempts), answer)
    plain.print(table)
