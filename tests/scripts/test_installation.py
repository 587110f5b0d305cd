"""Installations take no file whose hash is not listed."""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")


@pytest.mark.parametrize("target", [".dev", ".venv-bench/.ready", ".venv-supply/.ready"])
def test_every_installation_of_the_makefile_requires_hashes(target: str, tmp_path: Path) -> None:
    goal = target if target.startswith(".venv") else f"{tmp_path}/{target}"
    # without marks of an earlier installation
    command = ["make", "--dry-run", "--always-make", f"VENV={tmp_path}", goal]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = [line for line in shown.replace("\\\n", " ").splitlines() if "pip install" in line]
    assert installs
    for line in installs:
        is_own = "--no-deps" in line and "--require-build-hashes" in line
        assert is_own or "--require-hashes" in line, line


@pytest.mark.parametrize("offered", ["0", "1"], ids=["without-cpu-build", "with-cpu-build"])
def test_each_build_of_torch_is_installed_by_its_own_hashes(offered: str, tmp_path: Path) -> None:
    if offered == "1":
        (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    environment = os.environ | {"UV_FIND_LINKS": str(tmp_path)}
    command = ["make", "--dry-run", "--always-make", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/.base"]
    shown = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    expected = "constraints.torch-cpu.txt" if offered == "1" else "constraints.torch.txt"
    assert set(re.findall(r"constraints\.torch\S*", shown)) == {expected}


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        pytest.param("honest==1.0 \\\n    --hash=sha256:{digest}\n", None, id="same-file"),
        pytest.param(f"honest==1.0 \\\n    --hash=sha256:{'0' * 64}\n", "Hash mismatch", id="other-file"),
        pytest.param("honest==1.0\n", "no trusted hash|must have a hash", id="no-hash"),
    ],
)
def test_a_file_is_installed_if_its_hash_is_listed(listed: str, error: str | None, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "constraints.txt").write_text(listed.format(digest=digest))
    (tmp_path / "requirements.txt").write_text("honest==1.0\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    options = ["--no-index", "--find-links", tmp_path, "--target", tmp_path / "installed", "--no-cache"]
    names = ["--constraint", tmp_path / "constraints.txt", "--requirement", tmp_path / "requirements.txt"]
    run = subprocess.run(
        [UV, "pip", "install", "--python", sys.executable, "--require-hashes", *options, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "installed" / "honest.py").exists() is (error is None), run.stderr
    if error is not None:
        assert re.search(error, run.stderr), run.stderr


def write_wheel(folder: Path) -> Path:
    wheel = folder / "honest-1.0-py3-none-any.whl"
    info = "honest-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("honest.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: honest\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel
