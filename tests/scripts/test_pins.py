"""Every requirement is pinned with hashes, and the page of licences lists every pin."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "pyproject.toml",
    "constraints.in",
    "constraints.txt",
    "constraints.uv.txt",
    "constraints.torch.txt",
    "constraints.torch-cpu.txt",
    "benchmarks/peers-requirements.txt",
    "examples/clm-ridge/pyproject.toml",
)
Change = Callable[[str], str]


def lint(folder: Path) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "pins.py", folder], capture_output=True, text=True, check=False
    )
    assert run.stderr == ""
    return run.returncode, run.stdout


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def with_requirement(line: str) -> Change:
    return lambda text: text.replace("dependencies = [\n", f"dependencies = [\n    {line},\n", 1)


def without_pin(name: str) -> Change:
    return lambda text: re.sub(rf"^{name}==.*\n(    --hash=.*\n)+", "", text, flags=re.M)


def without_hashes(name: str) -> Change:
    return lambda text: re.sub(rf"^({name}==\S+) \\\n(    --hash=.*\n)+", r"\1\n", text, flags=re.M)


def test_every_requirement_of_this_repository_is_pinned_with_hashes() -> None:
    assert lint(ROOT) == (0, "every requirement is pinned with hashes\n")


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        pytest.param(
            "pyproject.toml",
            with_requirement('"left-pad>=1"'),
            "pyproject.toml: left-pad has no pin",
            id="dependency",
        ),
        pytest.param(
            "pyproject.toml",
            with_requirement('"numpy>=99"'),
            "pyproject.toml: numpy>=99 does not allow the pinned",
            id="another-version",
        ),
        pytest.param(
            "pyproject.toml",
            lambda text: text.replace('ray = ["ray>=2.50"]', 'ray = ["ray>=2.50", "left-pad"]'),
            "pyproject.toml: left-pad has no pin",
            id="extra",
        ),
        pytest.param(
            "pyproject.toml",
            lambda text: text.replace('["hatchling"]', '["hatchling", "left-pad"]'),
            "pyproject.toml: left-pad has no pin",
            id="build-backend",
        ),
        pytest.param(
            "examples/clm-ridge/pyproject.toml",
            lambda text: text.replace('"scikit-learn>=1.7"', '"left-pad"'),
            "examples/clm-ridge/pyproject.toml: left-pad has no pin",
            id="example",
        ),
        pytest.param(
            "benchmarks/peers-requirements.txt",
            lambda text: text + "left-pad==1.0\n",
            "benchmarks/peers-requirements.txt: left-pad has no pin",
            id="peer",
        ),
        pytest.param("constraints.txt", without_pin("httpx"), "httpx has no pin", id="pin-removed"),
        pytest.param("constraints.txt", without_hashes("httpx"), "is no pin with hashes", id="no-hash"),
        pytest.param(
            "constraints.txt", lambda text: text + "left-pad>=1\n", "is no pin with hashes", id="range"
        ),
        pytest.param(
            "constraints.txt",
            lambda text: text + "--extra-index-url https://packages.example.org/\n",
            "is no pin with hashes",
            id="address-of-an-index",
        ),
        pytest.param(
            "constraints.torch-cpu.txt",
            lambda text: text.replace("2.13.0", "2.12.0"),
            "torch==2.13.0 does not allow the pinned 2.12.0+cpu",
            id="other-build-of-torch",
        ),
        pytest.param(
            "constraints.uv.txt",
            lambda text: text.replace("sha256:1", "sha256:2"),
            "constraints.uv.txt: differs from constraints.txt",
            id="uv",
        ),
    ],
)
def test_an_unpinned_requirement_is_refused_by_name(
    file: str, change: Change, problem: str, copied: Path
) -> None:
    text = (copied / file).read_text()
    assert change(text) != text
    (copied / file).write_text(change(text))
    status, listed = lint(copied)
    assert status == 1
    assert problem in listed


def test_the_page_of_licences_lists_every_pin_with_a_licence() -> None:
    pin = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\$", re.M)
    pinned = [
        pair
        for name in ("constraints.txt", "constraints.torch.txt")
        for pair in pin.findall((ROOT / name).read_text())
    ]
    _, _, rows = (ROOT / "docs" / "reference" / "licences.md").read_text().partition("| --- |\n")
    listed = re.findall(r"^\| ([A-Za-z0-9._-]+) \| (\S+) \| \S.* \|$", rows, re.M)
    assert listed == sorted(pinned), "run `make licences`"
