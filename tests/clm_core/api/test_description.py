"""Responses match the OpenAPI description: schemathesis as every role, in all of its phases as an admin."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from patience import PATIENT_SECONDS

from clm_core.api.routes import runs
from clm_core.domain.vocabulary import Role
from clm_core.platform.prefect_runs import CreatedRun, Run, RunState
from clm_core.services import Services, open_services

MakeToken = Callable[..., str]
Serve = Callable[[Services], AbstractContextManager[Any]]
IS_CHAOS = "CHAOS_REPETITIONS" in os.environ
# `make deploy-check`: every phase as every role, with few requests of each path
IS_THOROUGH = IS_CHAOS or "DEPLOY_CHECK" in os.environ
EVERY_PHASE = ("examples", "coverage", "fuzzing", "stateful")
# a role decides which requests are refused, not how: few requests of each path suffice outside `make chaos`
PHASES = dict.fromkeys((None, *Role), EVERY_PHASE if IS_THOROUGH else ("examples", "fuzzing"))
PHASES[Role.ADMIN] = EVERY_PHASE


def examples(role: Role | None) -> int:
    """Number of generated requests of each path and method in a phase."""
    if IS_CHAOS:
        return 300
    return 3 if IS_THOROUGH or role is Role.ADMIN else 1


QUICKLY = [
    "--generation-deterministic",
    # their bodies take long to vary, and /clm/tune has most of the same fields
    "--exclude-path=/clm/evolve",
    "--exclude-path=/clm/evolve-strategies",
]
OPTIONS = [
    "--checks=all",
    # a valid request may still be refused, such as a symbol without bars
    "--exclude-checks=positive_data_acceptance",
    # endless: see `test_events`
    "--exclude-path=/clm/events",
    "--continue-on-failure",
    f"--request-timeout={PATIENT_SECONDS}",
    "--warnings=off",
    "--no-color",
    *([] if IS_CHAOS else QUICKLY),
]


FORK_FOR_EACH_LINE = """
import json, os, sys
import schemathesis.cli, schemathesis.cli.commands.run.executor, schemathesis.engine.core
import schemathesis.specs.openapi.schemas
for line in sys.stdin:
    if (child := os.fork()) == 0:
        sys.argv, folder, output = json.loads(line)
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        for number in (1, 2):
            os.dup2(file, number)
        os.chdir(folder)
        schemathesis.cli.schemathesis()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


Command = Callable[[list[str], Path], tuple[int, str]]


@pytest.fixture(scope="module")
def schemathesis() -> Iterator[Command]:
    """Function that runs the command in a folder, and returns exit code and output.

    The runs are forks of one process, since the imports of the command take a second.
    """
    with subprocess.Popen(
        [sys.executable, "-c", FORK_FOR_EACH_LINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests = process.stdin
        codes = process.stdout

        def run(words: list[str], folder: Path) -> tuple[int, str]:
            output = folder / "output.txt"
            print(json.dumps([["schemathesis", *words], str(folder), str(output)]), file=requests, flush=True)
            return int(codes.readline()), output.read_text()

        yield run
        requests.close()


@pytest.fixture(scope="module")
def own(wired: Services, make_home: Callable[[str], Path]) -> Iterator[Services]:
    """Services of a home of its own: an admin's requests revoke tokens."""
    home = make_home("described")
    with open_services(wired.settings.model_copy(update={"home": home})) as opened:
        api = opened.settings.api.model_copy(update={"body_seconds": 60.0})
        yield replace(opened, settings=opened.settings.model_copy(update={"api": api}))


@pytest.fixture(scope="module")
def described(serve: Serve, own: Services) -> Iterator[Any]:
    """Server whose requests for runs succeed without Prefect: see `test_runs` for a real one."""

    def create(*_: object, **__: object) -> CreatedRun:
        return CreatedRun(UUID(int=1), "wise-owl", {})

    def read(*_: object) -> Run:
        return Run(RunState.UNDER_WAY, "Scheduled")

    with pytest.MonkeyPatch.context() as patch, serve(own) as server:
        patch.setattr(runs, "request_run", create)
        patch.setattr(runs, "state_of", read)
        yield server


@pytest.fixture(scope="module")
def token(own: Services, issue_token: Callable[..., str]) -> Callable[[Role], str]:
    return lambda role: issue_token(own, role)


@pytest.mark.parametrize("role", [None, *Role], ids=str)
def test_every_response_matches_the_description(
    role: Role | None,
    described: Any,
    schemathesis: Command,
    token: Callable[[Role], str],
    tmp_path: Path,
) -> None:
    amount = [f"--phases={','.join(PHASES[role])}", f"--max-examples={examples(role)}"]
    credentials = [] if role is None else [f"--header=Authorization: Bearer {token(role)}"]
    code, printed = schemathesis(
        ["run", f"{described.url}/openapi.json", *amount, *OPTIONS, *credentials], tmp_path
    )
    assert code == 0, printed
    for phase in PHASES[role]:
        assert f"✅ {phase.capitalize()}" in printed, printed
