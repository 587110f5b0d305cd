"""Tuning as a flow, and as a command."""

import json
import os
import re
import subprocess
import time

import httpx
import pytest
from forked_commands import CLM, run_clm
from patience import PATIENT_SECONDS
from processes import assert_ended, children
from tunings import a_request
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.searches import HeldOutSharpe
from clm_core.domain.tuning import StopReason, TuneResult
from clm_core.models import catalog
from clm_core.platform.prefect_server import load_flow
from clm_core.search.study import open_study
from clm_core.search.tuning_report import comparison, warning
from clm_core.services import Services

runner = CliRunner()


@pytest.fixture(scope="module")
def result(services: Services, prefect_url: str) -> TuneResult:
    result: TuneResult = load_flow("flows.tune.tune")(a_request(trials=3, workers=1))
    return result


def test_the_flow_answers_with_the_best_parameters_and_a_page_that_needs_no_network(
    result: TuneResult,
) -> None:
    assert result.ended is StopReason.ALL_TRIALS
    assert result.best is not None
    assert result.report is not None
    page = result.report.read_text()
    assert "default-src 'none'" in page
    for place in ("history", "parallel", "slice"):
        assert f'<div id="{place}"' in page
    assert f"--params-from {result.study}" in page
    # three trials are too few
    assert "Parameter importance" not in page


@pytest.mark.parametrize(
    ("number", "sharpe", "unseen", "message"),
    [
        (2, -0.1, 1.0, "No parameters earned more"),
        (2, 1.0, 0.4, "the gain may be luck"),
        (2, 1.0, None, "the gain may be luck"),
        (2, 1.0, 0.6, None),
        (0, 1.0, 0.5, "No trial did better than the defaults"),
    ],
    ids=["it loses", "no better than the defaults", "not measured", "better", "the defaults"],
)
def test_the_warning_says_how_far_the_best_parameters_can_be_trusted(
    number: int, sharpe: float, unseen: float | None, message: str | None, result: TuneResult
) -> None:
    assert result.best is not None
    best = result.best.model_copy(update={"number": number, "sharpe_ratio": sharpe, "trades": 9})
    held_out = HeldOutSharpe(bars=10, best=unseen, defaults=0.5)
    caution = warning(result.model_copy(update={"best": best, "unseen": held_out}))
    assert (caution is None) == (message is None)
    assert (message or "") in (caution or "")


def test_the_comparison_shows_the_range_of_the_seeds_beside_their_mean(result: TuneResult) -> None:
    assert result.best is not None
    best, alone = (
        result.best.model_copy(update={"number": 2, "seed_sharpes": seeds})
        for seeds in ((1.5, -0.25, 0.5), (1.5,))
    )
    rows = comparison(result.model_copy(update={"best": best, "trials": (best,)}))
    assert ("from the lowest to the highest of 3 seeds", "not measured", "-0.25 to 1.50") in rows
    assert not [
        name for name, _, _ in comparison(result.model_copy(update={"best": alone})) if "seeds" in name
    ]


def test_the_run_page_shows_the_best_parameters_and_a_picture(result: TuneResult, prefect_url: str) -> None:
    key = result.model_id.replace("_", "-")
    artifact = httpx.get(f"{prefect_url}/artifacts/{key}-tuning/latest").json()
    assert result.study in artifact["data"]
    assert "data:image/png;base64," in artifact["data"]
    progress = httpx.get(f"{prefect_url}/artifacts/{key}-tuning-progress/latest").json()
    assert progress["data"] == 100.0


