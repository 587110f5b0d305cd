"""Locals and arguments are called by the noun of their value, and a line has a single assignment."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "prose.py"


def lint(file: Path, code: str) -> tuple[int, list[str]]:
    """Exit code and lines about names of `prose.py` for a file."""
    file.write_text(code)
    run = subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=False)
    return run.returncode, run.stderr.splitlines()


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("def search():\n    found = 1\n", 2),
        ("def search(asked):\n    pass\n", 1),
        ("def search(*, wanted: int = 1):\n    pass\n", 1),
        ("def search(*told):\n    pass\n", 1),
        ("class Search:\n    def run(self):\n        fewest: int = 1\n", 3),
        ("for most in (1, 2):\n    pass\n", 1),
        ("rows = [found for found in ()]\n", 1),
        ("ordered = sorted((), key=lambda found: found)\n", 1),
        ("if (found := 1):\n    pass\n", 1),
        ("least, most = divmod(5, 2)\n", 1),
        ("with open('rows') as found:\n    pass\n", 1),
        ("try:\n    pass\nexcept OSError as told:\n    pass\n", 3),
        ("match 1:\n    case wanted:\n        pass\n", 2),
    ],
    ids=[
        "variable",
        "argument",
        "keyword argument",
        "further arguments",
        "variable of a method",
        "loop variable",
        "variable of a comprehension",
        "argument of a lambda",
        "assignment in an expression",
        "one of two variables",
        "context manager",
        "caught error",
        "pattern",
    ],
)
def test_a_local_that_does_not_name_its_value_is_refused_with_file_and_line(
    code: str, line: int, tmp_path: Path
) -> None:
    file = tmp_path / "module.py"
    status, [message] = lint(file, code)
    assert status == 1
    assert message.startswith(f"{file}:{line}: the name `")


def test_fields_and_attributes_of_stored_records_keep_their_names(tmp_path: Path) -> None:
    code = """
class Result:
    found: int
    asked: int = 0
    told = 1

def read(result, keys):
    result.found = keys["most"]
    return Result(found=result.found, asked=keys.wanted), "fewest of all"
"""
    assert lint(tmp_path / "module.py", code) == (0, [])


def test_several_names_are_listed_in_the_order_of_the_lines(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    status, messages = lint(file, "def search(asked):\n    found = most = asked\n    return found, most\n")
    assert status == 1
    assert [message.partition(": the name ")[0] for message in messages] == [f"{file}:{n}" for n in (1, 2, 2)]


@pytest.mark.parametrize(
    "code",
    ["first, last = 1, 2\n", "row.first, row.last = (\n    1,\n    2,\n)\n", "rows[0], rows[1] = 1, 2\n"],
    ids=["variables", "attributes", "items"],
)
def test_two_assignments_in_a_line_are_refused(code: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    assert lint(file, code) == (1, [f"{file}:1: several assignments in a line: take a line for each"])


@pytest.mark.parametrize(
    "code",
    [
        "first, last = last, first\n",
        "rows[0], rows[1] = rows[1], rows[0]\n",
        "before, after = after, after + before\n",
        "first, last = ends()\n",
        "for first, last in pairs:\n    pass\n",
        "ends = 1, 2\n",
    ],
    ids=["exchange", "exchange of items", "step of a recursion", "call", "loop", "tuple"],
)
def test_an_exchange_and_several_results_of_a_call_are_accepted(code: str, tmp_path: Path) -> None:
    assert lint(tmp_path / "module.py", code) == (0, [])
