"""`clm up`: all servers and workers of an installation on the local machine, supervised.

`python -m deployments.stack` runs the supervisor.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from clm_core.cli.renamed import show_deprecations
from clm_core.cli.stack import print_summary
from clm_core.domain.errors import CLMError, ServerUnavailable
from clm_core.ledger.passes import PassStore
from clm_core.operations.settings_check import record_settings, require_usable_in_fork
from clm_core.operations.universe import trained_here
from clm_core.platform import stack_state
from clm_core.platform.database import Database, open_database, revive
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.platform.interpreter import MODULE, ONE_BLAS_THREAD
from clm_core.platform.json_logs import prefect_variables
from clm_core.platform.prefect_runs import is_answering, work_pool_template, workers_online
from clm_core.platform.prefect_server import server_environment
from clm_core.platform.prefect_workers import QueueWorker, arguments
from clm_core.platform.private_files import close_settings, keep_files_private, secure_home
from clm_core.platform.run_engine import is_listening
from clm_core.platform.stack_state import PartState, PartStatus, StackState
from clm_core.registry.mlflow_webhooks import webhook_variables
from clm_core.services import loading_problem, open_ledger, settle_home
from clm_core.settings import Settings, child_variables, load_settings, names_secrets, settings_file
from deployments import fork_server, forks, maintenance_loop
from deployments.supervisor import StackPart, Stopped, Supervisor, stoppable
from deployments.watchdog import Watchdog
from deployments.work_pool import PROCESS, process_template

PREFERRED_PORTS = {"prefect": 4200, "mlflow": 5000, "api": 8000}
READY_WITHIN_SECONDS = 300.0
SETTINGS_CHECKED_SECONDS = 15.0
"""Time between two looks at settings and policy, which every flow run loads at its start."""
DEPLOYED_WITHIN_SECONDS = 5.0
"""Longest wait for the deployments once all parts are ready: hundreds of schedules take Prefect longer."""
TRAINED_CHECKED_SECONDS = 60.0
"""Time between two looks for models trained first."""
MAINTENANCE_RUNS = 5
"""Runs at a time of the scheduled passes: one each of maintenance, fetch, dispatch, watch and shadow.

