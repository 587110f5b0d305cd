"""Kinds of model on the command line: the list, and refused names."""

import json

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.vocabulary import ModelType
from clm_core.models import catalog


def test_every_kind_is_listed_with_distribution_and_library() -> None:
    listed = {each["kind"]: each for each in json.loads(clm("models", "list-types", "--json"))}
    assert {ModelType(name) for name in listed if name != "ridge"} == set(ModelType) - {ModelType.OTHER}
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
    }
    assert listed["xgboost"]["distribution"] == "continuous-learning-manager"


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
    ],
)
@pytest.mark.parametrize("command", ["retrain", "trigger"])
def test_a_kind_with_a_wrong_name_is_refused_before_a_run_is_started(
    command: str, arguments: tuple[str, ...], problem: str
) -> None:
    answer = CliRunner().invoke(app, [command, *arguments, "--symbol", "BTCUSD"])
    assert answer.exit_code == 2
    assert problem in " ".join(answer.output.split())


def clm(*arguments: str) -> str:
    answer = CliRunner().invoke(app, list(arguments))
    assert answer.exit_code == 0, answer.output
    return answer.stdout
