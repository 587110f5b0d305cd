"""Processor time of commands that look, and of the import of the settings.

python -m benchmarks.run looks

A small home with one version; its database runs meanwhile, so that the start is not counted.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.large_home import MODEL, train_and_promote
from benchmarks.table import PROCESSOR, SECONDS, Row, Timing, faster, timed, within
from clm_core.platform.database import open_database

LOOKS = (["models"], ["jobs"], ["show", MODEL], ["status"])
LOOK_LIMIT_S = 0.7
IMPORT_LIMIT_S = 0.15
PEERS = (["mlflow", "--version"], ["prefect", "version"])
REPEATS = 5
PROGRAMS = Path(sys.executable).parent


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="clm-looks-") as folder:
        home = Path(folder)
        # started by root, PostgreSQL runs as a user of its own, who needs access
        home.chmod(0o755)
        train_and_promote(home)
        with open_database(home, None):
            for look in LOOKS:
                taken = command([str(PROGRAMS / "clm"), *look], home)
                yield within(f"clm {' '.join(look)}", taken, LOOK_LIMIT_S, SECONDS, PROCESSOR)
            yield from _beside_peers(home)
    bare = command([sys.executable, "-c", ""], home)
    taken = command([sys.executable, "-c", "import clm_core.settings"], home).less(bare)
    yield within("import clm_core.settings", taken, IMPORT_LIMIT_S, SECONDS, PROCESSOR)


def _beside_peers(home: Path) -> Iterator[Row]:
    ours = command([str(PROGRAMS / "clm"), "models"], home)
    for program, *arguments in PEERS:
        taken = command([str(PROGRAMS / program), *arguments], home)
        peer = f"{' '.join([program, *arguments])} ({version(program)})"
        yield faster("clm models", ours, peer, taken, None, SECONDS, PROCESSOR)


def command(words: Sequence[str], home: Path) -> Timing:
    """Times of a command, its children included."""
    environment = os.environ | {"CLM_HOME": str(home), "PREFECT_HOME": str(home / "peers")}
    # `clm status` exits with 3 while the stack is down
    return timed(lambda: subprocess.run(words, env=environment, capture_output=True, check=False), REPEATS)
