import os
import subprocess
import sys
from pathlib import Path


def test_a_process_that_never_closes_its_services_stops_its_server_at_its_end(home: Path) -> None:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CLM_")}
    left = home / "left"
    answer = subprocess.run(
        [sys.executable, "-c", "from clm_core.services import services; services().ledger.counts()"],
        env=mine | {"CLM_HOME": str(left)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not (left / "postgres" / "postmaster.pid").exists()
