"""Search for strategies as a flow, and as a command."""

import json
import uuid

import httpx
import pytest
from typer.testing import CliRunner

from clm_core.cli import tune
from clm_core.cli.app import app
from clm_core.domain.strategy_search import StrategySearchRequest, StrategySearchResult
from clm_core.domain.vocabulary import RuleFamily
from clm_core.platform.prefect_server import load_flow
from clm_core.services import Services

runner = CliRunner()


@pytest.fixture(scope="module")
def result(services: Services, prefect_url: str) -> StrategySearchResult:
    request = StrategySearchRequest(
        families=(RuleFamily.MOMENTUM,), symbol="BTCUSD", dataset_span_days=120, population=10, generations=2
    )
    result: StrategySearchResult = load_flow("flows.evolve_strategies.evolve_strategies")(request)
    return result


@pytest.fixture
def environment(services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment of commands that use the servers of the session."""
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)


def test_the_run_page_shows_the_front_and_the_home_has_the_picture(
    result: StrategySearchResult, prefect_url: str
) -> None:
    page = httpx.get(f"{prefect_url}/artifacts/momentum-btcusd-1h-search/latest").json()["data"]
    assert "| momentum |" in page
    assert "data:image/png;base64," in page
    assert f"--params-from {result.front[0].candidate}" in page or "--params-from" in page
    assert result.picture is not None
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    progress = httpx.get(f"{prefect_url}/artifacts/momentum-btcusd-1h-search-progress/latest").json()
    assert progress["data"] == 100.0


@pytest.mark.usefixtures("environment")
def test_a_retrain_takes_the_parameters_of_a_strategy_of_the_front(result: StrategySearchResult) -> None:
    strategy = result.front[0]
    assert tune.best_params(str(strategy.candidate), "momentum", None).items() >= strategy.params.items()


@pytest.mark.usefixtures("environment")
def test_the_command_shows_the_front_and_verifies_it() -> None:
    name = f"r-{uuid.uuid4().hex}"
    options = ["evolve", "--strategy", "momentum, breakout", "--symbol", "BTCUSD", "--days", "120"]
    rules = ["--population", "10", "--generations", "1", "--name", name]
    shown = runner.invoke(app, [*options, *rules])
    assert shown.exit_code == 0, shown.output
    assert f"{name}: Generations 0 to 1: 20 strategies" in shown.output
    assert "breakout (defaults)" in shown.output
    assert f"clm evolve --verify {name}" in shown.output
    answer = json.loads(runner.invoke(app, [*options, *rules, "--json"]).stdout)
    assert (answer["name"], answer["candidates"]) == (name, 20)
    verified = runner.invoke(app, ["evolve", "--verify", name])
    assert (verified.exit_code, "the same to the last bit" in verified.output) == (0, True)


@pytest.mark.usefixtures("environment")
def test_an_ensemble_of_the_front_is_registered_with_the_versions_of_its_members(services: Services) -> None:
    rules = ["--population", "10", "--generations", "1", "--ensemble", "2", "--combine", "stack", "--json"]
    options = ["evolve", "--strategy", "momentum,mean_reversion", "--symbol", "BTCUSD", "--days", "200"]
    answer = json.loads(runner.invoke(app, [*options, *rules]).stdout)
    *members, ensemble = answer["retrained"]
    by_candidate = {each["candidate"]: each["params"] for each in answer["front"]}
    diverse = [by_candidate[each] for each in answer["diverse"][:2]]
    assert len(members) == 2
    for member, params in zip(members, diverse, strict=True):
        version = services.ledger.version(member["version"]["model_id"], member["version"]["version"])
        assert params.items() <= version.params.items()
    version = services.ledger.version("ensemble_btcusd_1h", ensemble["version"]["version"])
    names = [f"{each['model_id']}@{each['version']}" for each in (member["version"] for member in members)]
    assert [each["asked"] for each in version.params["members"]] == names
    assert version.params["combine"] == "stack"
    assert f"the search {answer['name']} evaluated these parameters" in " ".join(
        ensemble["verdict"]["warnings"]
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--strategy", "momentun", "--symbol", "BTCUSD"], "names no rule strategy"),
        (["--strategy", "momentum"], "give --symbol and either --model or --strategy"),
        (["--strategy", "momentum", "--model", "lightgbm", "--symbol", "BTCUSD"], "either --model or"),
        (["--strategy", "momentum", "--symbol", "DOGEUSD"], "there is no series DOGEUSD"),
        (["--strategy", "momentum", "--symbol", "BTCUSD", "--seeds", "3"], "--strategy needs no --seeds"),
        (["--strategy", "all", "--symbol", "BTCUSD", "--param", "stop_loss=0.1"], "name a single strategy"),
        (["--strategy", "momentum", "--symbol", "BTCUSD", "--objectives", "profit"], "'sharpe_ratio'"),
        (["--strategy", "momentum", "--symbol", "BTCUSD", "--param", "lookback=9"], "Valid parameters"),
        (["--model", "lightgbm", "--symbol", "BTCUSD", "--objectives", "score"], "belongs to --strategy"),
        (["--model", "lightgbm", "--symbol", "BTCUSD", "--ensemble", "3"], "belongs to --strategy"),
        (["--strategy", "all", "--symbol", "BTCUSD", "--combine", "sum"], "vote or stack or regime, not sum"),
        (["--verify", "nothing"], "There is no search nothing"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
@pytest.mark.usefixtures("environment")
def test_an_invalid_command_is_refused_before_any_server_starts(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a port without a server
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    answer = runner.invoke(app, ["evolve", *arguments])
    assert answer.exit_code != 0
    output = " ".join((answer.output + str(answer.exception)).replace("│", " ").split())
    assert expected in output
