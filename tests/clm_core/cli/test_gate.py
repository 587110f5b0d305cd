"""`clm gate`, as it is typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.services import Services

runner = CliRunner()


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_HOME", str(home / "commands"))


def test_the_levels_in_force_are_printed_with_their_hash() -> None:
    policy = json.loads(runner.invoke(app, ["gate", "policy", "xgboost_btcusd_1h", "--json"]).output)
    assert policy["name"] == "strict"
    assert policy["evidence"]["min_deflated_sharpe"] == 0.95
    assert len(policy["hash"]) == 64
    assert (policy["lifecycle"]["promotion"], policy["lifecycle"]["confirm_days"]) == ("auto", 60.0)


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
    options += ["--timeframe", "1d", "--payoff", "trend-like", "--volatility", "0.2", "--costs", "3"]
    result = runner.invoke(app, ["gate", "simulate", *options, "--picture", str(picture)])
    assert result.exit_code == 0, result.output
    assert "0: years that promote luck" in result.output
    assert "3: promoted within 1 years" in result.output
    assert "thresholds-only" in result.output
    assert picture.exists()


@pytest.mark.parametrize("option", ["--retrain-correlation", "--kinship"])
def test_the_former_name_of_the_retrain_correlation_works_for_one_release(option: str) -> None:
    arguments = ["--edge", "0", "--streams", "10", "--retrains", "2", "--preset", "thresholds-only", "--json"]
    arguments += ["--timeframe", "4h", "--days", "365", "--trades", "203", "--shape", "GARCH(1,1)"]
    result = runner.invoke(app, ["gate", "simulate", *arguments, option, "0.4"])
    assert result.exit_code == 0, result.output
    [simulated] = json.loads(result.stdout)
    assert simulated["world"]["retrain_correlation"] == 0.4
    assert simulated["world"]["kinship"] == 0.4
    assert simulated["world"]["trades_per_year"] == 203.0
    assert simulated["world"]["shape"] == "GARCH(1,1)"
    assert simulated["luck"]["promoted"]["value"] <= 1.0


def test_a_competition_without_candidates_is_refused(
    services: Services, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    result = runner.invoke(app, ["gate", "compete", model_id])
    assert "has no candidate and no shadow" in str(result.exception)


def test_a_shape_that_is_none_is_refused_with_those_there_are() -> None:
    result = runner.invoke(app, ["gate", "simulate", "--shape", "cauchy"])
    assert result.exit_code == 2
    assert "student-t(3)" in result.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--payoff", "martingale"], "is no payoff"),
        (["--payoff", "2", "--win-rate", "0.4"], "give --payoff or --win-rate"),
        (["--timeframe", "1y"], "is none of"),
        (["--trades", "203", "--held-days", "3"], "fewer days held"),
        (["--retrain-correlation", "0"], "or no costs"),
    ],
    ids=["payoff", "payoff and win rate", "bars", "trades that overlap", "unrelated retrains with costs"],
)
def test_a_market_that_cannot_be_simulated_is_refused_with_what_to_state(
    options: list[str], sentence: str
) -> None:
    result = runner.invoke(app, ["gate", "simulate", *options])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_the_power_of_a_window_is_printed_and_grows_with_the_days() -> None:
    result = runner.invoke(app, ["gate", "power", "--edge", "2", "--streams", "10", "--timeframe", "1d"])
    assert result.exit_code == 0, result.output
    assert "a version must show a Sharpe ratio of" in result.output
    assert "minimum track record" in result.output
    chances = []
    for days in ("365", "1825", "3650"):
        result = runner.invoke(
            app, ["gate", "power", "--days", days, "--edge", "2", "--streams", "0", "--json"]
        )
        [edge] = json.loads(result.stdout)["edges"]
        assert edge["by_gate"] is None
        chances.append(edge["by_evidence"])
    assert chances == sorted(chances)


def test_the_power_of_a_market_counts_its_trials_and_stated_trials_lower_it() -> None:
    def trials(*options: str) -> float:
        result = runner.invoke(app, ["gate", "power", "--edge", "2", "--streams", "0", "--json", *options])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["trials"]

    assert trials() == 10.0
    assert trials("--symbol", "btc/usd") == 10.0
    assert trials("--trials", "3") == 10.0
    assert trials("--trials", "80") == 80.0
