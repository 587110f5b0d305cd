"""Former names of commands keep working for one release, and name the new command."""

import pytest
from click.testing import Result
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.services import Services

RENAMED = [("sweep", "jobs reap"), ("drain", "dispatch")]


@pytest.fixture(autouse=True)
def environment(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_an_old_command_names_the_new_one_on_stderr_and_does_the_same(old: str, new: str) -> None:
    def clm(name: str) -> Result:
        return CliRunner().invoke(app, [*name.split(), "--json"], catch_exceptions=False)

    clm(new)  # completes the work that other tests left pending
    for _ in range(3):
        after = clm(new)
        before = clm(old)
        if before.stdout == after.stdout:
            break  # else a message that other tests left fell due between the two
    assert before.stderr.splitlines()[0] == f"clm {old} is now clm {new}"
    assert before.stdout == after.stdout
    assert (before.exit_code, after.exit_code) == (0, 0)


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_help_lists_the_new_command_only(old: str, new: str) -> None:
    commands = CliRunner().invoke(app, ["--help"]).stdout.split()
    assert old not in commands
    assert new.split(maxsplit=1)[0] in commands
