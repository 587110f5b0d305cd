"""Attempts and programs of another user of the machine, who owns nothing of the installation."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

OTHER_UID = 65534
CLOSED = ("EACCES", "ENOENT", "EPERM")
"""Answers of the file system to a user without rights."""
LOCKED = ("401", "403")
"""Answers of a server to a request without a valid credential."""


@dataclass(frozen=True)
class Attempt:
    """One thing that another user tries."""

    action: Literal["read", "list", "write", "connect", "reserve", "GET", "POST", "PATCH", "PUT", "DELETE"]
    """`read`, `list`, `write`: a path. `connect`: a socket in the file system. `reserve`: the name of a
    socket outside the file system. Otherwise a request to a URL."""
    target: str
    refusals: tuple[str, ...]
    """Answers that count as a refusal: a status, or the name of an error."""
    body: str | None = None
    """Body of a request, JSON."""
    user: str = ""
    """`name:password` of a request, if any."""


def other_user() -> list[str]:
    """Beginning of a command that runs as another user.

    Skips the test where there is none.
    """
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("there is no setpriv on PATH to become another user with")
    return [program, f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups"]


def as_other_user(attempts: Iterable[Attempt]) -> dict[Attempt, str]:
    """Answer to each attempt: a status, the name of an error, or `done`."""
    return _made([*other_user(), _python(), "-I", "-c", SCRIPT], attempts)


def as_this_user(attempts: Iterable[Attempt]) -> dict[Attempt, str]:
    """Answer to each attempt of the present user, which shows that an attempt is well made."""
    return _made([sys.executable, "-I", "-c", SCRIPT], attempts)


def _made(command: list[str], attempts: Iterable[Attempt]) -> dict[Attempt, str]:
    listed = list(attempts)
    wire = json.dumps([[each.action, each.target, each.body, each.user] for each in listed])
    done = subprocess.run(command, input=wire, capture_output=True, text=True, check=True, cwd="/", env={})
    answers = json.loads(done.stdout)
    return dict(zip(listed, answers, strict=True))


def _python() -> str:
    """A Python that the other user may run."""
    for program in (os.path.realpath(sys.executable), shutil.which("python3", path=os.defpath)):
        if program is not None and _may_run(program):
            return program
    pytest.skip("there is no Python that another user may run")


def _may_run(program: str) -> bool:
    return subprocess.run([*other_user(), "test", "-x", program], check=False).returncode == 0


def run_as_other_user(
    script: str, home: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python script with the packages of this process.

    Args:
        home: folder that becomes the user's home, and belongs to the user.
    """
    become = other_user()
    home.mkdir(exist_ok=True)
    os.chown(home, OTHER_UID, OTHER_UID)
    environment = {
        "HOME": str(home),
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    assigned = [f"{name}={value}" for name, value in environment.items()]
    command = [*become, "env", "-i", *assigned, _python_of_this_version(), "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


def _python_of_this_version() -> str:
    """A Python of the version of this process, whose packages it can load."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{version}"):
        tried = subprocess.run(
            [*other_user(), "env", "-i", candidate, "-c", ""], capture_output=True, check=False
        )
        if tried.returncode == 0:
            return candidate
    pytest.skip(f"there is no Python {version} that another user may run")


def paths_of(home: Path) -> list[Attempt]:
    """Attempts to list every folder, read every file and leave a file in every folder of a home."""
    attempts = [Attempt("list", str(home), CLOSED), Attempt("write", str(home / "theirs"), CLOSED)]
    for path in home.rglob("*"):
        if path.is_dir():
            attempts.append(Attempt("list", str(path), CLOSED))
            attempts.append(Attempt("write", str(path / "theirs"), CLOSED))
        elif path.is_file():
            attempts.append(Attempt("read", str(path), CLOSED))
    return attempts


SCRIPT = """
import base64, errno, json, os, socket, sys, urllib.error, urllib.request

held = []

def attempt(action, target, body, user):
    if action == "read":
        with open(target, "rb") as file:
            file.read(1)
    elif action == "list":
        os.listdir(target)
    elif action == "write":
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(target)
    elif action == "connect":
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(target)
    elif action == "reserve":
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].bind("\\0" + target)
    else:
        headers = {"Content-Type": "application/json"}
        if user:
            headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
        data = None if body is None else body.encode()
        request = urllib.request.Request(target, data, headers, method=action)
        try:
            return str(urllib.request.urlopen(request, timeout=60).status)
        except urllib.error.HTTPError as error:
            return str(error.code)
    return "done"

def answer(*made):
    try:
        return attempt(*made)
    except OSError as error:
        return errno.errorcode.get(error.errno, repr(error))

print(json.dumps([answer(*made) for made in json.load(sys.stdin)]))
"""