@pytest.fixture
def environment(services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment of commands that use the servers of the session."""
    own = {"CLM_HOME": str(services.settings.home), "PREFECT_API_URL": prefect_url}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return os.environ | own


def test_a_killed_command_is_continued_and_ends_with_exactly_the_requested_trials(
    services: Services, environment: dict[str, str]
) -> None:
    before = len(services.ledger.trials.records("BTCUSD", "1h"))
    options = ["--model", "lightgbm", "--symbol", "BTCUSD", "--days", "90", "--trials", "5", "--workers", "2"]
    fixed = ["--param", "rounds=10", "--param", "threshold=0", "--holdout", "0"]
    # the bars are too few for rows of their own to calibrate on
    fixed += ["--param", "calibrate=false"]
    killed = subprocess.Popen([CLM, "tune", *options, *fixed, "--study", "killed"], env=environment)
    wait_for_a_trial(services)
    started = two_children(killed.pid)
    killed.kill()
    killed.wait()
    assert_ended(started)
    resumed = run_clm(
        ["tune", "--resume", "killed", "--workers", "1", "--json"], environment, timeout=2 * PATIENT_SECONDS
    )
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert [tried["number"] for tried in result["trials"]] == list(range(5))
    assert result["ended"] == "all_trials"
    records = services.ledger.trials.records("BTCUSD", "1h")
    assert len(records) == before + 5
    assert all(len(record.daily) for record in records)


def two_children(process: int) -> list[int]:
    """The worker processes, which start one after the other."""
    deadline = time.monotonic() + PATIENT_SECONDS
    while len(processes := children(process)) < 2:
        assert time.monotonic() < deadline, "no workers were started"
        time.sleep(0.05)
    return processes


def wait_for_a_trial(services: Services) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if services.ledger.tunings.exists("killed"):
            with open_study(services.database, services.ledger.tunings.find("killed")) as study:
                if study.trials():
                    return
    pytest.fail("no trial has ended")


def test_a_retrain_takes_the_best_parameters_of_a_study_of_its_model_type(
    result: TuneResult, environment: dict[str, str]
) -> None:
    from clm_core.cli import tune
    from clm_core.domain.errors import InvalidTrainingParams
    from clm_core.domain.vocabulary import ModelType

    assert result.best is not None
    assert tune.best_params(result.study, ModelType.LIGHTGBM, None) == result.best.params
    with pytest.raises(
        InvalidTrainingParams, match=r"belongs to lightgbm, and its parameters do not apply to xgboost"
    ):
        tune.best_params(result.study, ModelType.XGBOOST, None)


def test_the_command_tunes_a_plugin_and_a_retrain_takes_the_best_parameters(
    environment: dict[str, str],
) -> None:
    from clm_core.cli import tune
    from clm_core.domain.vocabulary import ModelType

    options = [
        "--model",
        "other",
        "--plugin",
        "ridge",
        "--symbol",
        "BTCUSD",
        "--days",
        "90",
        "--workers",
        "1",
    ]
    answer = runner.invoke(app, ["tune", *options, "--trials", "2", "--param", "threshold=0"])
    assert answer.exit_code == 0, answer.output
    [study] = re.findall(r"^(ridge_btcusd_1h_\w+): 2 trials: [12] complete", answer.output, re.MULTILINE)
    assert "clm retrain --model other --plugin ridge --symbol BTCUSD" in answer.output
    params = tune.best_params(study, ModelType.OTHER, "ridge")
    assert catalog.own_params(params).keys() == {"threshold", "horizon", "alpha"}
    assert params.keys() == {"threshold", "horizon", "alpha", "sizing", "execution"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "abacus", "--symbol", "BTCUSD"], "'abacus' is not one of"),
        (["--model", "xgboost", "--symbol", "DOGEUSD"], "there is no series DOGEUSD"),
        (["--model", "xgboost", "--symbol", "BTCUSD", "--trials", "0"], "Invalid value for '--trials'"),
        (["--model", "xgboost", "--symbol", "BTCUSD", "--on", "mars"], "'local', 'processes' or 'ray'"),
        (["--model", "xgboost", "--symbol", "BTCUSD", "--timeout", "-1"], "greater than 0"),
        (
            ["--model", "xgboost", "--symbol", "BTCUSD", "--param", "sped=1"],
            "Valid parameters: label",
        ),
        (["--model", "ensemble", "--symbol", "BTCUSD"], "ensemble"),
        (["--model", "xgboost"], "give --model and --symbol, or --resume STUDY"),
        (["--resume", "nothing"], "There is no study nothing"),
        (["--resume", "nothing", "--days", "365", "--seeds", "2"], "as it began: leave out --days, --seeds"),
        (["--resume", "nothing", "--sampler", "gp"], "as it began: leave out --sampler"),
    ],
    ids=[
        "model",
        "market",
        "trials",
        "engine",
        "time limit",
        "parameter",
        "nothing to tune",
        "no market",
        "study",
        "another study",
        "another sampler",
    ],
)
def test_an_invalid_command_is_refused_before_any_server_starts(
    arguments: list[str], expected: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a port without a server
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    answer = runner.invoke(app, ["tune", *arguments])
    assert answer.exit_code != 0
    output = " ".join((answer.output + str(answer.exception)).replace("│", " ").split())
    assert expected in output
