"""Lint of the dependencies: every requirement has one pin, and every pin the hashes of its files.

python scripts/pins.py [FOLDER]     lists what is not pinned; exit code 1 if there is anything
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

COMMON = ("constraints.txt",)
TORCH = ("constraints.torch.txt", "constraints.torch-cpu.txt")
"""Two builds of one package, of which an environment has one."""
REMEDY = "add it to pyproject.toml, constraints.in or the peers and run `make lock`"
_PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)( ; [^\\]+)? \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")

Pins = dict[str, str]


def problems(root: Path) -> list[str]:
    """Requirements without a pin, pins without hashes, and addresses of package indexes."""
    failures = [
        problem for name in (*COMMON, *TORCH, "constraints.uv.txt") for problem in _malformed(root, name)
    ]
    if failures:
        return failures
    common = _pins(root, *COMMON)
    builds = {name: common | _pins(root, name) for name in TORCH}
    for source, requirement in requirements(root):
        for file, pins in builds.items():
            if problem := _unpinned(requirement, pins):
                failures.append(f"{source}: {problem} (with {file}): {REMEDY}")
    if not (root / "constraints.uv.txt").read_text().endswith(_block(root, "uv")):
        failures.append("constraints.uv.txt: differs from constraints.txt: run `make lock`")
    return failures


def requirements(root: Path) -> Iterator[tuple[str, Requirement]]:
    """Requirements of the project, its examples and its benchmarks, with the file of each."""
    projects = [root / "pyproject.toml", *sorted(root.glob("examples/*/pyproject.toml"))]
    parsed = {file: tomllib.loads(file.read_text()) for file in projects}
    own = {canonicalize_name(project["project"]["name"]) for project in parsed.values()}
    lines = [
        (str(file.relative_to(root)), line) for file, project in parsed.items() for line in _lines(project)
    ]
    for name in ("constraints.in", "benchmarks/peers-requirements.txt"):
        text = (root / name).read_text()
        lines += [(name, line) for line in re.sub(r"#.*", "", text).splitlines() if line.strip()]
    for source, line in lines:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) not in own:
            yield source, requirement


def _lines(project: dict[str, Any]) -> Iterator[str]:
    yield from project["build-system"]["requires"]
    yield from project["project"]["dependencies"]
    for extra in project["project"].get("optional-dependencies", {}).values():
        yield from extra


def _malformed(root: Path, name: str) -> Iterator[str]:
    """Lines that are neither a comment nor a pin with hashes, and names that occur twice."""
    seen: set[str] = set()
    needs_hash = False
    for number, line in enumerate((root / name).read_text().splitlines(), start=1):
        pin = _PIN.fullmatch(line)
        is_hash = _HASH.fullmatch(line) is not None
        if line.startswith("#") or (is_hash and seen):
            needs_hash = needs_hash and not is_hash
            continue
        if pin is None or needs_hash:
            yield f"{name}:{number}: `{line}` is no pin with hashes: run `make lock`"
            return
        if pin[1] in seen:
            yield f"{name}:{number}: {pin[1]} is pinned twice: run `make lock`"
        seen.add(pin[1])
        needs_hash = True
    if needs_hash:
        yield f"{name}: the last pin has no hash: run `make lock`"


def _pins(root: Path, *names: str) -> Pins:
    lines = [line for name in names for line in (root / name).read_text().splitlines()]
    matches = [match for line in lines if (match := _PIN.fullmatch(line))]
    return {canonicalize_name(match[1]): match[2] for match in matches}


def _unpinned(requirement: Requirement, pins: Pins) -> str | None:
    version = pins.get(canonicalize_name(requirement.name))
    if version is None:
        return f"{requirement.name} has no pin"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement} does not allow the pinned {version}"
    return None


def _block(root: Path, name: str) -> str:
    """Pin of a package with its hashes."""
    text = (root / "constraints.txt").read_text()
    match = re.search(rf"^{name}==.*?(?=^[A-Za-z0-9]|\Z)", text, re.M | re.S)
    return match[0] if match else f"{name} is missing"


if __name__ == "__main__":
    listed = problems(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
    print("\n".join(listed) or "every requirement is pinned with hashes")
    sys.exit(1 if listed else 0)
