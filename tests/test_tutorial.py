"""The tutorial from FAIL to PASS: every command is run in order, and prints what the page shows."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.platform.database import open_database

ROOT = Path(__file__).parents[1]
CLM = Path(sys.executable).with_name("clm")
PAGE = (ROOT / "docs" / "tutorial" / "from-fail-to-pass.md").read_text()
LABEL = re.compile(r"v\d{8}_\d{6}")
LEFT_OUT = "..."


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines shown below it."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown.splitlines()


class Reader:
    """Somebody who types the commands of the page in a folder.

    Commands run in the process of the test, which has imported the libraries, except for those that start
    programs.
    """

    def __init__(self) -> None:
        self._labels = list[str]()
        """Labels of the versions so far, in the order of the labels on the page."""

    def type(self, command: str) -> str:
        """Standard output of a command."""
        words = shlex.split(self._with_labels(command))
        variables = dict(word.split("=", 1) for word in words if re.match(r"CLM_\w+=", word))
        name, *arguments = words[len(variables) :]
        with pytest.MonkeyPatch.context() as variable:
            for each, value in variables.items():
                variable.setenv(each, value)
            if name == "python":
                printed = run([sys.executable, str(ROOT / arguments[0])])
            elif arguments[0] == "exec":
                printed = run([str(CLM), *arguments])
            else:
                done = CliRunner().invoke(app, arguments, catch_exceptions=False)
                assert done.exit_code == 0, done.output
                printed = done.stdout
        judged = re.findall(rf"^\w+ ({LABEL.pattern}): [A-Z]+: ", printed, re.MULTILINE)
        self._labels += [label for label in judged if label not in self._labels]
        return printed

    def _with_labels(self, command: str) -> str:
        on_page = list(dict.fromkeys(LABEL.findall(PAGE)))
        return LABEL.sub(lambda label: self._labels[on_page.index(label[0])], command)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def normalised(text: str) -> list[str]:
    """Lines without version labels, home folders, digits and widths, which differ between runs and
    processors."""
    text = LABEL.sub("VERSION", text)
    text = re.sub(r"\S*/reports/", "REPORTS/", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "HASH", text)
    text = re.sub(r"[-+]?\d[\d,]*(\.\d+)?", "0", text)
    return [line for line in (re.sub(r"\s+", " ", line).strip() for line in text.splitlines()) if line]


def missing(shown: list[str], printed: str) -> list[str]:
    """Shown lines that were not printed in their order."""
    lines = iter(normalised(printed))
    expected = normalised("\n".join(line for line in shown if line != LEFT_OUT))
    return [each for each in expected if not any(line == each for line in lines)]


def test_every_command_prints_what_the_page_shows_and_a_trader_loads_the_version(
    make_home: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home("tutorial")
    monkeypatch.setenv("CLM_HOME", str(home))
    monkeypatch.setenv("CLM_TRAINING__WHERE", "inline")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    # set by the commands, and put back at the end
    monkeypatch.setenv("PREFECT_HOME", str(home / "prefect"))
    monkeypatch.chdir(tmp_path)
    [trader] = re.findall(r"```python\n(# trader\.py\n.*?)```", PAGE, re.DOTALL)
    Path("trader.py").write_text(trader)
    reader = Reader()
    with open_database(home):
        differences = {command: missing(shown, reader.type(command)) for command, shown in commands()}
    assert {command: lines for command, lines in differences.items() if lines} == {}