Maintenance is a run where no loop makes its passes, and by hand."""


def main() -> int:
    console = Console(stderr=True, highlight=False)
    show_deprecations()
    try:
        with stoppable():
            run(load_settings(), console)
    except Stopped as stopped:
        console.print(f"Stopped ({stopped}).")
    except CLMError as error:
        console.print("[red]Error:[/]", str(error), markup=True, soft_wrap=True)
        return 1
    return 0


def run(settings: Settings, console: Console) -> None:
    """Starts and supervises all parts until Stopped is raised."""
    require_usable_in_fork(settings)
    secure_home(settings.home)
    _leave_current_folder(settings)
    with ExitStack() as running:
        running.enter_context(stack_state.stack_lock(settings.home))
        for message in _renewed_secrets(settings):
            console.print(message, markup=False, soft_wrap=True)
        plan = _Plan(settings, running.enter_context(_ports(settings)))
        database = running.enter_context(open_database(settings.home, settings.database_url))
        settle_home(settings.home, database)
        record_settings(settings, plan.state.started_at)
        reporter = _StateReporter(settings.home, plan.state, console)
        supervisor = running.enter_context(
            Supervisor(stack_state.folder(settings.home) / "logs", reporter.changed)
        )
        reporter.supervisor = supervisor
        if fork_server.is_supported():
            forks.preload_prefect(plan.environment)
        supervisor.start(_forked(plan.prefect(database)))
        if fork_server.is_supported():
            # while the server starts on another processor;
            # a class of MLflow keeps the key of the webhooks that it finds when it is imported
            forks.preload(plan.environment | webhook_variables(settings.home))
        supervisor.start(_forked(plan.mlflow(database)))
        # migrate the ledger while the servers start on the other core
        with open_ledger(database) as engine:
            # no pass could succeed while nothing was up
            PassStore(engine).restart()
        _wait(supervisor, ["prefect"])
        # first, so that a model trained meanwhile is found later
        schedules = _Schedules(settings, plan.environment, console)
        running.callback(schedules.stop)
        deploying = _deploy(settings, plan.environment)
        running.callback(deploying.terminate)
        # a worker goes by the template that the pool has when the worker starts
        _wait_for_work_pool(settings, plan.environment, deploying)
        if fork_server.is_supported():
            supervisor.start(_forked(plan.fork_server()))
        supervisor.start(_forked(plan.worker()))
        # both migrate MLflow's database, and two migrations at once would collide
        _wait(supervisor, ["mlflow"])
        if fork_server.is_supported():
            _wait(supervisor, ["fork-server"])
        supervisor.start(_forked(plan.maintenance_loop(), "deployments.maintenance_loop"))
        if plan.state.api_url is not None:
            supervisor.start(_forked(plan.api()))
        _wait(supervisor, [part.name for part in supervisor.states])
        schedules.go_on(deploying)
        if fork_server.is_supported():
            forks.release_library_pages()
        running.enter_context(_watchdog(settings, database, plan.environment, console))
        print_summary(settings, reporter.all_ready())
        while True:
            supervisor.check_parts()
            reporter.check_settings()
            schedules.follow()
            if settings.database_url is None and revive(settings.home):
                console.print("database: died, restarted")


class _Plan:
    """Commands and environments of the parts."""

    def __init__(self, settings: Settings, ports: Mapping[str, int]) -> None:
        self._settings = settings
        self._ports = ports
        self.state = StackState(
            pid=os.getpid(),
            started_at=datetime.now(UTC),
            prefect_url=_local(ports["prefect"]),
            mlflow_url=_local(ports["mlflow"]),
            api_url=api_url(settings.api.address, ports["api"]) if "api" in ports else None,
        )
        self.environment = _environment(settings, self.state)

    def prefect(self, database: Database) -> StackPart:
        home = self._settings.home
        url = self.state.prefect_api_url
        return StackPart(
            name="prefect",
            command=(*MODULE, "clm_core.platform.prefect_server", str(self._ports["prefect"])),
            environment=self.environment
            | server_environment(database, home / "prefect", url)
            | {
                "PREFECT_SERVER_API_AUTH_STRING": stack_state.prefect_auth(home),
            },
            is_ready=lambda: is_answering(f"{url}/health"),
            is_alive=lambda: is_answering(f"{url}/health"),
        )

    def mlflow(self, database: Database) -> StackPart:
        port = self._ports["mlflow"]
        return StackPart(
            name="mlflow",
            command=(*MODULE, "clm_core.registry.server", str(port)),
            environment=self.environment | mlflow_environment(database, port),
            is_ready=lambda: is_answering(f"{self.state.mlflow_url}/health"),
            is_alive=lambda: is_answering(f"{self.state.mlflow_url}/health"),
        )

    def fork_server(self) -> StackPart:
        home = self._settings.home
        return StackPart(
            name="fork-server",
            command=(*MODULE, "deployments.fork_server"),
            environment=self.environment | fork_server.ENVIRONMENT,
            is_ready=lambda: is_listening(home),
        )

    def worker(self) -> StackPart:
        """Worker of the trainings and worker of the scheduled passes, which must not wait for trainings of
        several hours."""
        deploy = self._settings.deploy
        workers = (
            QueueWorker(stack_state.WORKER, "default", self._settings.stack.concurrent_runs),
            QueueWorker(stack_state.MAINTENANCE_WORKER, stack_state.MAINTENANCE_QUEUE, MAINTENANCE_RUNS),
        )
        module = "clm_core.platform.prefect_workers"
        names = {each.name for each in workers}
        return StackPart(
            name="worker",
            command=(*MODULE, module, *arguments(deploy.work_pool, deploy.work_pool_type, workers)),
            environment=self.environment,
            is_ready=lambda: names <= set(workers_online(self.environment, deploy.work_pool)),
        )

    def maintenance_loop(self) -> StackPart:
        home = self._settings.home
        return StackPart(
            name="maintenance-loop",
            # a fork shares the libraries in memory
            command=(*MODULE, "clm_core.platform.run_engine", "deployments.maintenance_loop"),
            environment=self.environment,
            is_ready=lambda: maintenance_loop.is_alive(home),
            is_alive=lambda: maintenance_loop.is_alive(home),
        )

    def api(self) -> StackPart:
        return StackPart(
            name="api",
            command=(*MODULE, "clm_core.api", str(self._ports["api"])),
            environment=self.environment,
            is_ready=lambda: is_answering(f"{self.state.api_url}/readyz"),
            # alive without the database too: /health reports the outage
            is_alive=lambda: is_answering(f"{self.state.api_url}/livez"),
        )


def _forked(part: StackPart, *module: str) -> StackPart:
    """The part as a fork of the supervisor, where possible.

    Args:
        module: module and arguments; by default those of the command.
    """
    if not forks.is_possible():
        return part
    run = module or tuple(part.command[len(MODULE) :])
    return replace(part, fork=partial(forks.Fork, run, part.environment))


class _Schedules:
    """Completes the deployments of the start, and makes those of models trained since, where the settings
    list no universe."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], console: Console) -> None:
        self._settings = settings
        self._environment = environment
        self._console = console
        self._deployed = self._trained()
        self._due = time.monotonic() + TRAINED_CHECKED_SECONDS
        self._deploying: subprocess.Popen[bytes] | None = None
        self._has_failed = False

    def go_on(self, deploying: "subprocess.Popen[bytes]") -> None:
        """Wait a moment for the deployments of the start, and complete hundreds of them after the start.

        Raises:
            ServerUnavailable: the process that deploys has failed.
        """
        try:
            deploying.wait(DEPLOYED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._console.print(f"deployments: still being made, see {_deploy_log(self._settings.home)}")
            self._deploying = deploying
        else:
            _finish(deploying, self._settings.home)

    def follow(self) -> None:
        """Deploy if a model was trained first; failures are printed, and tried again."""
        if self._deploying is not None:
            self._look_at(self._deploying)
        if self._deploying is not None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + TRAINED_CHECKED_SECONDS
        trained = self._trained()
        if self._has_failed or (trained is not None and trained != self._deployed):
            self._deployed = trained
            self._has_failed = False
            self._deploying = _deploy(self._settings, self._environment)

    def _look_at(self, deploying: "subprocess.Popen[bytes]") -> None:
        """Forget a process that has ended, and print the end."""
        if deploying.poll() is None:
            return
        self._deploying = None
        self._has_failed = deploying.returncode != 0
        if self._has_failed:
            log = _deploy_log(self._settings.home)
            self._console.print(f"deployments: not brought in line with the models, see {log}")
        else:
            self._console.print("deployments: made")

    def stop(self) -> None:
        if self._deploying is not None:
            self._deploying.terminate()

    def _trained(self) -> frozenset[str] | None:
        """Models with a version; None while the database does not answer, and with a listed universe."""
        if self._settings.lists_universe:
            return None
        try:
            return trained_here(self._settings)
        except (CLMError, SQLAlchemyError):
            return None


class _StateReporter:
    """Records the states of the parts and prints changes on the terminal."""

    def __init__(self, home: Path, state: StackState, console: Console) -> None:
        self._home = home
        self._state = state
        self._console = console
        self.supervisor: Supervisor | None = None
        self._settings_due = 0.0

    def changed(self, part: PartState) -> None:
        if part.status is PartStatus.RESTARTING:
            self._console.print(f"{part.name}: ended ({part.last_exit}), restarting; see {part.log}")
        elif part.status is PartStatus.READY:
            self._console.print(f"{part.name}: ready")
        self._write()

    def all_ready(self) -> StackState:
        self._state = self._state.model_copy(update={"ready": True})
        self._write()
        return self._state

    def check_settings(self) -> None:
        """Records that a process started now could not load settings or policy; looks every few seconds."""
        if time.monotonic() < self._settings_due:
            return
        problem = loading_problem()
        self._settings_due = time.monotonic() + SETTINGS_CHECKED_SECONDS
        if problem != self._state.settings_problem:
            self._console.print(f"settings: {problem or 'usable again'}", markup=False, soft_wrap=True)
            self._state = self._state.model_copy(update={"settings_problem": problem})
            self._write()

    def _write(self) -> None:
        parts = () if self.supervisor is None else self.supervisor.states
        stack_state.write_state(self._home, self._state.model_copy(update={"parts": parts}))


def _renewed_secrets(settings: Settings) -> Iterator[str]:
    """Sentences about secrets that other users of the machine could have read; the files are private now.

    Raises:
        SecretExposed: another user can change the settings file.
    """
    if renewed := stack_state.renew_exposed_auth(settings.home):
        yield renewed
    file = settings_file()
    if file is not None and (closed := close_settings(file, has_secrets=names_secrets(settings))):
        yield closed


def _leave_current_folder(settings: Settings) -> None:
    """Works in the home from now on, with the settings of the folder in which the command was typed.

    A file that appears in that folder later has no say, and the parts see relative paths as the command does.
    """
    os.environ |= child_variables(settings)
    if search_path := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, search_path.split(os.pathsep)))
    os.chdir(settings.home)


