"""`clm trigger | triggers | dispatch` in a separate home."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from clm_core.cli.app import app

MODEL = ["--model", "lightgbm", "--symbol", "BTCUSD"]


@pytest.fixture(scope="module")
def own_home(make_home: Callable[[str], Path]) -> Path:
    return make_home("requests")


@pytest.fixture(autouse=True)
def environment(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLM_HOME", str(own_home))
    monkeypatch.delenv("CLM_DATABASE_URL", raising=False)
    # other tests of the session have a server
    with temporary_settings({PREFECT_API_URL: None}):
        yield


def clm(*arguments: str) -> str:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).output


def listed(*arguments: str) -> list[dict[str, Any]]:
    triggers: list[dict[str, Any]] = json.loads(clm("triggers", "--json", *arguments))
    return triggers


def test_requests_by_options_and_by_file_are_answered_and_listed(tmp_path: Path) -> None:
    assert clm("trigger", *MODEL).startswith("lightgbm_btcusd_1h: accepted as job ")
    event = tmp_path / "event.json"
    data = {"model_type": "lightgbm", "symbol": "BTCUSD", "sharpe_ratio": 0.7}
    event.write_text(json.dumps({"type": "performance.degraded", "data": data}))
    assert clm("trigger", str(event)) == (
        "lightgbm_btcusd_1h: rejected: Sharpe ratio 0.70 is not below 0.5.\n"
    )
    newest, oldest = listed()
    assert (newest["reply"], oldest["reply"]) == ("rejected", "accepted")
    assert (newest["request"]["source"], oldest["request"]["source"]) == ("inbox/terminal", "terminal")
    assert listed("--before", str(newest["number"])) == [oldest]
    assert listed("--model", "xgboost_btcusd_1h") == []
    assert listed("--reply", "accepted") == [oldest]
    assert "1 wait.\nReason: no Prefect server is known: start `clm up`" in clm("dispatch")


def test_an_invalid_file_is_refused_and_an_unknown_market_is_set_aside(
    tmp_path: Path,
) -> None:
    event = tmp_path / "event.json"
    event.write_text("{")
    result = CliRunner().invoke(app, ["trigger", str(event)])
    assert "the body is not valid JSON" in str(result.exception)
    data = {"model_type": "lightgbm", "symbol": "DOGEUSD", "detector": "psi"}
    event.write_text(json.dumps({"type": "model.drift_detected", "data": data}))
    assert "set aside" in clm("trigger", str(event))
    assert "there is no series DOGEUSD 1h" in clm("triggers", "--set-aside")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--model", "lightgbm"], [*MODEL, "--sharpe", "nan"], [*MODEL, "--days", "1000000"]],
    ids=["nothing", "no market", "NaN", "a span of 2,700 years"],
)
def test_an_incomplete_or_invalid_request_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["trigger", *arguments]).exit_code == 2
