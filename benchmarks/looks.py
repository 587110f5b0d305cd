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
from benchmarks.table import SECONDS, TIMES_FASTER, Row, within
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
                taken = processor_seconds([str(PROGRAMS / "clm"), *look], home)
                yield within(f"clm {' '.join(look)}, processor time", taken, LOOK_LIMIT_S, SECONDS)
            yield from _beside_peers(home)
    bare = processor_seconds([sys.executable, "-c", ""], home)
    taken = processor_seconds([sys.executable, "-c", "import clm_core.settings"], home) - bare
    yield within("import clm_core.settings, processor time", taken, IMPORT_LIMIT_S, SECONDS)


def _beside_peers(home: Path) -> Iterator[Row]:
    ours = processor_seconds([str(PROGRAMS / "clm"), "models"], home)
    for program, *arguments in PEERS:
        taken = processor_seconds([str(PROGRAMS / program), *arguments], home)
        peer = f"{' '.join([program, *arguments])} ({version(program)})"
        yield Row("clm models, processor time", ours, peer, taken, taken / ours, None, TIMES_FASTER, SECONDS)


def processor_seconds(command: Sequence[str], home: Path) -> float:
    """Least processor time of a command in some runs, with that of its children."""
    environment = os.environ | {"CLM_HOME": str(home), "PREFECT_HOME": str(home / "peers")}
    times = list[float]()
    for _ in range(REPEATS):
        before = _of_children()
        # `clm status` exits with 3 while the stack is down
        subprocess.run(command, env=environment, capture_output=True, check=False)
        times.append(_of_children() - before)
    return min(times)


def _of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system
