"""`clm gate`, as it is typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_HOME", str(home / "commands"))


def test_the_levels_in_force_are_printed_with_their_hash() -> None:
    policy = json.loads(runner.invoke(app, ["gate", "policy", "xgboost_btcusd_1h", "--json"]).output)
    assert policy["name"] == "strict"
    assert policy["evidence"]["min_deflated_sharpe"] == 0.95
    assert len(policy["hash"]) == 64


@pytest.mark.parametrize(
    ("preset", "binding"),
    [("strict", "none"), ("classic", "max_drawdown, min_profit_factor, min_win_rate")],
)
def test_the_limits_that_bind_as_they_stand_are_printed(
    preset: str, binding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_POLICY__PRESET", preset)
    assert f"bind as they stand {binding}" in " ".join(runner.invoke(app, ["gate", "policy"]).output.split())


def test_thresholds_alone_come_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_POLICY__PRESET", "thresholds-only")
    assert "almost surely" in runner.invoke(app, ["gate", "policy"]).output.replace("\n", " ")


def test_a_simulation_prints_luck_and_edges_of_each_policy_and_draws_them(tmp_path: Path) -> None:
    picture = tmp_path / "gate.png"
    options = ["--edge", "0", "--edge", "3", "--streams", "10", "--retrains", "12", "--horizon", "1"]
    result = runner.invoke(app, ["gate", "simulate", *options, "--picture", str(picture)])
    assert result.exit_code == 0, result.output
    assert "0: years that promote luck" in result.output
    assert "3: promoted within 1 years" in result.output
    assert "thresholds-only" in result.output
    assert picture.exists()


@pytest.mark.parametrize("option", ["--retrain-correlation", "--kinship"])
def test_the_former_name_of_the_retrain_correlation_works_for_one_release(option: str) -> None:
    arguments = ["--edge", "0", "--streams", "10", "--retrains", "2", "--preset", "thresholds-only", "--json"]
    result = runner.invoke(app, ["gate", "simulate", *arguments, option, "0.4"])
    assert result.exit_code == 0, result.output
    [simulated] = json.loads(result.stdout)
    assert simulated["world"]["retrain_correlation"] == 0.4
    assert simulated["world"]["kinship"] == 0.4


def test_a_competition_without_candidates_is_refused() -> None:
    result = runner.invoke(app, ["gate", "compete", "xgboost_btcusd_1h"])
    assert "has no candidate and no shadow" in str(result.exception)


def test_a_shape_that_is_none_is_refused_with_those_there_are() -> None:
    result = runner.invoke(app, ["gate", "simulate", "--shape", "cauchy"])
    assert result.exit_code == 2
    assert "student-t(3)" in result.output
