"""`prefect worker start` with temporary files in a folder of the home.

    python -m clm_core.platform.prefect_worker start --name ...

Prefect keeps `runner_storage` in the folder for temporary files of the machine: the first user of the machine
to start a worker would lock out the workers of all others. TMPDIR stays as it is for the flow runs.
"""

import os
import sys
import tempfile
from pathlib import Path


def use_temporary_folder() -> None:
    """Keep temporary files of this process in Prefect's folder."""
    folder = Path(os.environ["PREFECT_HOME"]) / "temporary"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


def main() -> None:
    use_temporary_folder()
    from prefect.cli import app

    sys.argv[1:1] = ["worker"]
    app()


if __name__ == "__main__":
    main()
