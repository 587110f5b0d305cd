"""Restore drill: kill -9 of an installation under load, and its backup restored at another path.

    python scripts/restore_drill.py [--keep FOLDER]

While trainings, promotions and signed messages go on, `clm backup` writes a backup, and every process of the
installation is killed. The backup is copied to another folder and restored. Restored home and original then
have to satisfy every invariant of `scripts/invariants.py`, and the restored one serves the version that its
ledger has in production. Two minutes or so on two cores; exit status 1 if anything differs.
"""

import argparse
import base64
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from drill.home import (
    CLM,
    MODEL,
    PROMOTE_ALL,
    SCRIPTS,
    SMALL,
    Client,
    Installation,
    sent_message,
    versions_in_turn,
)
from drill.servers import DrillFailed

LEASE_SECONDS = 3
LOAD_SECONDS = 15.0
SETTINGS = """
universe = []
lease_seconds = {lease}
[policy]
file = "policy.toml"
[webhooks.monitor]
secrets = ["{secret}"]
"""
SERVED = """
import json
from datetime import UTC, datetime
from clm_core.services import open_services
from clm_core.serving import load
from clm_core.settings import load_settings
with open_services(load_settings()) as services:
    served = load("lightgbm_btcusd_1h", registry=services.registry, ledger=services.ledger)
    bars = services.market.bars("BTCUSD", "1h", days=120, closed_by=datetime.now(UTC))
    print(json.dumps({"digest": served.bundle_digest, "positions": len(served.positions(bars))}))
"""
"""What a trader does: loads the production version, verified, and asks for positions."""


def announce(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


@dataclass
class Load:
    """Programs that work with an installation until they are told to end."""

    installation: Installation
    client: Client
    secret: str
    versions: tuple[str, str]
    acknowledged: list[dict[str, str]] = field(default_factory=list)
    """Jobs and messages that were acknowledged."""
    changes: int = 0
    """Committed changes of production."""
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        loops = (self._send, self._change, self._train)
        threads = [threading.Thread(target=self._repeat, args=[loop], daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        return threads

    def _repeat(self, step: Callable[[int], None]) -> None:
        number = 0
        while not self.ended.wait(0.2):
            # the installation is killed under these calls
            with suppress(httpx.HTTPError, DrillFailed):
                step(number)
            number += 1

    def _send(self, number: int) -> None:
        data = {"model_type": "xgboost", "symbol": "EURUSD", "requested_by": "drill"}
        message = f"drill-{number}"
        if sent_message(self.installation.api, self.secret, message, data) == httpx.codes.ACCEPTED:
            self.acknowledged.append({"source": "monitor", "message": message})

    def _change(self, number: int) -> None:
        self.client.roll_back(MODEL, self.versions[number % 2])
        self.changes += 1

    def _train(self, number: int) -> None:
        days = 120 + number
        job = self.client.train("lightgbm", "EURUSD", days, **SMALL)
        self.acknowledged.append({"job": job})


def run(folder: Path) -> list[str]:
    """Problems found."""
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    original = _installed(folder / "original", secret)
    announce("clm up")
    original.clm("up", "--detach")
    try:
        client = Client(original, original.token("operator"))
        versions = versions_in_turn(original, client)
        announce(f"{MODEL}: {' and '.join(versions)} were promoted")
        load = Load(original, client, secret, versions)
        threads = load.start()
        announce("trainings, promotions and messages go on")
        time.sleep(LOAD_SECONDS)
        known = list(load.acknowledged)
        began = time.monotonic()
        backup = folder / "backups" / "clm.tar.gz"
        backup.parent.mkdir()
        original.clm("backup", str(backup))
        announce(f"clm backup under load: {backup.stat().st_size / 1e6:.1f} MB in {_since(began)}")
        time.sleep(2)
        killed = original.kill()
        announce(
            f"kill -9 of {killed} processes; {len(load.acknowledged)} acknowledged, {load.changes} changes"
        )
        load.ended.set()
        for thread in threads:
            thread.join(90)
    finally:
        original.kill()
    copy = _copied(backup, folder / "elsewhere")
    problems = _restored(folder, copy, known)
    return [*problems, *_recovered(original, load.acknowledged)]


def _restored(folder: Path, copy: Path, known: list[dict[str, str]]) -> list[str]:
    """Problems of the home restored from a copy of the backup."""
    restored = Installation(folder / "elsewhere" / "home")
    began = time.monotonic()
    restored.clm("restore", str(copy), "--home", str(restored.home))
    announce(f"clm restore in {_since(began)}")
    restored.pass_maintenance()
    problems = _violations(restored, known)
    announce(f"restored home: {len(problems)} violations, {len(known)} acknowledged before the backup")
    restored.clm("up", "--detach")
    try:
        health = httpx.get(f"{restored.api}/health", timeout=60).json()["status"]
        digest = restored.figure(
            f"SELECT bundle_digest FROM model_versions WHERE model_id = '{MODEL}' AND status = 'production'"
        )
        served = json.loads(restored.clm("exec", "--", sys.executable, "-c", SERVED).splitlines()[-1])
        announce(
            f"restored home: health {health}, {served['positions']} positions of {served['digest'][:12]}"
        )
    finally:
        restored.clm("down")
    if served["digest"] != digest:
        problems.append(f"the bundle {served['digest']} serves, in production is {digest}")
    return problems


def _recovered(original: Installation, acknowledged: list[dict[str, str]]) -> list[str]:
    """Problems of the original after the kill, once its maintenance has repaired what the kill left."""
    time.sleep(LEASE_SECONDS + 1)
    original.pass_maintenance()
    problems = _violations(original, acknowledged)
    announce(f"original after kill -9: {len(problems)} violations, {len(acknowledged)} acknowledged")
    return problems


def _violations(installation: Installation, acknowledged: list[dict[str, str]]) -> list[str]:
    file = installation.home.parent / "acknowledged.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in acknowledged))
    script = [str(SCRIPTS / "invariants.py"), str(installation.home), "--acknowledged", str(file)]
    done = subprocess.run(
        [CLM, "exec", "--", sys.executable, *script],
        env=installation.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 and "No violations." in done.stdout:
        return []
    return (done.stdout + done.stderr).strip().splitlines() or ["scripts/invariants.py has failed"]


def _installed(home: Path, secret: str) -> Installation:
    home.mkdir(mode=0o700, parents=True)
    (home / "policy.toml").write_text(PROMOTE_ALL)
    settings = home / "clm.toml"
    settings.write_text(SETTINGS.format(lease=LEASE_SECONDS, secret=secret))
    settings.chmod(0o600)
    return Installation(home)


def _copied(backup: Path, folder: Path) -> Path:
    """Copy of the backup in another folder; the backup itself is removed.

    Raises:
        DrillFailed: the copy differs.
    """
    folder.mkdir()
    before = hashlib.sha256(backup.read_bytes()).hexdigest()
    copy = Path(shutil.move(backup, folder / backup.name))
    if hashlib.sha256(copy.read_bytes()).hexdigest() != before:
        raise DrillFailed(f"{copy} differs from the backup")
    return copy


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all files in a new folder")
    options = parser.parse_args()
    # files of an embedded server belong to its own user, who has to reach them
    with tempfile.TemporaryDirectory(prefix="clm-drill-") as temporary:
        os.chmod(temporary, 0o755)
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        try:
            problems = run(folder)
        except DrillFailed as error:
            problems = [f"The drill ended early: {error}"]
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(f"Restore drill: {len(problems)} problems.")
    return 1 if problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
