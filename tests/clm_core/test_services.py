"""Services of a process."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_process_that_never_closes_its_services_stops_the_server_at_exit(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLM_")}
    own_home = home / "left"
    answer = subprocess.run(
        [sys.executable, "-c", "from clm_core.services import services; services().ledger.counts()"],
        env=environment | {"CLM_HOME": str(own_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not (own_home / "postgres" / "postmaster.pid").exists()
