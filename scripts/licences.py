"""Writes docs/reference/licences.md from the metadata of the installed packages: `make licences`.

Packages that no environment of ours installs, such as the parts of CUDA, stand in scripts/licences.toml.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "licences.md"
HEADER = """# Licences of the dependencies

Written by `make licences` from the packages' metadata, with the versions of `constraints.txt` and
`constraints.torch.txt`. CLM itself is under the Apache License 2.0. No package is part of this repository; an
installation fetches them.

| package | version | licence |
| --- | --- | --- |
"""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\$", re.M)


def main() -> None:
    by_hand = tomllib.loads((ROOT / "scripts" / "licences.toml").read_text())
    rows = list(_rows(by_hand))
    unknown = [name for name, _, licence in rows if not licence]
    if unknown:
        sys.exit(f"No licence is known for {', '.join(unknown)}: add each to scripts/licences.toml.")
    PAGE.write_text(
        HEADER + "".join(f"| {name} | {version} | {licence} |\n" for name, version, licence in rows)
    )


def pins() -> list[tuple[str, str]]:
    """Names and versions of all pinned packages."""
    files = ("constraints.txt", "constraints.torch.txt")
    return sorted(pin for file in files for pin in _PIN.findall((ROOT / file).read_text()))


def _rows(by_hand: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for name, version in pins():
        yield name, version, by_hand.get(name) or _licence(name)


def _licence(name: str) -> str:
    """Licence by the metadata of an installed package; empty if there is none."""
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return ""
    expression = installed.metadata.get("License-Expression")
    return expression or _by_classifier(installed) or _by_text(installed)


def _by_classifier(installed: Distribution) -> str:
    named = [
        classifier.rpartition(" :: ")[2]
        for classifier in installed.metadata.get_all("Classifier") or []
        if classifier.startswith("License :: ") and classifier != "License :: OSI Approved"
    ]
    return " OR ".join(dict.fromkeys(named))


def _by_text(installed: Distribution) -> str:
    """Short text of the field License; the field of some packages holds the whole licence."""
    text = (installed.metadata.get("License") or "").strip()
    return text if 0 < len(text) <= 60 and "\n" not in text else ""


if __name__ == "__main__":
    main()
