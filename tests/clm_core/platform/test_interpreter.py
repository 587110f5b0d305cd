"""Command lines of processes: a file of the folder shadows no library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from clm_core.platform.interpreter import MODULE

ROOT = Path(__file__).parents[3]
PACKAGES = ("clm_core", "deployments", "flows", "tasks")


@pytest.mark.parametrize("start", [MODULE, (sys.executable, "-m")], ids=["of ours", "without -P"])
def test_a_file_named_like_a_library_is_not_imported(start: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('a file of the folder')")
    ended = subprocess.run(
        [*start, "json.tool", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ("a file of the folder" in ended.stderr) == (start != MODULE)


def test_every_process_is_started_without_the_folder_in_its_search_path() -> None:
    starts = []
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.List | ast.Tuple) and is_module_start(ast.unparse(node)):
                    starts.append((str(file.relative_to(ROOT)), ast.unparse(node)))
    assert starts == [("clm_core/platform/interpreter.py", "(sys.executable, '-P', '-m')")]


def is_module_start(text: str) -> bool:
    return "sys.executable" in text and "'-m'" in text
