"""Identity of the running code: release, commit and digest of the source files."""

import hashlib
import subprocess
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest

import clm_core
from clm_core.retraining import code_version as identity

ROOT = Path(__file__).parents[3]


def test_code_version_names_the_release_and_the_commit_of_the_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this copy of the code is no git checkout")
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert identity.code_version() == f"{installed_version('continuous-learning-manager')}+{head}"


def test_code_digest_covers_every_source_file_of_the_package() -> None:
    package = Path(clm_core.__path__[0])
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(str(source.relative_to(package)).encode() + source.read_bytes())
    assert package / "services.py" in package.rglob("*.py")
    assert identity.code_digest() == digest.hexdigest()
