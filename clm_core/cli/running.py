"""Services and flows of a command, with progress on the terminal."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clm_core.cli.settings_in_force import require_home, settings_for_change, settings_for_look

if TYPE_CHECKING:
    from clm_core.services import Services
    from clm_core.settings import Settings

Run = Callable[..., Any]
"""Runs the flow with a title for the progress bar and the flow's arguments; returns the flow's result."""


@contextlib.contextmanager
def services_to_look() -> "Iterator[Services]":
    """Services of a command that shows something.

    Raises:
        NoHome: the home has no database, and a look does not make one.
    """
    from clm_core.services import open_services

    settings = settings_for_look()
    require_home(settings)
    with open_services(settings) as services:
        yield services


@contextlib.contextmanager
def services_with_status(
    text: Callable[[str, float], str] = lambda step, share: step, *, makes_home: bool = False
) -> "Iterator[Services]":
    """Services whose steps are shown on the terminal.

    Args:
        text: status text for a step and its completed fraction, 0..1.
        makes_home: True for a command that may be the first one of a home.

    Raises:
        NoHome: the home has no database, and the command does not make one.
    """
    from clm_core.services import open_services

    settings = settings_for_change(delivers=True)
    if not makes_home:
        require_home(settings)
    with (
        Console(stderr=True).status("Opening the database") as status,
        open_services(settings, lambda step, share: status.update(text(step, share))) as services,
    ):
        yield services


@contextlib.contextmanager
def flow_of(
    name: str, settings: "Settings", prepare: "Callable[[Services], Any] | None" = None
) -> "Iterator[tuple[Services, Run]]":
    """Services, and a function that runs the flow: as a flow run of the Prefect server that is up, or as
    plain calls without a server.

    Args:
        name: name of the flow, as in `flow_calls`.
        prepare: slow preparation, shown as such.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from clm_core.platform.prefect_server import flow_calls, prepare_environment
    from clm_core.services import open_services

    prepare_environment(settings.home)
    with Progress(
        TextColumn("{task.description:<44}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as progress:
        title = ""
        bar = progress.add_task("Opening the database", total=None)

        def announce(step: str, share: float) -> None:
            progress.update(bar, description=f"{title}: {step}", completed=share, total=1.0)

        with open_services(settings, announce) as services, flow_calls(name, settings.home) as flow:
            if prepare is not None:
                progress.update(bar, description="Loading libraries")
                prepare(services)

            def run(work: str, *arguments: Any) -> Any:
                nonlocal title, bar
                title = work
                announce("Loading bars", 0.0)
                result = flow(*arguments)
                announce("Done", 1.0)
                bar = progress.add_task("", total=None)
                return result

            yield services, run
            progress.remove_task(bar)
