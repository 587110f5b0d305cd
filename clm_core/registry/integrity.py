"""Files beside the bundle of a version in MLflow, which `mlflow.pyfunc` would run: no byte may change.

The files are listed when a version is registered. The ledger holds the digest of the listing and MLflow the
listing itself as a tag, so that a changed file can be named.
"""

import hashlib
import json
import os
import stat
from pathlib import Path

from clm_core.domain.errors import BundleCorrupt

BUNDLE = Path("artifacts", "bundle")
"""Path of the bundle, which has its own manifest."""
WRITTEN_BY_READERS = Path("registered_model_meta")
"""File that MLflow writes when a version is fetched; never read."""


def listing(package: Path) -> str:
    """SHA-256 of every file beside the bundle, by path, as canonical JSON.

    Raises:
        BundleCorrupt: an entry is neither a file nor a folder.
    """
    files = {}
    for path in sorted(package.rglob("*")):
        place = path.relative_to(package)
        if place.is_relative_to(BUNDLE) or place == WRITTEN_BY_READERS:
            continue
        # lstat: a symlink could point at anything, and change after the check
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind):
            files[place.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not stat.S_ISDIR(kind):
            raise _corrupt(place.as_posix(), "is not a regular file")
    return json.dumps(files, sort_keys=True, separators=(",", ":"))


def has_plain_files_only(folder: Path) -> bool:
    """True for files and folders without links, of which no folder is empty."""
    with os.scandir(folder) as entries:
        plain = [
            entry.is_file(follow_symlinks=False)
            or (entry.is_dir(follow_symlinks=False) and has_plain_files_only(Path(entry.path)))
            for entry in entries
        ]
    return len(plain) > 0 and all(plain)


def digest(listed: str) -> str:
    return hashlib.sha256(listed.encode()).hexdigest()


def verify_package(package: Path, listed: str | None, expected: str | None) -> None:
    """Compare the files beside the bundle with the listing, and the listing with its digest in the ledger.

    Args:
        listed: listing in the MLflow tag, None without a tag.
        expected: digest in the ledger; None for a version of an earlier release, or without a ledger. With
            neither, nothing is compared.

    Raises:
        BundleCorrupt: a file differs; names the first one.
    """
    verify_listing(listed, expected)
    if listed is None:
        return
    registered = _files(listed)
    present = _files(listing(package))
    for name in sorted(registered.keys() | present.keys()):
        if name not in present:
            raise _corrupt(name, "is missing")
        if name not in registered:
            raise _corrupt(name, "does not belong to the version")
        if registered[name] != present[name]:
            raise _corrupt(name, "was changed")


def verify_listing(listed: str | None, expected: str | None) -> None:
    """Checks of `verify_package` that read no file."""
    if expected is not None and (listed is None or digest(listed) != expected):
        raise _corrupt("the tag clm.package", "was changed")


def _files(listed: str) -> dict[str, str]:
    try:
        files = json.loads(listed)
    except ValueError as error:
        raise _corrupt("the tag clm.package", "cannot be read") from error
    if not isinstance(files, dict):
        raise _corrupt("the tag clm.package", "cannot be read")
    return files


def _corrupt(name: str, problem: str) -> BundleCorrupt:
    return BundleCorrupt(
        f"the files beside the bundle in MLflow cannot be trusted: {name} {problem}. "
        "Restore the version from a backup, or train the model again"
    )
