"""Resolves the constraints with the hashes of every file of a version: `make lock`.

python scripts/lock.py UV [--upgrade]

constraints.in             requirements beside pyproject.toml, and versions chosen by hand
constraints.txt            every package but torch, on every platform, Python 3.11 and 3.12
constraints.uv.txt         uv alone, which pip installs
constraints.torch.txt      torch as the package index offers it
constraints.torch-cpu.txt  torch built for CPUs: written by hand, as the index does not offer the files
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin")
PYTHONS = ("3.11", "3.12")
HEADER = "# Written by `make lock`: versions and the SHA-256 of their files. Install with --require-hashes.\n"
INPUTS = ("pyproject.toml", "constraints.in", "benchmarks/peers-requirements.txt")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==", re.M)
# the oldest macOS for which torch has a wheel
ENVIRONMENT = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}


def main(uv: str, upgrade: bool) -> None:
    pins: dict[str, str] = {} if upgrade else blocks((ROOT / "constraints.txt").read_text())
    versions = {name: block.split()[0] for name, block in pins.items()}
    resolved: dict[str, str] = {}
    for platform in PLATFORMS:
        for python in PYTHONS:
            pinned = blocks(resolve(uv, platform, python, versions))
            resolved |= pinned
            # the next platform takes the same versions
            versions |= {name: block.split()[0] for name, block in pinned.items() if name != "torch"}
    (ROOT / "constraints.torch.txt").write_text(HEADER + resolved.pop("torch"))
    (ROOT / "constraints.uv.txt").write_text(HEADER + resolved["uv"])
    (ROOT / "constraints.txt").write_text(HEADER + "".join(resolved[name] for name in sorted(resolved)))


def resolve(uv: str, platform: str, python: str, versions: dict[str, str]) -> str:
    # without folders of wheels: the hashes are those of the package index
    environment = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as known:
        known.write("\n".join(versions.values()))
        known.flush()
        options = ["--python-platform", platform, "--python-version", python, "--constraint", known.name]
        shape = ["--quiet", "--all-extras", "--no-header", "--no-annotate", "--generate-hashes"]
        command = [uv, "pip", "compile", *shape, *options, "--override", "overrides.txt", *INPUTS]
        run = subprocess.run(
            command, cwd=ROOT, env=environment | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
        )
    return run.stdout


def blocks(locked: str) -> dict[str, str]:
    """Pins with their hashes, by name of the package."""
    starts = [match.start() for match in _PIN.finditer(locked)]
    texts = [locked[start:end] for start, end in zip(starts, [*starts[1:], len(locked)], strict=True)]
    by_package = {text.partition("==")[0]: text for text in texts}
    return {name: text for name, text in by_package.items() if name != "continuous-learning-manager"}


if __name__ == "__main__":
    main(sys.argv[1], "--upgrade" in sys.argv[2:])
