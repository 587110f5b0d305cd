"""Commands of the REST API page, run against a server as printed."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clm_core.domain.vocabulary import Role

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine"),
]

GUIDE = Path(__file__).parents[3] / "docs" / "reference" / "rest-api.md"
COMMANDS = re.findall(r"^curl .*$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_succeeds(command: str, server: Any, make_token: Callable[..., str]) -> None:
    environment = os.environ | {"CLM": server.url, "TOKEN": make_token(Role.ADMIN)}
    answer = subprocess.run(
        ["sh", "-c", command.replace("curl", "curl --silent --fail-with-body --noproxy '*'", 1)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
