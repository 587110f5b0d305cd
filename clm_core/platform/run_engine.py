"""Command of a worker for a flow run: asks the fork server for a process that has everything imported.

    python -P -m clm_core.platform.run_engine [MODULE [ARGUMENT ...]]

Without a module, Prefect's engine runs. The command stands for the run: signals are passed on, the exit code
is that of the run, and a killed command takes the run along. Where no fork server answers, as on another
machine, the command becomes the module itself. Only a little of the standard library is imported.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from clm_core.platform.interpreter import MODULE

SOCKET = Path("stack", "forks.sock")
"""Address of the fork server in a home."""
HOME_VARIABLE = "CLM_HOME"
ENGINE = "prefect.engine"
FORKED = b"+"
"""First byte of the answer: the run has a process. No byte at all: it has none."""
ENDED_BYTES = 4
"""Length of the last part of the answer: the wait status of the process, a signed number."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ANSWER_SECONDS = 60.0
"""Longest wait for a process; a busy machine forks slowly."""


def main() -> None:
    pending: list[int] = []
    connection: socket.socket | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if connection is None:
            pending.append(number)
        else:
            connection.send(bytes([number]))

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    module, *arguments = sys.argv[1:] or [ENGINE]
    connection = fork(os.environ.get(HOME_VARIABLE), module, arguments)
    if connection is None:
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_DFL)
        for received in pending:
            os.kill(os.getpid(), received)
        os.execv(sys.executable, [*MODULE, module, *arguments])
    for received in pending:
        pass_on(received, None)
    end_as(received_end(connection))


def fork(
    home: str | None,
    module: str,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    files: Sequence[int] = (0, 1, 2),
) -> socket.socket | None:
    """Connection to the fork server after the fork of a process in the folder of this process.

    Args:
        home: home of the fork server; None forks nothing.
        module: module to run, as by `python -m`.
        files: descriptors of standard input, output and error; by default those of this process.

    Returns:
        The connection, on which signals are sent and the end is received; None without a fork.
    """
    if home is None:
        return None
    connection = connect(Path(home))
    if connection is None:
        return None
    folder = os.getcwd()
    fields = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "folder": folder,
    }
    request = json.dumps(fields).encode()
    connection.settimeout(ANSWER_SECONDS)
    try:
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], list(files))
        connection.sendall(request)
        answer = connection.recv(1)
    except OSError:
        answer = b""
    connection.settimeout(None)
    if answer == FORKED:
        return connection
    connection.close()
    return None


def is_listening(home: Path) -> bool:
    """True if a fork server of the home accepts requests."""
    connection = connect(home)
    if connection is not None:
        connection.close()
    return connection is not None


def connect(home: Path) -> socket.socket | None:
    """Connection to the fork server of a home; None if none listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(home / SOCKET.parent, os.O_RDONLY)
        try:
            # the address of a socket has at most 107 bytes; other threads keep their folder
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET.name}")
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        return None
    return connection


def exit_code(status: bytes) -> int:
    """Exit code of a forked process; that of SIGKILL where the fork server was lost, and the process with
    it."""
    if len(status) != ENDED_BYTES:
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(int.from_bytes(status, "big", signed=True))


def end_as(status: bytes) -> None:
    """End this process as the run ended."""
    code = exit_code(status)
    if code >= 0:
        sys.exit(code)
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def received_end(connection: socket.socket) -> bytes:
    """Status of a forked process at its end, for `exit_code`."""
    content = b""
    while len(content) < ENDED_BYTES and (part := connection.recv(ENDED_BYTES - len(content))):
        content += part
    return content


if __name__ == "__main__":
    main()
