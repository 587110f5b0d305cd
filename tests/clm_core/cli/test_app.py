"""Commands in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from forked_commands import run_clm
from patience import PATIENT_SECONDS
from typer.testing import CliRunner

from clm_core.backtest import chart_library
from clm_core.cli.app import app
from clm_core.platform.database import open_database


@pytest.fixture(scope="module")
def environment(make_home: Callable[[str], Path]) -> Iterator[dict[str, str]]:
    """Environment with a separate home, whose database runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))}
    home = make_home("commands")
    with open_database(home):
        yield own | {"CLM_HOME": str(home)}


def clm(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_clm(arguments, environment, timeout=2 * PATIENT_SECONDS)


@pytest.fixture(scope="module")
def retrained(environment: dict[str, str]) -> list[dict[str, dict[str, str]]]:
    """Quick retrain through the command, as input of the other commands."""
    answer = clm(
        environment | {"CLM_TRAINING__WHERE": "inline"},
        *("retrain", "--model", "lightgbm", "--symbol", "BTC/USD", "--timeframe", "1h", "--days", "150"),
        *("--param", "rounds=10", "--json"),
    )
    assert answer.returncode == 0, answer.stderr
    outcomes: list[dict[str, dict[str, str]]] = json.loads(answer.stdout)
    return outcomes


def test_help_makes_no_heavy_import() -> None:
    script = """
import sys
sys.argv = ["clm", "--help"]
from clm_core.cli.app import main
try:
    main()
except SystemExit:
    pass
heavy = {"pydantic", "pandas", "numpy", "mlflow", "prefect", "sqlalchemy", "xgboost", "lightgbm", "boto3"}
print("imported:", sorted(heavy & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "retrain" in answer.stdout
    assert "imported: []" in answer.stdout


def test_the_version_and_short_help_are_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == version("continuous-learning-manager")
    assert (
        CliRunner().invoke(app, ["jobs", "-h"]).stdout == CliRunner().invoke(app, ["jobs", "--help"]).stdout
    )


def test_a_retrain_answers_in_json_for_scripts(retrained: list[dict[str, dict[str, str]]]) -> None:
    [outcome] = retrained
    assert outcome["version"]["model_id"] == "lightgbm_btcusd_1h"
    assert outcome["verdict"]["decision"] in {"pass", "fail"}


def test_the_version_is_listed_shown_and_its_report_found(
    environment: dict[str, str], retrained: list[dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    label = retrained[0]["version"]["version"]
    assert label in clm(environment, "models").stdout
    for name in (label, "lightgbm_btcusd_1h", f"lightgbm_btcusd_1h@{label}"):
        assert label in clm(environment, "show", name).stdout
    path = Path(clm(environment, "report", label).stdout.strip())
    page = path.read_bytes()
    path.unlink()
    named = json.loads(clm(environment, "report", label, "--json").stdout)
    assert Path(named["page"]).read_bytes() == page
    handed_on = tmp_path / "page.html"
    assert clm(environment, "report", label, "--out", str(handed_on)).stdout.strip() == str(handed_on)
    assert chart_library.inside() in handed_on.read_text()


def test_the_job_is_listed_with_its_status(
    environment: dict[str, str], retrained: list[dict[str, dict[str, str]]]
) -> None:
    jobs = json.loads(clm(environment, "jobs", "--json").stdout)
    assert [job["status"] for job in jobs] == ["completed"]
    assert jobs[0]["id"] == retrained[0]["version"]["training_job_id"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("retrain", "--model", "xgboost", "--symbol", "BTCUSD", "--param", "max_dpeth=3"), "max_depth"),
        (("retrain", "--model", "xgboost", "--symbol", "BTCUSD", "--param", "max_depth"), "NAME=VALUE"),
        (("retrain", "--model", "nhits", "--symbol", "BTCUSD", "--param", "patch_len=8"), "input_size"),
        (("retrain", "--model", "xgboost", "--symbol", "DOGEUSD"), "there is no series DOGEUSD"),
        (("show", "nothing"), "clm models"),
        (("exec", "--", "no-such-program"), "no-such-program"),
    ],
    ids=[
        "unknown parameter",
        "not a pair",
        "another type's parameter",
        "unknown market",
        "unknown version",
        "unknown program",
    ],
)
def test_a_mistake_gets_a_message_and_no_traceback(
    environment: dict[str, str], arguments: tuple[str, ...], expected: str
) -> None:
    answer = clm(environment, *arguments)
    assert answer.returncode != 0
    assert expected in answer.stderr
    assert "Traceback" not in answer.stderr


def test_config_prints_the_effective_settings_and_masks_secrets(environment: dict[str, str]) -> None:
    secret = {"CLM_DATABASE_URL": "postgresql://clm:hunter2@db/postgres", "CLM_COSTS__FEE_BPS": "10"}
    answer = clm(environment | secret, "config")
    assert json.loads(answer.stdout)["costs"]["fee_bps"] == 10
    assert "hunter2" not in answer.stdout
    assert json.loads(answer.stdout)["settings_in_force"] == {
        "home": environment["CLM_HOME"],
        "file": None,
        "found_by": None,
        "variables": ["CLM_HOME", "CLM_DATABASE_URL", "CLM_COSTS__FEE_BPS"],
        "differ_from_running_stack": [],
    }


def test_init_writes_the_file_that_config_then_names(environment: dict[str, str], tmp_path: Path) -> None:
    own = environment | {"CLM_HOME": str(tmp_path / "fresh")}
    assert str(tmp_path / "fresh" / "clm.toml") in clm(own, "init").stdout
    answer = clm(own, "config")
    assert json.loads(answer.stdout)["settings_in_force"]["file"] == str(tmp_path / "fresh" / "clm.toml")
    again = clm(own, "init")
    assert (again.returncode, "was left as it is" in again.stderr) == (1, True)


def test_down_and_status_work_with_settings_that_cannot_be_loaded(
    environment: dict[str, str], tmp_path: Path
) -> None:
    own = environment | {"CLM_HOME": str(tmp_path)}
    (tmp_path / "clm.toml").write_text("lease_seconds = \n")
    assert "Nothing is up" in clm(own, "down").stdout
    answer = clm(own, "status", "--json")
    status = json.loads(answer.stdout)
    assert (answer.returncode, status["is_complete"]) == (3, False)
    assert f"{tmp_path}/clm.toml is not valid TOML" in status["command_problem"]


def test_a_former_name_of_a_setting_is_named_in_a_line_on_stderr(environment: dict[str, str]) -> None:
    answer = clm(environment | {"CLM_TRAINING__APART": "false"}, "config")
    assert json.loads(answer.stdout)["training"]["where"] == "inline"
    assert answer.stderr.splitlines() == [
        "Warning: CLM_TRAINING__APART is now CLM_TRAINING__WHERE = inline: "
        "write that, the former name is accepted in this release only.",
        f"Home: {environment['CLM_HOME']}. Settings file: none. Variables: CLM_HOME, CLM_TRAINING__APART.",
    ]
