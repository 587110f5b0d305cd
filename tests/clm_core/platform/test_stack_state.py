"""Files of `clm up` in the home folder: state, lock, ports and password; no server is started."""

import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clm_core.domain.errors import PortTaken, StackRunning
from clm_core.platform import stack_state
from clm_core.platform.stack_state import StackState

STATE = StackState(
    pid=1,
    started_at=datetime(2025, 12, 4, tzinfo=UTC),
    prefect_url="http://127.0.0.1:4200",
    mlflow_url="http://127.0.0.1:5000",
)
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port with a listener."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port: int = other.getsockname()[1]
        yield port


def test_a_fresh_home_has_no_running_stack(tmp_path: Path) -> None:
    assert stack_state.running(tmp_path) is None


def test_the_state_is_known_while_the_stack_runs(tmp_path: Path) -> None:
    with stack_state.stack_lock(tmp_path):
        stack_state.write_state(tmp_path, STATE)
        assert stack_state.running(tmp_path) == STATE
    assert stack_state.running(tmp_path) is None


def test_a_second_stack_is_refused_with_the_command_that_stops_the_first(tmp_path: Path) -> None:
    with (
        stack_state.stack_lock(tmp_path),
        pytest.raises(StackRunning, match="clm down"),
        stack_state.stack_lock(tmp_path),
    ):
        pytest.fail("two stacks at once")


def test_readers_of_the_state_do_not_prevent_a_start(tmp_path: Path) -> None:
    with stack_state.stack_lock(tmp_path):
        pass
    ended = threading.Event()

    def read_state() -> None:
        while not ended.is_set():
            stack_state.running(tmp_path)

    reader = threading.Thread(target=read_state)
    reader.start()
    try:
        for _ in range(50):
            with stack_state.stack_lock(tmp_path):
                pass
    finally:
        ended.set()
        reader.join()


def choose(home: Path, preferred: dict[str, int], fixed: dict[str, int] | None = None) -> dict[str, int]:
    stack_state.folder(home).mkdir(exist_ok=True)
    with stack_state.reserved_ports(home, preferred, fixed or {}) as ports:
        return ports


def test_ports_stay_the_same_across_restarts(tmp_path: Path) -> None:
    first = choose(tmp_path, {"prefect": 24200, "mlflow": 24200})
    assert len(set(first.values())) == 2
    assert choose(tmp_path, {"prefect": 25000, "mlflow": 25000}) == first


def test_a_port_in_use_is_passed_over(tmp_path: Path, taken: int) -> None:
    assert choose(tmp_path, {"prefect": taken})["prefect"] > taken


def test_stacks_that_start_at_once_choose_different_ports(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stack_state.folder(tmp_path / name).mkdir(parents=True)
    with stack_state.reserved_ports(tmp_path / "one", {"prefect": 24300}, {}) as first:
        # without a listener yet
        assert choose(tmp_path / "two", {"prefect": 24300}) != first
        with pytest.raises(PortTaken):
            choose(tmp_path / "two", {}, {"prefect": first["prefect"]})
    assert choose(tmp_path / "two", {}, {"prefect": first["prefect"]}) == first


def test_a_fixed_port_in_use_is_an_error(tmp_path: Path, taken: int) -> None:
    with pytest.raises(PortTaken, match=str(taken)):
        choose(tmp_path, {"prefect": 24200}, {"prefect": taken})
    assert not (stack_state.folder(tmp_path) / "ports.json").exists()


def test_the_password_of_prefect_is_generated_once_and_readable_by_the_owner_alone(tmp_path: Path) -> None:
    first = stack_state.prefect_auth(tmp_path)
    file = stack_state.folder(tmp_path) / "prefect.auth"
    assert stack_state.prefect_auth(tmp_path) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(first) > 40


def test_the_state_on_disk_holds_no_secret(tmp_path: Path) -> None:
    secret = stack_state.prefect_auth(tmp_path)
    with stack_state.stack_lock(tmp_path):
        stack_state.write_state(tmp_path, STATE)
        content = (stack_state.folder(tmp_path) / "state.json").read_text()
    assert json.loads(content)["prefect_url"] == STATE.prefect_url
    assert secret not in content


@needs_root
def test_a_port_reserved_by_one_user_is_passed_over_by_another_and_free_afterwards(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        assert stack_state._reserve(24350, held)
        assert not as_nobody(lambda: stack_state._reserve(24350, contextlib.ExitStack()))
    assert as_nobody(lambda: stack_state._reserve(24350, contextlib.ExitStack()))
    # what nobody reserved, and did not free, ended with the process
    with contextlib.ExitStack() as held:
        assert stack_state._reserve(24350, held)


def test_a_reservation_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.ExitStack() as held:
        assert stack_state._reserve(24351, held)
        assert list(tmp_path.iterdir()) == []


def test_a_port_is_reserved_by_a_file_of_the_user_where_sockets_have_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.ExitStack() as held:
        assert stack_state._reserve_by_file(24352, held)
        assert not stack_state._reserve_by_file(24352, contextlib.ExitStack())
        [folder] = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stack_state._reserve_by_file(24352, contextlib.ExitStack())


def as_nobody(attempt: Callable[[], bool]) -> bool:
    """Answer of a function called by another user of the machine."""
    child = os.fork()
    if child == 0:
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os._exit(0 if attempt() else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0
