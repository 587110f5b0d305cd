"""`clm up`, `clm down`, `clm status`, `clm deploy`: the servers of an installation on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import AsJson, plain
from clm_core.cli.settings_in_force import require_home
from clm_core.platform.interpreter import MODULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clm_core.domain.bar_age import DataAge
    from clm_core.domain.passes import PassHealth
    from clm_core.operations.status import InstallationStatus
    from clm_core.platform.stack_state import StackState
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 160  # a file or pipe has no width, so no text is cut

STARTED_WITHIN_SECONDS = 360.0
STOPPED_WITHIN_SECONDS = 180.0
ROWS_SHOWN = 30
"""Production versions and next runs in the output for people."""
ROOT_WARNING = (
    "Warning: running as root, so that every server, flow and plug-in has the rights of root. A user of its "
    "own has only the home: useradd --system --create-home clm, chown -R clm {home} while nothing is up, "
    "runuser -u clm -- clm up (docs/how-to/run-the-stack.md)."
)
# -P: a folder flows/ or deployments/ in the current folder must not shadow the packages of CLM
SUPERVISOR = (*MODULE, "deployments.stack")
DEPLOY = (*MODULE, "deployments.definitions")


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all parts are ready; `clm down` stops them.")
    ] = False,
) -> None:
    """Start database, Prefect, MLflow, the API and workers, until Ctrl-C; the first start sets up all."""
    from clm_core.operations.settings_check import require_usable
    from clm_core.platform.stack_state import refuse_if_running
    from clm_core.settings import load_settings

    settings = load_settings()
    refuse_if_running(settings.home)
    require_usable(settings)
    if os.geteuid() == 0:
        Console(stderr=True).print(ROOT_WARNING.format(home=settings.home), markup=False, soft_wrap=True)
    if not detach:
        os.execv(SUPERVISOR[0], SUPERVISOR)
    print_summary(settings, _start_detached(settings))


@app.command()
def down() -> None:
    """Stop the servers started by `clm up`; running flows end as crashed and can be retried."""
    from clm_core.domain.errors import ServerUnavailable
    from clm_core.platform.settings_file import home_in_force
    from clm_core.platform.stack_state import running

    home = home_in_force()
    state = running(home)
    if state is None:
        console.print(f"Nothing is up for {home}.")
        return
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOPPED_WITHIN_SECONDS
    with Console(stderr=True).status("Stopping ..."):
        while running(home):
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"Process {state.pid} does not end: kill -9 {state.pid} is safe and ends all parts."
                )
            time.sleep(0.1)
    console.print(f"Stopped all of {home}.")


@app.command()
def status(
    as_json: AsJson = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check that scheduled passes succeed, with any Prefect server: alert, exit with 1 if ill.",
        ),
    ] = False,
) -> None:
    """Show health, jobs, production versions and next runs; exits with 3 if down, with 1 if unhealthy."""
    from clm_core.domain.errors import SettingsError
    from clm_core.operations.status import read_status, read_status_without_settings
    from clm_core.platform.settings_file import home_in_force
    from clm_core.settings import load_settings

    if check:
        _check(load_settings(), as_json)
        return
    home = home_in_force()
    try:
        settings = load_settings()
    except SettingsError as error:
        current = read_status_without_settings(home, str(error))
    else:
        require_home(settings)
        current = read_status(settings)
    if as_json:
        typer.echo(json.dumps(current.model_dump(mode="json") | {"healthy": current.healthy}, indent=2))
    else:
        _show(home, current)
        if current.is_complete:
            _show_work(current)
    if not current.healthy:
        sys.exit(ExitCode.FAILED if current.up else ExitCode.NOT_UP)


@app.command()
def deploy(
    as_yaml: Annotated[
        bool,
        typer.Option("--yaml", help="Print a prefect.yaml for `prefect deploy --all` instead of deploying."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create or update Prefect's deployments from the settings: schedules, limits, forms."""
    from clm_core.platform.stack_state import prefect_environment, running
    from clm_core.settings import load_settings

    settings = load_settings()
    state = running(settings.home)
    environment = dict(os.environ)
    if state is not None and "PREFECT_API_URL" not in environment:
        environment |= prefect_environment(settings.home, state)
    environment |= {"PREFECT_HOME": str(settings.home / "prefect")}
    output = ["--yaml"] if as_yaml else ["--json"] if as_json else []
    done = subprocess.run([*DEPLOY, *output], env=environment, check=False)
    sys.exit(done.returncode)


