"""Deployments that take longer than the start: completed afterwards, and made again when failed."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENT_SECONDS
from rich.console import Console

from clm_core.domain.errors import ServerUnavailable
from clm_core.settings import Settings
from deployments import stack


def deploying(seconds: float, code: int = 0) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-S", "-c", f"import sys, time; time.sleep({seconds}); sys.exit({code})"]
    )


@pytest.fixture
def schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stack._Schedules:
    monkeypatch.setattr(stack, "DEPLOYED_WITHIN_SECONDS", 0.01)
    monkeypatch.setattr(stack, "TRAINED_CHECKED_SECONDS", 0.0)
    settings = Settings(home=tmp_path, universe=[{"symbol": "BTCUSD"}])
    return stack._Schedules(settings, {}, Console(file=io.StringIO(), width=200))


def followed_until(schedules: stack._Schedules, text: str) -> None:
    printed = schedules._console.file
    assert isinstance(printed, io.StringIO)
    deadline = time.monotonic() + PATIENT_SECONDS
    while text not in printed.getvalue():
        assert time.monotonic() < deadline
        schedules.follow()


def test_deployments_that_take_long_are_completed_after_the_start(schedules: stack._Schedules) -> None:
    schedules.go_on(deploying(0.2))
    followed_until(schedules, "deployments: still being made")
    followed_until(schedules, "deployments: made")


def test_deployments_that_fail_after_the_start_are_made_again(
    schedules: stack._Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "_deploy", lambda *_: deploying(0.0))
    schedules.go_on(deploying(0.2, code=1))
    followed_until(schedules, "deployments: not brought in line")
    followed_until(schedules, "deployments: made")


def test_deployments_that_fail_at_once_end_the_start(
    schedules: stack._Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "DEPLOYED_WITHIN_SECONDS", PATIENT_SECONDS)
    with pytest.raises(ServerUnavailable, match="could not be created"):
        schedules.go_on(deploying(0.0, code=1))
