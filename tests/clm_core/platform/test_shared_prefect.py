"""One Prefect server for all commands of a home, with real servers and real processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Shared:
    """Server of eight commands that began at the same moment."""

    urls: list[str]
    answers: list[bool]
    last_answer: bool
    """True if the server answered the last command after the others had ended."""
    refused: list[int]
    """Status of responses to requests without the password."""
    flows: list[Any]
    """Response to a request with the password."""


@pytest.fixture(scope="module")
def shared(database: Database, home_of_commands: Path) -> Shared:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    together = threading.Barrier(8, timeout=PATIENT_SECONDS)

    @contextlib.contextmanager
    def command() -> Iterator[tuple[str, bool]]:
        together.wait()
        with prefect_server(database, home_of_commands) as wait_until_ready:
            wait_until_ready()
            url = PREFECT_API_URL.value()
            answers = is_answering(f"{url}/health")
            together.wait()
            yield url, answers

    def begin_and_end() -> tuple[str, bool]:
        with command() as used:
            return used

    with ThreadPoolExecutor(7) as pool:
        others = [pool.submit(begin_and_end) for _ in range(7)]
        with command() as last:
            commands = [*(each.result(PATIENT_SECONDS) for each in others), last]
            url, _ = last
            flows = f"{url}/flows/filter"
            refused = [
                httpx.post(flows, json={}, auth=password).status_code for password in (None, ("clm", "wrong"))
            ]
            with get_client(sync_client=True) as client:
                return Shared(
                    urls=[url for url, _ in commands],
                    answers=[answers for _, answers in commands],
                    last_answer=is_answering(f"{url}/health"),
                    refused=refused,
                    flows=client.read_flows(),
                )


@pytest.fixture(scope="module")
def home_of_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


def test_commands_that_begin_at_the_same_moment_share_a_server_which_the_last_one_stops(
    shared: Shared, home_of_commands: Path
) -> None:
    assert len(set(shared.urls)) == 1
    assert len(shared.answers) == 8
    assert all(shared.answers)
    assert not is_alive(home_of_commands / "prefect")
    assert not (home_of_commands / "prefect" / "server.json").exists()


def test_a_server_stays_while_another_command_uses_it(shared: Shared) -> None:
    assert shared.last_answer


def test_the_server_of_a_command_asks_other_users_of_the_machine_for_the_password(shared: Shared) -> None:
    assert shared.refused == [401, 401]
    assert shared.flows == []


COMMAND = """
import sys
from pathlib import Path
from clm_core.platform.shared_prefect import shared_server
with shared_server(Path(sys.argv[1]), lambda url: {}) as (url, wait_until_ready):
    wait_until_ready()
    print(url, flush=True)
    sys.stdin.readline()
"""


def test_a_command_starts_a_new_server_beside_the_traces_of_a_killed_one_and_it_ends_with_killed_commands(
    folder: Path, environment: Environment
) -> None:
    variables = os.environ | environment("http://127.0.0.1:9/api")

    def start() -> tuple["subprocess.Popen[str]", str]:
        """A command that uses a server, with the address."""
        script = [sys.executable, "-c", COMMAND, str(folder)]
        command = subprocess.Popen(
            script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True
        )
        assert command.stdout is not None
        return command, command.stdout.readline().strip()

    command, first = start()
    with command:
        os.kill(server_of(folder), signal.SIGKILL)
        wait_until(lambda: not is_alive(folder))
        assert (folder / "server.json").exists()
        later, second = start()
        with later:
            assert is_answering(f"{second}/health")
            assert is_alive(folder)
            for each in (command, later):
                each.kill()
    assert first != second
    wait_until(lambda: not is_alive(folder))
    assert not (folder / "server.json").exists()


def test_a_server_that_ends_during_the_start_is_an_error_that_names_the_log(folder: Path) -> None:
    refused = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_API_PORT": "nonsense"}
    with (
        pytest.raises(ServerUnavailable, match=r"ended during the start: see .*server\.log"),
        shared_server(folder, lambda url: refused) as (_, wait_until_ready),
    ):
        wait_until_ready()
    assert (folder / "server.log").read_text()
