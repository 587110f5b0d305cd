"""One Prefect server for all commands of a home, with real servers and real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from installations import wait_until
from patience import PATIENT_SECONDS

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.database import Database, open_database
from clm_core.platform.file_locks import lock_file
from clm_core.platform.prefect_runs import is_answering
from clm_core.platform.prefect_server import prefect_server, server_environment
from clm_core.platform.shared_prefect import shared_server

Environment = Callable[[str], Mapping[str, str]]


@pytest.fixture(scope="module")
def database(make_home: Callable[[str], Path]) -> Iterator[Database]:
    with open_database(make_home("shared-prefect")) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefect"


@pytest.fixture
def environment(database: Database, folder: Path) -> Environment:
    return partial(server_environment, database, folder)


def is_alive(folder: Path) -> bool:
    with (folder / "server.alive").open("ab") as alive:
        return not lock_file(alive, wait=False)


def server_of(folder: Path) -> int:
    return int(json.loads((folder / "server.json").read_text())["pid"])


def test_commands_that_begin_at_the_same_moment_share_a_server_which_the_last_one_stops(
    folder: Path, environment: Environment
) -> None:
    together, done = (threading.Barrier(8, timeout=PATIENT_SECONDS) for _ in range(2))

    def command() -> tuple[str, bool]:
        together.wait()
        with shared_server(folder, environment) as (url, wait_until_ready):
            wait_until_ready()
            answers = is_answering(f"{url}/health")
            done.wait()
        return url, answers

    with ThreadPoolExecutor(8) as pool:
        commands = [pool.submit(command) for _ in range(8)]
        urls, answers = zip(*(each.result(PATIENT_SECONDS) for each in commands), strict=True)
    assert len(set(urls)) == 1
    assert all(answers)
    assert not is_alive(folder)
    assert not (folder / "server.json").exists()


def test_a_server_stays_while_another_command_uses_it(folder: Path, environment: Environment) -> None:
    with shared_server(folder, environment) as (url, wait_until_ready):
        with shared_server(folder, environment) as (same, _):
            wait_until_ready()
        assert same == url
        assert is_answering(f"{url}/health")


COMMAND = """
import sys
from pathlib import Path
from clm_core.platform.shared_prefect import shared_server
with shared_server(Path(sys.argv[1]), lambda url: {}) as (url, wait_until_ready):
    wait_until_ready()
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_server_ends_when_all_its_commands_were_killed(folder: Path, environment: Environment) -> None:
    variables = os.environ | environment("http://127.0.0.1:9/api")
    script = [sys.executable, "-c", COMMAND, str(folder)]
    with subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        assert is_alive(folder)
        command.kill()
    wait_until(lambda: not is_alive(folder))
    assert not (folder / "server.json").exists()


def test_a_command_starts_a_new_server_beside_the_traces_of_a_killed_one(
    folder: Path, environment: Environment
) -> None:
    with shared_server(folder, environment) as (first, wait_until_ready):
        wait_until_ready()
        os.kill(server_of(folder), signal.SIGKILL)
        wait_until(lambda: not is_alive(folder))
        assert (folder / "server.json").exists()
        with shared_server(folder, environment) as (second, wait_for_second):
            wait_for_second()
            assert is_answering(f"{second}/health")
    assert first != second
    assert not is_alive(folder)


def test_a_server_that_ends_during_the_start_is_an_error_that_names_the_log(folder: Path) -> None:
    nowhere = {"PREFECT_HOME": str(folder), "PREFECT_API_DATABASE_CONNECTION_URL": "nonsense://"}
    with (
        pytest.raises(ServerUnavailable, match=r"ended during the start: see .*server\.log"),
        shared_server(folder, lambda url: nowhere) as (_, wait_until_ready),
    ):
        wait_until_ready()
    assert (folder / "server.log").read_text()


def test_the_server_of_a_command_asks_other_users_of_the_machine_for_the_password(
    database: Database, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    with prefect_server(database, tmp_path) as wait_until_ready:
        wait_until_ready()
        flows = f"{PREFECT_API_URL.value()}/flows/filter"
        assert httpx.post(flows, json={}).status_code == 401
        assert httpx.post(flows, json={}, auth=("clm", "wrong")).status_code == 401
        with get_client(sync_client=True) as client:
            assert client.read_flows() == []
