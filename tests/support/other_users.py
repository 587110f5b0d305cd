"""Programs run as another user of the machine, who owns nothing of the installation."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

NOBODY = 65534
"""User and group `nobody`."""
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", "-i")


def run_as_nobody(
    script: str, home: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python script with the packages of this process.

    Args:
        home: folder that becomes the user's home, and belongs to the user.
    """
    home.mkdir(exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    environment = {
        "HOME": str(home),
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    assigned = [f"{name}={value}" for name, value in environment.items()]
    command = [*AS_NOBODY, *assigned, _interpreter(), "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


def _interpreter() -> str:
    """Interpreter of the version of this process that `nobody` may run; skips the test without one."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root runs a program as another user")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{version}"):
        tried = subprocess.run([*AS_NOBODY, candidate, "-c", ""], capture_output=True, check=False)
        if tried.returncode == 0:
            return candidate
    pytest.skip(f"there is no Python {version} that another user may run")