def print_summary(settings: "Settings", state: "StackState") -> None:
    """Prints the URLs and folders of the running servers."""
    from clm_core.operations.status import urls
    from clm_core.platform.stack_state import folder

    table = Table(box=SIMPLE_HEAVY, show_header=False)
    for name, url in urls(state).items():
        table.add_row(name, f"[link={url}]{url}[/link]")
    table.add_row("user and password of Prefect and MLflow", f"in {folder(settings.home) / 'prefect.auth'}")
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
                raise ServerUnavailable(f"`clm up` did not start:\n{log.read_text().strip()}")
            time.sleep(0.2)
    raise ServerUnavailable(
        f"`clm up` is not ready after {STARTED_WITHIN_SECONDS:.0f} s: see {log}, or `clm down`."
    )


def _check(settings: "Settings", as_json: bool) -> None:
    from clm_core.operations.pass_watch import check_installation

    result = check_installation(settings)
    if as_json:
        passes = [each.model_dump(mode="json") for each in result.passes]
        typer.echo(json.dumps({"problems": result.problems, "passes": passes}, indent=2))
    else:
        console.print(_passes_table(result.passes))
        for problem in result.problems:
            console.print(problem, markup=False, soft_wrap=True)
    if result.problems:
        sys.exit(ExitCode.FAILED)


def _passes_table(passes: "Sequence[PassHealth]") -> Table:
    table = Table("pass", "condition", "last success (UTC)", box=SIMPLE_HEAVY)
    colours = {"ok": "green", "paused": "yellow", "overdue": "red"}
    for each in passes:
        last = "never" if each.succeeded_at is None else f"{each.succeeded_at:%Y-%m-%d %H:%M}"
        table.add_row(each.name, f"[{colours[each.condition]}]{each.condition}[/]", last)
    return table


def _show(home: Path, status: "InstallationStatus") -> None:
    if not status.up:
        console.print(f"Nothing is up for {home}: `clm up` starts it.")
    if status.settings_problem:
        ill = "Ill: the stack cannot load settings or policy, so that no scheduled pass runs."
        plain.print(f"{ill} {status.settings_problem} Every pass tries again.", soft_wrap=True)
    if status.command_problem and status.command_problem != status.settings_problem:
        plain.print(f"This command cannot load settings or policy: {status.command_problem}", soft_wrap=True)
    if status.storage_problem:
        plain.print(f"Ill: {status.storage_problem}", soft_wrap=True)
    elif status.storage:
        plain.print(f"Bars and artifacts: {status.storage}")
    if status.settings_differ:
        plain.print(
            f"The running stack uses other settings than this command: {', '.join(status.settings_differ)}. "
            "`clm config` names the file in force here.",
            soft_wrap=True,
        )
    for name, url in status.urls.items():
        console.print(f"{name:8} {url}")
    if status.parts:
        console.print(_parts_table(status))
    if status.passes:
        console.print(_passes_table(status.passes))
    for each in status.passes:
        if each.reason is not None:
            plain.print(each.reason, soft_wrap=True)


def _show_work(status: "InstallationStatus") -> None:
    """Jobs, production versions and next runs, known where the settings name the database."""
    jobs = ", ".join(f"{count} {each.value}" for each, count in sorted(status.jobs.items()))
    console.print(f"Jobs: {jobs or 'none yet'}")
    serving = ", ".join(f"{each.model_id} {each.version}" for each in status.production[:ROWS_SHOWN])
    console.print(f"In production: {serving or 'nothing'}{_more(len(status.production))}")
    if status.data.problem is not None:
        plain.print(status.data.problem, soft_wrap=True)
    if status.data.markets:
        console.print(_data_table(status.data))
        if more := _more(len(status.data.markets)):
            console.print(f" {more}")
    if status.next_runs:
        runs = Table("next run of", "at (UTC)", box=SIMPLE_HEAVY)
        for run in status.next_runs[:ROWS_SHOWN]:
            runs.add_row(run.deployment, f"{run.at:%Y-%m-%d %H:%M}")
        console.print(runs)
        if more := _more(len(status.next_runs)):
            console.print(f" {more}")


def _data_table(data: "DataAge") -> Table:
    table = Table("market", "newest bar closed (UTC)", "ago", "late bars", "", box=SIMPLE_HEAVY)
    colours = {"STALE": "red", "late": "yellow", "demo": "dim", "current": "green"}
    for each in data.markets[:ROWS_SHOWN]:
        age = each.bars
        word = f"[{colours[each.word]}]{each.word}[/]"
        closed = f"{age.newest_close:%Y-%m-%d %H:%M}"
        table.add_row(age.market, closed, age.age, f"{age.late_bars:,}", word)
    return table


def _more(count: int) -> str:
    """Words for the entries of a list that are not shown."""
    return f" and {count - ROWS_SHOWN} more: clm status --json" if count > ROWS_SHOWN else ""


def _parts_table(status: "InstallationStatus") -> Table:
    table = Table("part", "health", "process", "restarts", "log", box=SIMPLE_HEAVY)
    for part in status.parts:
        health = "[green]answers[/]" if part.healthy else "[red]down[/]"
        table.add_row(part.name, health, str(part.pid or "-"), str(part.restarts), str(part.log))
    return table
