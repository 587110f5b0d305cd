"""Kinds of model on the command line: the list, and refused names."""

import json

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.costs import Costs
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.models import catalog


def test_every_kind_is_listed_with_distribution_and_library() -> None:
    listed = {each["kind"]: each for each in json.loads(clm("models", "list-types", "--json"))}
    assert listed.keys() == {*ModelType, *RuleFamily, "ridge"} - {ModelType.OTHER}
    assert listed["ridge"] | {"library_version": None} == {
        "kind": "ridge",
        "model_type": "other",
        "plugin": "ridge",
        "distribution": "clm-ridge",
        "release": "0.1.0",
        "library": "scikit-learn",
        "library_version": None,
        "seeds": 1,
        "command": None,
        "problem": None,
        "usable": True,
        "sizing": Sizing().model_dump(mode="json"),
        "execution": NEW_VERSIONS.model_dump(mode="json"),
    }
    assert listed["xgboost"]["distribution"] == "continuous-learning-manager"
    assert (
        listed["momentum"].items()
        >= {
            "model_type": "other",
            "plugin": "momentum",
            "distribution": "continuous-learning-manager",
            "library": "numba",
            "usable": True,
        }.items()
    )
    lines = [line.split() for line in clm("models", "list-types").splitlines()]
    assert [line[1:4] for line in lines if line[:1] == ["momentum"]] == [["momentum", "built", "in"]]


def test_the_defaults_of_sizing_and_execution_are_listed_with_the_kinds_that_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_EXECUTION__STOP_LOSS", "0.05")
    shown = shown_defaults()
    usual, by_kind = shown["sizing.smoothing_half_life"]
    assert by_kind["ensemble"] == "0"
    assert by_kind["lightgbm"] == by_kind["xgboost"] != usual
    assert shown["sizing.target_volatility"] == ("0.1", {})
    assert shown["execution.stop_loss"] == ("0.05", {})
    listed = {each["kind"]: each for each in json.loads(clm("models", "list-types", "--json"))}
    for name in ("smoothing_half_life", "scale_half_life", "min_scale", "no_trade_band"):
        usual, by_kind = shown[f"sizing.{name}"]
        assert usual not in by_kind.values()
        for kind, each in listed.items():
            owner = "strategies" if kind in list(RuleFamily) else kind
            assert by_kind.get(owner, usual) == f"{each['sizing'][name]:g}"
    assert {each["execution"]["stop_loss"] for each in listed.values()} == {0.05}


def test_every_listed_default_can_be_named_in_a_request() -> None:
    named = {name: by_kind.get("lightgbm", usual) for name, (usual, by_kind) in shown_defaults().items()}
    defaults, explicit = (
        catalog.recipe(ModelType.LIGHTGBM, params, Costs()).describe() for params in ({}, named)
    )
    assert len(named) == len(Sizing.model_fields) + len(NEW_VERSIONS.model_dump())
    assert explicit == defaults


def test_a_missing_library_is_listed_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalog, "find_spec", lambda library: None if library == "stable_baselines3" else 1)
    listed = {each["kind"]: each for each in json.loads(clm("models", "list-types", "--json"))}
    assert listed["rl_v3"]["command"] == "pip install 'continuous-learning-manager[rl]'"
    assert not listed["rl_v3"]["usable"]
    assert "pip install 'continuous-learning-manager[rl]'" in clm("models", "list-types")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(("--model", "other"), "type OTHER needs the name of a plug-in", id="nameless"),
        pytest.param(("--model", "nhits", "--plugin", "ridge"), "leave ridge out", id="not a plug-in"),
        pytest.param(("--model", "other", "--plugin", "xgboost"), "is a built-in type", id="a name of ours"),
        pytest.param(("--model", "momentum", "--plugin", "ridge"), "leave ridge out", id="a rule strategy"),
    ],
)
@pytest.mark.parametrize("command", ["retrain", "trigger"])
def test_a_kind_with_a_wrong_name_is_refused_before_a_run_is_started(
    command: str, arguments: tuple[str, ...], problem: str
) -> None:
    answer = CliRunner().invoke(app, [command, *arguments, "--symbol", "BTCUSD"])
    assert answer.exit_code == 2
    assert problem in " ".join(answer.output.split())


def shown_defaults() -> dict[str, tuple[str, dict[str, str]]]:
    """Default of each parameter of sizing and execution, and the defaults of the kinds that differ."""
    shown = {}
    for line in clm("models", "list-types").splitlines():
        match line.split(maxsplit=2):
            case [name, usual, *others] if name.startswith(("sizing.", "execution.")):
                pairs = (each.strip().partition(" ") for each in "".join(others).split(",") if each.strip())
                shown[name] = usual, {kind: value for kind, _, value in pairs}
    return shown


def clm(*arguments: str) -> str:
    answer = CliRunner().invoke(app, list(arguments))
    assert answer.exit_code == 0, answer.output
    return answer.stdout