def _environment(settings: Settings, state: StackState) -> dict[str, str]:
    """Environment of all parts and flow runs: the same settings in every folder."""
    return {
        **child_variables(settings),
        **stack_state.prefect_environment(settings.home, state),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONSAFEPATH": "1",
        "PREFECT_HOME": str(settings.home / "prefect"),
        **client_environment(settings),
    }


def client_environment(settings: Settings) -> dict[str, str]:
    """Environment variables of all workers and flow runs, in every installation."""
    return {
        # each question of a worker takes the server 20 ms of processor time, day and night
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        **ONE_BLAS_THREAD,
        **prefect_variables(settings.logs.format == "json"),
        "DO_NOT_TRACK": "1",
    }


def mlflow_environment(database: Database, port: int) -> dict[str, str]:
    """Environment variables of the MLflow server of an installation."""
    return {
        # not on the command line, where every user of the machine could read the password
        "MLFLOW_BACKEND_STORE_URI": database.url("mlflow", driver="psycopg"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port},localhost:{port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@contextmanager
def _watchdog(
    settings: Settings, database: Database, environment: Mapping[str, str], console: Console
) -> Iterator[None]:
    def report(message: str) -> None:
        console.print(f"watchdog: {message}", markup=False, soft_wrap=True)

    watchdog = Watchdog(settings, database, environment, report)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


def _ports(settings: Settings) -> AbstractContextManager[dict[str, int]]:
    stack = settings.stack
    fixed = {"prefect": stack.prefect_port, "mlflow": stack.mlflow_port, "api": stack.api_port}
    names = [name for name in PREFERRED_PORTS if name != "api" or _has_api()]
    return stack_state.reserved_ports(
        settings.home,
        preferred={name: PREFERRED_PORTS[name] for name in names},
        fixed={name: port for name in names if (port := fixed[name]) is not None},
    )


def _has_api() -> bool:
    return find_spec("clm_core.api") is not None and find_spec("clm_core.api.__main__") is not None


def _wait(supervisor: Supervisor, names: list[str]) -> None:
    if missing := supervisor.wait_until_ready(names, READY_WITHIN_SECONDS):
        logs = ", ".join(str(part.log) for part in supervisor.states if part.name in missing)
        raise ServerUnavailable(
            f"{', '.join(missing)} did not become ready in {READY_WITHIN_SECONDS:.0f} s: see {logs}."
        )


def _deploy(settings: Settings, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    with _deploy_log(settings.home).open("wb") as output:
        return subprocess.Popen(
            [*MODULE, "deployments.definitions"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _wait_for_work_pool(
    settings: Settings, environment: Mapping[str, str], deploying: "subprocess.Popen[bytes]"
) -> None:
    """Wait until the template of the pool is fixed.

    Raises:
        ServerUnavailable: the process that deploys has failed.
    """
    pool = settings.deploy.work_pool
    pool_type = settings.deploy.work_pool_type

    def is_fixed() -> bool:
        template = work_pool_template(environment, pool)
        return template is not None and (pool_type != PROCESS or template == process_template(settings))

    while not is_fixed() and deploying.poll() is None:
        time.sleep(0.2)
    if deploying.poll() is not None:
        _finish(deploying, settings.home)


def _finish(deploying: "subprocess.Popen[bytes]", home: Path) -> None:
    if deploying.wait() != 0:
        raise ServerUnavailable(
            f"The deployments could not be created: see {_deploy_log(home)}, and try `clm deploy`."
        )


def _deploy_log(home: Path) -> Path:
    return stack_state.folder(home) / "logs" / "deploy.log"


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def api_url(address: str | None, port: int) -> str:
    """URL of the API on this machine, where it listens on an address or, as 0.0.0.0 or ::, on all."""
    listens_on = ip_address(address or "127.0.0.1")
    if listens_on.is_unspecified:
        listens_on = ip_address("127.0.0.1" if listens_on.version == 4 else "::1")
    return f"http://{listens_on if listens_on.version == 4 else f'[{listens_on}]'}:{port}"


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    sys.exit(main())
