"""`clm up`, `clm down`, `clm status`, `clm deploy`: the whole product on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.output import AsJson

if TYPE_CHECKING:
    from clm_core.operations.status import InstallationStatus
    from clm_core.platform.stack_state import StackState
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 160  # a file or pipe has no width: nothing should be cut for it

STARTED_WITHIN_SECONDS = 360.0
STOPPED_WITHIN_SECONDS = 180.0
NOT_UP = 3
"""Exit code of `clm status` when nothing runs."""
# -P: a folder flows/ or deployments/ in the current folder must not take the place of ours
SUPERVISOR = (sys.executable, "-P", "-m", "deployments.stack")
DEPLOY = (sys.executable, "-P", "-m", "deployments.definitions")


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all is ready; `clm down` ends it.")
    ] = False,
) -> None:
    """Start database, Prefect, MLflow, the API and a worker, until Ctrl-C; first-time set-up included."""
    from clm_core.platform.stack_state import refuse_if_running

    settings = _settings()
    refuse_if_running(settings.home)
    if not detach:
        os.execv(SUPERVISOR[0], SUPERVISOR)
    print_summary(settings, _start_detached(settings))


@app.command()
def down() -> None:
    """Stop what `clm up` started for this home; runs under way end as crashed, and can be retried."""
    from clm_core.domain.errors import ServerUnavailable
    from clm_core.platform.stack_state import running

    settings = _settings()
    state = running(settings.home)
    if state is None:
        console.print(f"Nothing is up for {settings.home}.")
        return
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOPPED_WITHIN_SECONDS
    with Console(stderr=True).status("Stopping ..."):
        while running(settings.home):
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"Process {state.pid} does not end: kill -9 {state.pid} is safe, its parts end with it."
                )
            time.sleep(0.1)
    console.print(f"Stopped all of {settings.home}.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Health of each part, jobs, what serves, what runs next; exits with 3 when nothing is up, 1 when ill."""
    from clm_core.operations.status import read_status

    settings = _settings()
    found = read_status(settings)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json") | {"healthy": found.healthy}, indent=2))
    else:
        _show(settings, found)
    if not found.healthy:
        sys.exit(1 if found.up else NOT_UP)


@app.command()
def deploy(
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print them as a prefect.yaml instead, for `prefect deploy --all`.")
    ] = False,
) -> None:
    """Make Prefect's deployments those of the settings: schedules, limits, forms; again is harmless."""
    from clm_core.platform.stack_state import prefect_environment, running

    settings = _settings()
    state = running(settings.home)
    environment = dict(os.environ)
    if state is not None and "PREFECT_API_URL" not in environment:
        environment |= prefect_environment(settings.home, state)
    environment |= {"PREFECT_HOME": str(settings.home / "prefect")}
    done = subprocess.run([*DEPLOY, *(["--yaml"] if as_yaml else [])], env=environment, check=False)
    sys.exit(done.returncode)


def print_summary(settings: "Settings", state: "StackState") -> None:
    """Where everything is, once it is up."""
    from clm_core.operations.status import urls
    from clm_core.platform.stack_state import folder

    table = Table(box=SIMPLE_HEAVY, show_header=False)
    for name, url in urls(state).items():
        table.add_row(name, f"[link={url}]{url}[/link]")
    table.add_row("sign in to Prefect with", f"what is in {folder(settings.home) / 'prefect.auth'}")
    table.add_row("logs", str(folder(settings.home) / "logs"))
    console.print(table)


def _start_detached(settings: "Settings") -> "StackState":
    from clm_core.domain.errors import ServerUnavailable
    from clm_core.platform.stack_state import folder, running

    log = folder(settings.home) / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        started = subprocess.Popen(
            SUPERVISOR, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + STARTED_WITHIN_SECONDS
    with Console(stderr=True).status("Starting ..."):
        while time.monotonic() < deadline:
            if (state := running(settings.home)) and state.ready:
                return state
            if started.poll() is not None:
                raise ServerUnavailable(f"It did not start:\n{log.read_text().strip()}")
            time.sleep(0.2)
    raise ServerUnavailable(
        f"It is not ready after {STARTED_WITHIN_SECONDS:.0f} s: see {log}, or `clm down`."
    )


def _show(settings: "Settings", found: "InstallationStatus") -> None:
    if not found.up:
        console.print(f"Nothing is up for {settings.home}: `clm up` starts it.")
    for name, url in found.urls.items():
        console.print(f"{name:8} {url}")
    if found.parts:
        console.print(_parts_table(found))
    jobs = ", ".join(f"{count} {status.value}" for status, count in sorted(found.jobs.items()))
    console.print(f"Jobs: {jobs or 'none yet'}")
    serving = ", ".join(f"{each.model_id} {each.version}" for each in found.production)
    console.print(f"In production: {serving or 'nothing'}")
    if found.next_runs:
        runs = Table("next run of", "at (UTC)", box=SIMPLE_HEAVY)
        for run in found.next_runs:
            runs.add_row(run.deployment, f"{run.at:%Y-%m-%d %H:%M}")
        console.print(runs)


def _parts_table(found: "InstallationStatus") -> Table:
    table = Table("part", "health", "process", "restarts", "log", box=SIMPLE_HEAVY)
    for part in found.parts:
        health = "[green]answers[/]" if part.healthy else "[red]down[/]"
        table.add_row(part.name, health, str(part.pid or "-"), str(part.restarts), str(part.log))
    return table


def _settings() -> "Settings":
    from clm_core.settings import load_settings

    return load_settings()
