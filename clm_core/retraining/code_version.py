"""Identity of the running code: release and commit for people, a digest of every source file for caching."""

import contextlib
import hashlib
import subprocess
from functools import cache
from pathlib import Path

from clm_core.domain.distributions import installed_version

PACKAGE = Path(__file__).parents[1]
"""Folder of the package `clm_core`."""
CHECKOUT = PACKAGE.parent
"""Root of the git checkout; of an installed package, the folder of the installed packages."""


def code_version() -> str:
    """The installed release, followed by the git commit where the code runs from a checkout."""
    release = installed_version("continuous-learning-manager")
    commit = _commit()
    return f"{release}+{commit}" if commit else release


@cache
def code_digest() -> str:
    """SHA-256 over every source file of `clm_core`, hexadecimal.

    A commit says nothing about uncommitted changes; the digest covers them.
    """
    digest = hashlib.sha256()
    for source in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(source.relative_to(PACKAGE)).encode() + source.read_bytes())
    return digest.hexdigest()


@cache
def _commit() -> str:
    if not (CHECKOUT / ".git").exists():
        return ""
    with contextlib.suppress(OSError):
        answer = subprocess.run(
            ["git", "-C", str(CHECKOUT), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.strip()
    return ""
