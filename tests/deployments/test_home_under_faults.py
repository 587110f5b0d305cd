"""A home after kills, outages, a full disk, a wrong clock and a copy: no invariant is violated.

`scripts/invariants.py` judges, which asks PostgreSQL, MLflow's tables and the files without CLM's code. Every
test also shows that its fault happened.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from installations import CLM, Installation, wait_until
from markets import add_markets
from processes import ANYTHING_PASSES, REQUEST, RETRAIN
from webhooks import signed

from clm_core.domain.actors import SYSTEM
from clm_core.domain.operation_settings import PolicySource
from clm_core.domain.training_settings import TrainingPlace, TrainingSettings
from clm_core.platform.database import open_database
from clm_core.retraining.promoting import promote
from clm_core.services import open_services
from clm_core.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import invariants

pytestmark = pytest.mark.chaos

REPETITIONS = 1 + int(os.environ.get("CHAOS_REPETITIONS", "1")) // 5
MODEL = "lightgbm_btcusd_1h"
LEASE_SECONDS = 3
MESSAGES = 2
"""Webhooks before, and after, each fault of a server."""
STOPPED_SECONDS = 15.0
SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl8nUjcLkM"
SERIES = ("--model", "lightgbm", "--symbol", "BTCUSD", "--days", "120", "--param", "threshold=0")
SEARCH = (*SERIES, "--param", "rounds=2", "--workers", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "retrain": ("retrain", *SERIES, "--param", "rounds=2", "--again"),
    "promote": ("promote", "CANDIDATE"),
    "rollback": ("rollback", MODEL, "--to", "RETIRED", "--reason", "tested"),
    "shadow": ("shadow", MODEL),
    "evolve": ("evolve", *SEARCH, "--population", "4", "--generations", "1"),
    "tune": ("tune", *SEARCH, "--trials", "3"),
    "maintenance": ("maintenance",),
}


@dataclass
class Life:
    """Home with a line of versions, whose database server the test keeps running."""

    installation: Installation
    server: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each command without a fault."""

    @property
    def home(self) -> Path:
        return self.installation.home

    def versions(self) -> list[dict[str, Any]]:
        listed = self.installation.clm("models", "--model-id", MODEL, "--json")
        assert listed.returncode == 0, listed.stderr
        versions: list[dict[str, Any]] = json.loads(listed.stdout)
        return versions

    def command(self, name: str) -> list[str]:
        """Command with the label of a version in the place of CANDIDATE or RETIRED."""
        words = list(COMMANDS[name])
        for place, status in (("CANDIDATE", "candidate"), ("RETIRED", "retired")):
            if place in words:
                label = next(each["version"] for each in self.versions() if each["status"] == status)
                words[words.index(place)] = f"{MODEL}@{label}" if place == "CANDIDATE" else label
        return words

    def run(self, name: str) -> None:
        words = self.command(name)
        began = time.monotonic()
        done = self.installation.clm(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        self.seconds[name] = time.monotonic() - began

    def killed(self, words: list[str], after: float) -> bool:
        """True if the command still ran when it was killed, with all processes of its group."""
        with subprocess.Popen(
            [CLM, *words],
            env=self.installation.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return process.wait() == -signal.SIGKILL
        return False

    def recover(self) -> None:
        """One maintenance pass once the leases of killed processes have expired."""
        time.sleep(LEASE_SECONDS + 1)
        passed = self.installation.clm("maintenance")
        assert passed.returncode == 0, passed.stdout + passed.stderr

    def violations(self, acknowledged: tuple[dict[str, str], ...] = ()) -> list[str]:
        return [str(each) for each in invariants.violations(self.home, self.server, acknowledged)]


def installed(home: Path, policy: Path) -> Installation:
    """Installation whose settings file names the policy: a promotion takes none from a variable."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "clm.toml").write_text(f'[policy]\nfile = "{policy}"\n')
    return Installation(
        home,
        CLM_LEASE_SECONDS=str(LEASE_SECONDS),
        CLM_STACK__CONCURRENT_RUNS="1",
    )


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_text(ANYTHING_PASSES)
    return file


@pytest.fixture(scope="module")
def life(make_home: Callable[[str], Path], policy: Path) -> Iterator[Life]:
    home = make_home("under-faults")
    settings = Settings(
        home=home,
        database_url=None,
        policy=PolicySource(file=policy),
        training=TrainingSettings(where=TrainingPlace.INLINE),
    )
    for _ in range(3 + REPETITIONS):
        # the steps that the crash tests run in processes of their own
        exec(RETRAIN, {"settings": settings, "request": REQUEST})
    with open_services(settings) as services:
        for version in services.ledger.versions(model_id=MODEL)[:2]:
            promote(services, MODEL, version.version, SYSTEM, "tested")
    with open_database(home) as database:
        lived = Life(installed(home, policy), database.server)
        yield lived
        for process in lived.installation.processes():
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_random_moments_violates_no_invariant(name: str, life: Life) -> None:
    life.run(name)
    assert life.violations() == []
    moments = random.Random(name)
    for _ in range(REPETITIONS):
        words = life.command(name)
        longest = life.seconds[name]
        while not life.killed(words, moments.uniform(0.3, longest)):
            # the command was done before: that is no fault yet
            words = life.command(name)
            longest *= 0.8
        life.recover()
        assert life.violations() == []


@pytest.mark.parametrize("shift", ["+1 day", "-1 day"])
def test_a_maintenance_with_a_wrong_clock_leaves_a_live_retrain_alone(shift: str, life: Life) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed here")
    shifted = ["faketime", "-f", shift.replace(" day", "d")]
    shown = float(subprocess.check_output([*shifted, "date", "+%s"], text=True))
    assert abs(abs(shown - time.time()) - 86_400) < 3_600
    with subprocess.Popen(
        [CLM, *life.command("retrain")],
        env=life.installation.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as retrain:
        wait_until(lambda: any(each["status"] == "in_progress" for each in jobs(life)))
        passed = subprocess.run(
            [*shifted, CLM, "maintenance"],
            env=life.installation.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        output, _ = retrain.communicate()
        assert (retrain.returncode, passed.returncode) == (0, 0), output + passed.stdout + passed.stderr
    assert life.violations() == []


def jobs(life: Life) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(life.installation.clm("jobs", "--json").stdout)
    return listed


def test_a_full_disk_violates_no_invariant(home: Path, policy: Path) -> None:
    small = home / "small-disk"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "clm-tests", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        installation = installed(small / "home", policy)
        assert installation.clm(*COMMANDS["retrain"]).returncode == 0
        with open_database(small / "home") as database:
            lived = Life(installation, database.server)
            ballast = small / "ballast"
            with ballast.open("wb") as file:
                file.write(bytes(max(0, shutil.disk_usage(small).free - 200_000)))
            failed = installation.clm(*COMMANDS["retrain"])
            assert failed.returncode == 1
            assert "No space left on device" in failed.stdout + failed.stderr
            ballast.unlink()
            lived.recover()
            assert lived.violations() == []
            assert installation.clm(*COMMANDS["retrain"]).returncode == 0
            assert lived.violations() == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_copied_home_and_the_original_violate_no_invariant(home: Path, policy: Path) -> None:
    original = installed(home / "original", policy)
    assert original.clm(*COMMANDS["retrain"]).returncode == 0
    # nothing runs any more: the last command stopped the database
    subprocess.run(["cp", "-a", original.home, home / "copy"], check=True)
    copy = installed(home / "copy", policy)
    for installation, versions in ((copy, 2), (original, 1)):
        if installation is copy:
            retrained = installation.clm(*COMMANDS["retrain"])
            assert retrained.returncode == 0, retrained.stdout + retrained.stderr
        with open_database(installation.home) as database:
            lived = Life(installation, database.server)
            assert len(lived.versions()) == versions
            assert lived.violations() == []


@pytest.fixture(scope="module")
def up(make_home: Callable[[str], Path], policy: Path) -> Iterator[Life]:
    installation = installed(make_home("up-under-faults"), policy)
    add_markets(installation.home, 6 * MESSAGES * REPETITIONS)
    installation.environment["CLM_WEBHOOKS"] = json.dumps({"monitor": {"secrets": [SECRET]}})
    started = installation.clm("up", "--detach")
    assert started.returncode == 0, started.stderr
    with open_database(installation.home) as database:
        yield Life(installation, database.server)
    assert installation.clm("down").returncode == 0


def pid_of(up: Life, part: str) -> int:
    if part == "postgres":
        return int((up.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    [pid] = [each.pid for each in up.installation.state.parts if each.name == part]
    assert pid is not None
    return pid


def is_up(up: Life) -> bool:
    return up.installation.clm("status").returncode == 0


def have_ended(listed: list[dict[str, Any]]) -> bool:
    return bool(listed) and {job["status"] for job in listed} <= {"completed", "failed"}


_numbers = itertools.count()


def accepted_by(up: Life) -> list[dict[str, str]]:
    """Webhooks sent one after the other, each about a market of its own; the acknowledged ones."""
    accepted = []
    with httpx.Client(base_url=up.installation.state.api_url or "", timeout=120) as client:
        for number in itertools.islice(_numbers, MESSAGES):
            data = {"model_type": "lightgbm", "symbol": f"M{number:03}USD", "requested_by": "ada"}
            body = json.dumps({"type": "manual.training_requested", "data": data})
            headers = signed(SECRET, f"evt_{number}", body, datetime.now(UTC))
            with contextlib.suppress(httpx.TransportError):
                answer = client.post("/webhooks/monitor", content=body, headers=headers)
                if answer.status_code == 202:
                    accepted.append({"source": "monitor", "message": f"evt_{number}"})
    return accepted


@pytest.mark.parametrize("part", ["postgres", "mlflow", "prefect"])
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_server_killed_or_stopped_violates_no_invariant(part: str, fault: signal.Signals, up: Life) -> None:
    for _ in range(REPETITIONS):
        wait_until(lambda: is_up(up))
        pid = pid_of(up, part)
        before = accepted_by(up)
        os.kill(pid, fault)
        if fault is signal.SIGSTOP:
            time.sleep(STOPPED_SECONDS)
            assert "T (stopped)" in Path(f"/proc/{pid}/status").read_text()
            os.kill(pid, signal.SIGCONT)
        during = accepted_by(up)
        wait_until(lambda: is_up(up))
        if fault is signal.SIGKILL:
            assert pid_of(up, part) != pid
        wait_until(lambda: have_ended(jobs(up)))
        up.recover()
        assert len(before) == MESSAGES
        assert up.violations((*before, *during)) == []
