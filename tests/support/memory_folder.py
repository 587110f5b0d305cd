"""Folder in memory for the temporary files of a test run, where Linux offers one with room.

Tests make databases, homes and stores of artifacts by the dozen, and delete them: a twentieth of the
processor time of the suite where they are on a disk. A folder named by TMPDIR is used instead, as is the
usual folder where the memory file system is missing, small, or executes no files.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
PREFIX = "clm-tests-of-"
MIN_FREE = 10 * 2**30
"""Free bytes required: half of the suite takes 2.5 GiB, with three test processes."""


def use_memory() -> Path | None:
    """Make a folder in memory the folder for temporary files of this process and its children.

    Folders of killed runs are deleted. None where the usual folder stays in use.
    """
    if "TMPDIR" in os.environ or not _is_usable(MEMORY):
        return None
    for left in MEMORY.glob(f"{PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(PREFIX).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY))
    # as /tmp: tests start processes as other users
    folder.chmod(0o1777)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def _is_usable(memory: Path) -> bool:
    with contextlib.suppress(OSError):
        facts = os.statvfs(memory)
        may_execute = not facts.f_flag & os.ST_NOEXEC
        return may_execute and facts.f_bavail * facts.f_frsize >= MIN_FREE and os.access(memory, os.W_OK)
    return False
