"""What MLflow holds of a version beside its bundle: `mlflow.pyfunc` would run it, so no byte may change.

The listing of these files is taken when a version is registered. Its digest is kept in the ledger, the
listing itself as a tag in MLflow, so that it can be said which file is not as it was.
"""

import hashlib
import json
import stat
from pathlib import Path

from clm_core.domain.errors import BundleCorrupt

BUNDLE = Path("artifacts", "bundle")
"""Where the bundle lies; it has a manifest of its own."""
WRITTEN_BY_READERS = Path("registered_model_meta")
"""MLflow writes it when a version is fetched; nothing reads it."""


def listing(package: Path) -> str:
    """SHA-256 of every file beside the bundle, by path, as canonical JSON.

    Raises:
        BundleCorrupt: there is something that is neither a file nor a folder.
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


def digest(listed: str) -> str:
    return hashlib.sha256(listed.encode()).hexdigest()


def verify_package(package: Path, listed: str | None, expected: str | None) -> None:
    """Compare what stands beside the bundle with the listing, and that with its digest in the ledger.

    Args:
        listed: the tag in MLflow; None: it has none.
        expected: the digest in the ledger; None: an earlier release registered the version, or there is no
            ledger to ask. Without both, nothing is known and nothing compared.

    Raises:
        BundleCorrupt: names the first file that is not as it was.
    """
    verify_listing(listed, expected)
    if listed is None:
        return
    was, found = _files(listed), _files(listing(package))
    for name in sorted(was.keys() | found.keys()):
        if name not in found:
            raise _corrupt(name, "is missing")
        if name not in was:
            raise _corrupt(name, "does not belong to it")
        if was[name] != found[name]:
            raise _corrupt(name, "was changed")


def verify_listing(listed: str | None, expected: str | None) -> None:
    """The part of `verify_package` that reads no file."""
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


def _corrupt(name: str, what: str) -> BundleCorrupt:
    return BundleCorrupt(
        f"what MLflow holds beside the bundle cannot be trusted: {name} {what}. "
        "Restore it from a backup, or train the model again"
    )
