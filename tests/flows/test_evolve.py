"""Evolution as a flow, and as a command."""

import json
import re
import uuid
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from clm_core.cli import tune
from clm_core.cli.app import app
from clm_core.domain.errors import NotFound
from clm_core.domain.evolution import EvolveRequest, EvolveResult
from clm_core.domain.searches import HeldOutSharpe
from clm_core.domain.vocabulary import ModelType
from clm_core.platform.prefect_server import load_flow
from clm_core.search.evolution_report import headline, warning
from clm_core.services import Services

runner = CliRunner()
FIXED = {"rounds": 10, "threshold": 0.0, "learning_rate": 0.1, "calibrate": False}


@pytest.fixture(scope="module")
def result(services: Services, prefect_url: str) -> EvolveResult:
    request = EvolveRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="BTCUSD",
        dataset_span_days=120,
        population=4,
        generations=2,
        training_params=FIXED,
        workers=1,
    )
    result: EvolveResult = load_flow("flows.evolve.evolve")(request)
    return result


@pytest.fixture
def environment(services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment of commands that use the servers of the session."""
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)


def test_the_run_page_shows_the_generations_the_best_candidate_and_a_picture(
    result: EvolveResult, prefect_url: str
) -> None:
    key = result.model_id.replace("_", "-")
    page = httpx.get(f"{prefect_url}/artifacts/{key}-evolution/latest").json()["data"]
    assert result.best is not None
    assert f"--params-from {result.best.id}" in page
    assert re.findall(r"^\| (\d) \|", page, re.MULTILINE) == ["0", "1", "2"]
    assert "data:image/png;base64," in page
    assert "Best Sharpe ratio of generation 0: " in page
    assert "clm up" in page, "there is no home page to link to"
    progress = httpx.get(f"{prefect_url}/artifacts/{key}-evolution-progress/latest").json()
    assert progress["data"] == 100.0


def test_an_evolution_is_one_run_and_retrains_no_model(
    result: EvolveResult, services: Services, prefect_url: str
) -> None:
    runs_of_the_model = {"flow_runs": {"name": {"any_": [f"evolve {result.model_id}"]}}}
    [run] = httpx.post(f"{prefect_url}/flow_runs/filter", json=runs_of_the_model).json()
    children = {"flow_runs": {"parent_flow_run_id": {"any_": [run["id"]]}}}
    assert httpx.post(f"{prefect_url}/flow_runs/filter", json=children).json() == []
    tasks = httpx.post(
        f"{prefect_url}/task_runs/filter", json={"task_runs": {"flow_run_id": {"any_": [run["id"]]}}}
    )
    assert len(tasks.json()) == 4
    assert {"search", "evolve", "lightgbm", result.model_id} <= set(run["tags"])
    assert run["state"]["message"] == headline(result)


def test_the_report_has_every_candidate_and_needs_no_network(
    result: EvolveResult, services: Services
) -> None:
    assert result.report == services.reports / result.model_id / f"{result.name}.html"
    page = result.report.read_text()
    assert len(result.ranked) == result.candidates - result.unmeasured - result.degenerate
    assert all(str(each.id) in page for each in result.ranked)
    ratios = [each.fitness_score for each in result.ranked]
    assert ratios == sorted(ratios, key=lambda each: -(each or 0.0))
    assert result.best is None or result.ranked[0].fitness_score == result.best.fitness_score
    assert 'id="generations"' in page
    assert not re.search(r'(src|href)="https?:', page)


@pytest.mark.parametrize(
    ("fitness", "unseen", "message"),
    [
        (-0.1, 1.0, "No parameters earned more"),
        (1.0, 0.4, "the gain may be luck"),
        (1.0, None, "the gain may be luck"),
        (1.0, 0.6, None),
    ],
    ids=["it loses", "no better than the defaults", "not measured", "better"],
)
def test_the_warning_says_how_far_the_best_candidate_can_be_trusted(
    fitness: float, unseen: float | None, message: str | None, result: EvolveResult
) -> None:
    assert result.best is not None
    best = result.best.model_copy(update={"fitness_score": fitness, "id": uuid.uuid4()})
    held_out = HeldOutSharpe(bars=10, best=unseen, defaults=0.5)
    caution = warning(result.model_copy(update={"best": best, "unseen": held_out}))
    assert (caution is None) == (message is None)
    assert (message or "") in (caution or "")


@pytest.mark.usefixtures("environment")
def test_a_retrain_takes_the_parameters_of_a_candidate_of_its_model_type(result: EvolveResult) -> None:
    assert result.best is not None
    params = tune.best_params(str(result.best.id), ModelType.LIGHTGBM, None)
    assert FIXED.items() <= params.items()
    assert result.best_params.items() >= params.items()
    with pytest.raises(NotFound, match="There is no candidate"):
        tune.best_params(str(uuid.uuid4()), ModelType.LIGHTGBM, None)


@pytest.mark.usefixtures("environment")
def test_the_command_shows_the_generations_and_continues_under_its_name() -> None:
    name = f"e-{uuid.uuid4().hex}"
    options = ["evolve", "--model", "other", "--plugin", "ridge", "--symbol", "BTCUSD", "--days", "90"]
    rules = ["--population", "4", "--generations", "1", "--selection", "roulette", "--holdout", "0"]
    first = runner.invoke(app, [*options, *rules, "--name", name])
    assert first.exit_code == 0, first.output
    counts = r"\d candidates(, \d degenerate and not ranked)?\."
    assert re.search(rf"^{name}: Generations 0 to 1: {counts}$", first.output, re.MULTILINE)
    assert "clm retrain --model other --plugin ridge --symbol BTCUSD" in first.output
    again = runner.invoke(app, [*options, *rules, "--name", name, "--json"])
    answer: dict[str, Any] = json.loads(again.stdout)
    assert answer["found"] == answer["candidates"] > 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--symbol", "DOGEUSD"], "there is no series DOGEUSD"),
        (["--symbol", "BTCUSD", "--population", "2"], "Invalid value for '--population'"),
        (["--symbol", "BTCUSD", "--selection", "lottery"], "'tournament' or 'roulette'"),
        (["--symbol", "BTCUSD", "--crossover", "twice"], "'uniform', 'single-point' or 'average'"),
        (["--symbol", "BTCUSD", "--name", "a b"], "name"),
        (["--symbol", "BTCUSD", "--param", "sped=1"], "Valid parameters: label, horizon"),
    ],
    ids=["market", "population", "selection", "crossover", "name", "parameter"],
)
@pytest.mark.usefixtures("environment")
def test_an_invalid_command_is_refused_before_any_server_starts(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a port without a server
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    answer = runner.invoke(app, ["evolve", "--model", "xgboost", *arguments])
    assert answer.exit_code != 0
    output = " ".join((answer.output + str(answer.exception)).replace("│", " ").split())
    assert expected in output
