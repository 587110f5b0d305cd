"""Command of a worker for a flow run: asks the fork server for a process that has everything imported.

The command stands for the run: signals are passed on, the exit code is that of the run, and a killed command
takes the run along. Where no fork server answers, as on another machine, the command becomes Prefect's engine
itself. Only a little of the standard library is imported.
"""

import contextlib
import json
import os
import signal
import socket
import sys
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
    connection = fork(os.environ.get(HOME_VARIABLE))
    if connection is None:
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_DFL)
        for received in pending:
            os.kill(os.getpid(), received)
        os.execv(sys.executable, [*MODULE, ENGINE])
    for received in pending:
        pass_on(received, None)
    end_as(_received(connection, ENDED_BYTES))


def fork(home: str | None) -> socket.socket | None:
    """Connection to the fork server after the fork of a process with the environment, folder and output of
    this process; None without a fork."""
    if home is None:
        return None
    connection = connect(Path(home))
    if connection is None:
        return None
    folder = os.getcwd()
    request = json.dumps({"module": ENGINE, "environment": dict(os.environ), "folder": folder}).encode()
    connection.settimeout(ANSWER_SECONDS)
    try:
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
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
    before = os.open(".", os.O_RDONLY)
    try:
        # the address of a socket has at most 107 bytes
        os.chdir(home / SOCKET.parent)
        connection.connect(SOCKET.name)
    except OSError:
        connection.close()
        return None
    finally:
        os.fchdir(before)
        os.close(before)
    return connection


def end_as(status: bytes) -> None:
    """End this process as the run ended; by SIGKILL where the fork server was lost, and the run with it."""
    code = -signal.SIGKILL
    if len(status) == ENDED_BYTES:
        code = os.waitstatus_to_exitcode(int.from_bytes(status, "big", signed=True))
    if code >= 0:
        sys.exit(code)
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def _received(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count and (part := connection.recv(count - len(content))):
        content += part
    return content


if __name__ == "__main__":
    main()
