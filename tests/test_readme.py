"""The first block of the README equals the output of the demo, after a killed demo too; without Prefect."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLM = Path(sys.executable).with_name("clm")


@pytest.fixture(scope="module")
def demo_after_a_killed_one(home: Path) -> "subprocess.CompletedProcess[str]":
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))}
    # the names of all imports go to the error output
    environment = own | {"CLM_HOME": str(home / "demo"), "PYTHONPROFILEIMPORTTIME": "1"}
    with subprocess.Popen([CLM, "demo"], env=environment, stderr=subprocess.DEVNULL) as killed:
        # while it makes the databases
        _wait_for(home / "demo" / "postgres", "*.log")
        time.sleep(1)
        killed.send_signal(signal.SIGKILL)
    return subprocess.run(
        [CLM, "demo"], env=environment, capture_output=True, text=True, check=True, timeout=900
    )


def test_the_first_block_equals_the_output_of_the_demo(
    demo_after_a_killed_one: "subprocess.CompletedProcess[str]",
) -> None:
    block = re.search(r"```console\n\$ make demo\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    assert _normalised(block[1]) == _normalised(demo_after_a_killed_one.stdout)


def test_a_retrain_of_a_command_starts_no_prefect_server_and_imports_no_prefect(
    demo_after_a_killed_one: "subprocess.CompletedProcess[str]", home: Path
) -> None:
    imported = re.findall(r"^import time:.*\| +(\S+)$", demo_after_a_killed_one.stderr, re.MULTILINE)
    assert "mlflow" in imported
    assert [name for name in imported if name.partition(".")[0] == "prefect"] == []
    assert not (home / "demo" / "prefect").exists()


def _normalised(text: str) -> list[str]:
    """Lines without version labels, home folders, digits and widths, which differ between runs and
    processors."""
    text = re.sub("━+", "━", text)
    text = re.sub(r"v\d{8}_\d{6}", "VERSION", text)
    text = re.sub(r"\S*/reports/", "REPORTS/", text)
    text = re.sub(r"[-+]?\d+(\.\d+)?", "0", text)
    return [line for line in (re.sub(r"\s+", " ", line).strip() for line in text.splitlines()) if line]


def _wait_for(folder: Path, pattern: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not any(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"{folder / pattern} did not appear"
        time.sleep(0.1)
