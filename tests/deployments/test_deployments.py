"""Deployments on a real Prefect server."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from installations import wait_until
from patience import PATIENT_SECONDS
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from clm_core.domain.errors import (
    MissingExtra,
    PluginMissing,
    ServerUnavailable,
    SettingsError,
    StorageUnavailable,
)
from clm_core.domain.strategy_search import Objective
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.timeframes import Timeframe
from clm_core.models import catalog
from clm_core.platform.prefect_runs import Runs
from clm_core.platform.prefect_server import load_flow
from clm_core.settings import DeploySettings, Settings
from deployments.definitions import (
    FIRST_ANCHOR,
    Deployment,
    _write,
    deploy,
    prefect_yaml,
    target_deployments,
    with_offered_symbols,
)
from deployments.work_pool import ensure_work_pool, process_template

ROOT = Path(__file__).parents[2]
TREES = (ModelType.XGBOOST, ModelType.LIGHTGBM)
MARKETS = (
    Market(symbol="BTCUSD", model_types=TREES),
    Market(symbol="EURUSD", model_types=TREES, dataset_span_days=200),
)
MODELS = {f"{kind}_{symbol}_1h" for kind in ("xgboost", "lightgbm") for symbol in ("btcusd", "eurusd")}


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    return Settings(home=home, universe=MARKETS)


@pytest.fixture(scope="module")
def deployed(settings: Settings, prefect_url: str) -> Iterator[str]:
    deploy(settings)
    yield prefect_url
    # other tests of the session start runs too
    for each in ask(prefect_url, "/deployments/filter"):
        httpx.delete(f"{prefect_url}/deployments/{each['id']}").raise_for_status()


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = httpx.post(f"{url}{path}", json=body or {}).raise_for_status().json()
    return answer


def deployments(url: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in ask(url, "/deployments/filter")}


def scheduled(url: str, deployment: dict[str, Any]) -> dict[str, str]:
    """Ids of the scheduled runs of a deployment, by time."""
    body = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    return {run["expected_start_time"]: run["id"] for run in ask(url, "/flow_runs/filter", body)}


def wait_for_scheduled_runs(url: str, name: str) -> dict[str, str]:
    deadline = time.monotonic() + PATIENT_SECONDS
    while not (runs := scheduled(url, deployments(url)[name])):
        assert time.monotonic() < deadline, "Prefect's scheduler makes no runs"
        time.sleep(0.5)
    return runs


def test_each_model_and_market_has_one_deployment(deployed: str) -> None:
    assert deployments(deployed).keys() >= MODELS


def test_scheduled_runs_appear_with_the_periodic_trigger(deployed: str) -> None:
    runs = wait_for_scheduled_runs(deployed, "xgboost_btcusd_1h")
    [first, second, *_] = sorted(map(datetime.fromisoformat, runs))
    assert second - first == timedelta(hours=168)
    run = httpx.get(f"{deployed}/flow_runs/{next(iter(runs.values()))}").json()
    assert run["parameters"]["request"]["trigger_reason"] == "periodic"


def test_the_page_of_runs_has_a_filter_for_each_kind_of_run_once(settings: Settings, deployed: str) -> None:
    deploy(settings)
    searches = [each for each in ask(deployed, "/saved_searches/filter") if each["name"].startswith("CLM: ")]
    tags = {each["name"]: each["filters"][0]["value"] for each in searches}
    assert len(searches) == len(tags)
    assert set(tags) == {"CLM: retrains", "CLM: tuning and evolution", "CLM: housekeeping"}
    tagged = [set(each["tags"]) for each in deployments(deployed).values()]
    assert all(any(set(each) <= labels for labels in tagged) for each in tags.values())


def test_old_runs_of_passes_are_deleted_and_those_of_retrains_stay(deployed: str) -> None:
    names = ("watch", "xgboost_btcusd_1h")
    runs = {
        (name, state): ended_run(deployed, name, state) for name in names for state in ("COMPLETED", "FAILED")
    }
    now = datetime.now(UTC)
    with httpx.Client(base_url=deployed) as client:
        prefect = Runs(client)
        prefect.prune(now - timedelta(hours=1), now - timedelta(hours=1))
        assert left(deployed, runs) == set(runs)
        assert prefect.prune(now + timedelta(hours=1), now - timedelta(hours=1)) >= 1
        assert left(deployed, runs) == set(runs) - {("watch", "COMPLETED")}
        prefect.prune(now + timedelta(hours=1), now + timedelta(hours=1))
    assert left(deployed, runs) == {(name, state) for name, state in runs if name != "watch"}


def ended_run(url: str, name: str, state: str) -> str:
    """Id of a run of a deployment that has just ended in a state."""
    deployment = deployments(url)[name]
    fields = {
        "flow_id": deployment["flow_id"],
        "deployment_id": deployment["id"],
        "state": {"type": "RUNNING"},
    }
    run = httpx.post(f"{url}/flow_runs/", json=fields).raise_for_status().json()
    ending = {"state": {"type": state}, "force": True}
    httpx.post(f"{url}/flow_runs/{run['id']}/set_state", json=ending).raise_for_status()
    return str(run["id"])


def left(url: str, runs: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    remaining = {
        each["id"]
        for each in ask(url, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [*runs.values()]}}})
    }
    return {key for key, run in runs.items() if run in remaining}


def test_the_launch_form_starts_with_the_market_of_manual_retrains(deployed: str) -> None:
    request = deployments(deployed)["lightgbm_eurusd_1h"]["parameters"]["request"]
    assert (request["model_type"], request["symbol"], request["dataset_span_days"]) == (
        "lightgbm",
        "EURUSD",
        200,
    )
    assert request["trigger_reason"] == "manual"


def test_a_tuning_has_a_form_whose_fields_stand_in_order_and_no_schedule(deployed: str) -> None:
    deployment = deployments(deployed)["tune"]
    assert deployment["schedules"] == []
    [form] = [
        part
        for name, part in deployment["parameter_openapi_schema"]["definitions"].items()
        if name == "TuneRequest"
    ]
    fields = sorted(form["properties"], key=lambda name: form["properties"][name]["position"])
    assert fields[:3] == ["model_type", "plugin", "symbol"]
    assert {"trials", "holdout", "timeout_minutes", "on"} < set(fields)


def test_the_form_of_an_evolution_has_selects_bounds_and_a_word_on_every_field(deployed: str) -> None:
    deployment = deployments(deployed)["evolve"]
    assert deployment["schedules"] == []
    assert deployment["global_concurrency_limit"]["limit"] == 1
    parts = deployment["parameter_openapi_schema"]["definitions"]
    form = parts["EvolveRequest"]["properties"]
    assert all("description" in field for field in form.values())
    fields = sorted(form, key=lambda name: form[name]["position"])
    assert fields[4:7] == ["dataset_span_days", "population", "generations"]
    assert {"workers", "on", "ray_address"} < set(fields)
    assert fields[-1] == "requested_by"
    assert {name: form[name]["maximum"] for name in ("population", "generations", "holdout")} == {
        "population": 500,
        "generations": 1000,
        "holdout": 0.5,
    }
    assert parts["Selection"]["enum"] == ["tournament", "roulette"]
    assert parts["Crossover"]["enum"] == ["uniform", "single-point", "average"]
    assert parts["Mutation"]["enum"] == ["gaussian", "uniform"]


def test_the_form_of_a_search_for_strategies_has_selects_and_a_word_on_every_field(deployed: str) -> None:
    deployment = deployments(deployed)["evolve-strategies"]
    parts = deployment["parameter_openapi_schema"]["definitions"]
    form = parts["StrategySearchRequest"]["properties"]
    assert all("description" in field for field in form.values())
    fields = sorted(form, key=lambda name: form[name]["position"])
    assert fields[:4] == ["families", "symbol", "timeframe", "dataset_span_days"]
    assert parts["RuleFamily"]["enum"] == list(RuleFamily)
    assert parts["Objective"]["enum"] == list(Objective)
    assert form["families"]["items"] == {"$ref": "#/definitions/RuleFamily"}


def test_the_form_of_a_replay_offers_the_symbols_and_none_for_a_world(deployed: str) -> None:
    form = deployments(deployed)["replay"]["parameter_openapi_schema"]["definitions"]["ReplayRequest"]
    known, *others = form["properties"]["symbol"]["anyOf"]
    assert {"BTCUSD", "EURUSD"} <= set(known["enum"])
    assert others == [{"title": "Other", "type": "string"}, {"type": "null"}]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("on-demand", "RetrainRequest"),
        ("tune", "TuneRequest"),
        ("evolve", "EvolveRequest"),
        ("evolve-strategies", "StrategySearchRequest"),
    ],
)
def test_a_form_offers_the_symbols_of_the_home_beside_free_text(name: str, part: str, deployed: str) -> None:
    deployment = deployments(deployed)[name]
    symbol = deployment["parameter_openapi_schema"]["definitions"][part]["properties"]["symbol"]
    known, other = symbol["anyOf"]
    assert {"BTCUSD", "EURUSD"} <= set(known["enum"])
    assert other == {"title": "Other", "type": "string"}
    assert deployment["parameters"] == {"request": {"requested_by": "Prefect"}}
    request = {"model_type": "lightgbm", "families": ["momentum"], "symbol": "NEWUSD"}
    del request["model_type" if part == "StrategySearchRequest" else "families"]
    answer = httpx.post(
        f"{deployed}/deployments/{deployment['id']}/create_flow_run",
        json={"parameters": {"request": request}, "state": {"type": "SCHEDULED"}},
    )
    assert answer.status_code == 201, answer.text
    httpx.delete(f"{deployed}/flow_runs/{answer.json()['id']}")


def test_without_a_server_nothing_is_deployed_to_a_temporary_one(settings: Settings) -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ServerUnavailable, match="`clm up`"),
    ):
        deploy(settings)


def test_bars_that_cannot_be_read_leave_the_forms_as_they_are_and_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise StorageUnavailable("the bucket does not answer")

    monkeypatch.setattr("deployments.definitions.market_data", refuse)
    given = [Deployment("flows.tune.tune", "tune", "", None)]
    unread = ("the launch forms offer no symbols: the bucket does not answer",)
    assert with_offered_symbols(given, Settings()) == (given, unread)


def test_a_deployment_has_one_run_at_a_time_and_the_next_waits(deployed: str) -> None:
    deployment = deployments(deployed)["xgboost_btcusd_1h"]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"


@pytest.mark.parametrize(
    ("name", "every"),
    [("maintenance", 60), ("watch", 3600), ("candidates", 3600), ("shadow-1h", 3600)],
    ids=["maintenance", "watch", "candidates", "shadow"],
)
def test_a_scheduled_pass_is_skipped_while_the_one_before_runs(name: str, every: int, deployed: str) -> None:
    deployment = deployments(deployed)[name]
    [schedule] = deployment["schedules"]
    assert schedule["schedule"]["interval"] == every
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


@pytest.mark.parametrize(
    ("timeframe", "runs_at"),
    [
        pytest.param("1m", "00:00:45", id="three quarters of a short bar"),
        pytest.param("1h", "00:02:00", id="hours"),
        pytest.param("1d", "00:02:00", id="days"),
    ],
)
def test_shadow_passes_run_soon_after_each_bar_of_the_universe(
    timeframe: str, runs_at: str, tmp_path: Path
) -> None:
    universe = tuple(Market(symbol=symbol, timeframe=timeframe) for symbol in ("BTCUSD", "EURUSD"))
    made = target_deployments(Settings(home=tmp_path, universe=universe))
    [shadow] = [each for each in made if each.name.startswith("shadow")]
    assert shadow.parameters == {"timeframe": timeframe}
    assert shadow.every == timedelta(seconds=Timeframe(timeframe).seconds)
    assert f"{shadow.anchor:%H:%M:%S}" == runs_at


def test_automations_end_the_runs_of_a_killed_worker_and_exist_once(
    deployed: str, settings: Settings
) -> None:
    [old] = [each for each in ask(deployed, "/automations/filter") if "no sign of life" in each["name"]]
    old["trigger"]["expect"].remove("prefect.flow-run.Suspended")
    kept = {name: old[name] for name in ("name", "description", "trigger", "actions", "tags")}
    httpx.put(f"{deployed}/automations/{old['id']}", json=kept | {"enabled": False}).raise_for_status()
    deploy(settings)
    new = httpx.get(f"{deployed}/automations/{old['id']}").json()
    # the release before would end the runs that wait for a person
    assert "prefect.flow-run.Suspended" in new["trigger"]["expect"]
    assert new["enabled"] is False
    names = [each["name"] for each in ask(deployed, "/automations/filter") if each["name"].startswith("CLM")]
    assert sorted(names) == [
        "CLM: dispatch at once",
        "CLM: end runs that give no sign of life",
        "CLM: end runs that were taken and never started",
        "CLM: end runs whose image cannot be pulled",
    ]


def test_an_event_on_the_bus_starts_a_dispatch(deployed: str) -> None:
    dispatches = {"deployments": {"name": {"any_": ["dispatch"]}}}
    before = {run["id"] for run in ask(deployed, "/flow_runs/filter", dispatches)}

    def has_started() -> bool:
        # repeated: the server needs a moment to load the trigger
        event = {
            "id": str(uuid4()),
            "event": "model.drift_detected",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": "tests.monitor"},
        }
        httpx.post(f"{deployed}/events", json=[event]).raise_for_status()
        return {run["id"] for run in ask(deployed, "/flow_runs/filter", dispatches)} > before

    wait_until(has_started)


CHANGED = [
    {"command": "sh -c id"},
    {"env": {"PYTHONPATH": "/tmp"}},
    {"env.LD_PRELOAD": "/tmp/x.so"},
    {"working_dir": "/tmp"},
    {"stream_output": False},
]


@pytest.mark.parametrize("variables", CHANGED, ids=str)
def test_a_run_or_deployment_with_a_command_of_its_own_is_refused(
    variables: dict[str, Any], deployed: str
) -> None:
    maintenance = deployments(deployed)["maintenance"]
    deployment = f"{deployed}/deployments/{maintenance['id']}"
    body = {"job_variables": variables}
    assert httpx.post(f"{deployment}/create_flow_run", json=body).status_code == 422
    another = body | {"name": "another", "flow_id": maintenance["flow_id"], "work_pool_name": "clm"}
    assert httpx.post(f"{deployed}/deployments/", json=another).status_code == 422
    run = httpx.post(f"{deployment}/create_flow_run", json={}).json()["id"]
    assert httpx.patch(f"{deployed}/flow_runs/{run}", json=body).status_code == 422
    httpx.delete(f"{deployed}/flow_runs/{run}").raise_for_status()


@pytest.mark.parametrize("variables", CHANGED, ids=str)
def test_a_worker_takes_the_command_from_the_pool_even_for_variables_that_were_not_validated(
    variables: dict[str, Any], settings: Settings
) -> None:
    """Prefect 3.8 stores the job variables of a changed deployment without validation."""
    made = ProcessJobConfiguration.from_template_and_values(process_template(settings), variables)
    configuration = asyncio.run(made)
    assert configuration.command == "python -P -m clm_core.platform.run_engine"
    assert (configuration.env, configuration.working_dir) == ({}, None)


def test_the_job_variables_of_the_settings_reach_the_runs_and_an_open_pool_is_closed(
    deployed: str, settings: Settings
) -> None:
    pool = f"{deployed}/work_pools/clm"
    template = ProcessWorker.get_default_base_job_template()
    httpx.patch(pool, json={"base_job_template": template}).raise_for_status()
    own = DeploySettings(job_variables={"env": {"OMP_NUM_THREADS": "1"}, "env.LC_ALL": "C"})
    deploy(settings.model_copy(update={"deploy": own}))
    template = httpx.get(pool).json()["base_job_template"]
    variables = deployments(deployed)["on-demand"]["job_variables"]
    configuration = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, variables))
    assert configuration.env == {"OMP_NUM_THREADS": "1", "LC_ALL": "C"}
    deploy(settings)
    assert httpx.get(pool).json()["base_job_template"] == process_template(settings)


def test_a_job_variable_that_a_process_pool_does_not_know_is_named(settings: Settings) -> None:
    image = DeploySettings(job_variables={"image": "registry/clm:1.0"})
    with pytest.raises(SettingsError, match="process pool knows no image; valid are command, env"):
        process_template(settings.model_copy(update={"deploy": image}))


def test_a_pool_that_others_use_as_well_is_left_as_it_is_with_a_warning(
    deployed: str, settings: Settings
) -> None:
    template = ProcessWorker.get_default_base_job_template()
    pool = {"name": "shared", "type": "process", "base_job_template": template}
    httpx.post(f"{deployed}/work_pools/", json=pool).raise_for_status()
    flow = httpx.post(f"{deployed}/flows/", json={"name": "theirs"}).json()["id"]
    body = {"name": "theirs", "flow_id": flow, "work_pool_name": "shared"}
    theirs = httpx.post(f"{deployed}/deployments/", json=body).json()["id"]
    shared = settings.model_copy(update={"deploy": DeploySettings(work_pool="shared")})
    with get_client(sync_client=True) as client:
        [warning] = ensure_work_pool(client, shared)
        assert "also runs theirs" in warning
        httpx.delete(f"{deployed}/deployments/{theirs}").raise_for_status()
        assert ensure_work_pool(client, shared) == ()
    assert httpx.get(f"{deployed}/work_pools/shared").json()["base_job_template"] == process_template(shared)


def test_deploying_again_changes_nothing_and_keeps_the_scheduled_runs(
    deployed: str, settings: Settings
) -> None:
    before = wait_for_scheduled_runs(deployed, "xgboost_btcusd_1h")
    again = deploy(settings)
    assert (again.created, again.updated, again.paused) == ((), (), ())
    assert before.items() <= scheduled(deployed, deployments(deployed)["xgboost_btcusd_1h"]).items()


def test_a_deployment_paused_by_hand_stays_paused(deployed: str, settings: Settings) -> None:
    by_hand = deployments(deployed)["lightgbm_btcusd_1h"]
    httpx.patch(f"{deployed}/deployments/{by_hand['id']}", json={"paused": True}).raise_for_status()
    deploy(settings)
    assert deployments(deployed)["lightgbm_btcusd_1h"]["paused"]


def test_a_changed_schedule_leaves_no_run_of_the_old_one_and_stays_paused_by_hand(
    deployed: str, settings: Settings
) -> None:
    wait_for_scheduled_runs(deployed, "xgboost_eurusd_1h")
    longer = (MARKETS[0], MARKETS[1].model_copy(update={"dataset_span_days": 300}))
    by_hand = deployments(deployed)["lightgbm_eurusd_1h"]
    schedule = f"{deployed}/deployments/{by_hand['id']}/schedules/{by_hand['schedules'][0]['id']}"
    httpx.patch(schedule, json={"active": False}).raise_for_status()
    changed = deploy(settings.model_copy(update={"universe": longer}))
    [paused] = deployments(deployed)["lightgbm_eurusd_1h"]["schedules"]
    assert not paused["active"]
    assert set(changed.updated) == {"xgboost_eurusd_1h", "lightgbm_eurusd_1h"}
    for run in wait_for_scheduled_runs(deployed, "xgboost_eurusd_1h").values():
        request = httpx.get(f"{deployed}/flow_runs/{run}").json()["parameters"]["request"]
        assert request["dataset_span_days"] == 300


def test_a_market_that_left_is_paused_and_runs_again_when_it_is_back(
    deployed: str, settings: Settings
) -> None:
    left = deploy(settings.model_copy(update={"universe": MARKETS[:1]}))
    assert set(left.paused) == {"xgboost_eurusd_1h", "lightgbm_eurusd_1h"}
    assert deployments(deployed)["xgboost_eurusd_1h"]["paused"]
    assert deploy(settings.model_copy(update={"universe": MARKETS[:1]})).paused == ()
    assert set(deploy(settings).updated) == {"xgboost_eurusd_1h", "lightgbm_eurusd_1h"}
    assert not deployments(deployed)["xgboost_eurusd_1h"]["paused"]


def test_deploying_over_the_release_before_leaves_no_schedule_or_automation_of_its_names(
    deployed: str, settings: Settings
) -> None:
    names = {"upkeep", "drain"}
    new = {each.name: each for each in target_deployments(settings)}
    before = [
        replace(new["maintenance"], name="upkeep", entrypoint="flows.upkeep.upkeep", work_queue="upkeep"),
        replace(new["dispatch"], name="drain", entrypoint="flows.drain.drain", work_queue="upkeep"),
    ]
    with get_client(sync_client=True) as client:
        for old in before:
            flow = client.create_flow_from_name(load_flow(old.entrypoint).name)
            _write(client, old, settings, "of the release before", flow)
    assert "CLM: drain at once" in automations(deployed)
    wait_for_scheduled_runs(deployed, "upkeep")

    changed = deploy(settings)
    assert (set(changed.paused), changed.created, changed.updated) == (names, (), ())
    by_name = deployments(deployed)
    assert {name: by_name[name]["paused"] for name in names} == dict.fromkeys(names, True)
    assert not by_name["maintenance"]["paused"]
    assert automations(deployed).isdisjoint({"CLM: drain at once"})
    assert "CLM: dispatch at once" in automations(deployed)
    assert scheduled(deployed, by_name["upkeep"]) == {}
    assert deploy(settings).paused == ()


def automations(url: str) -> set[str]:
    return {each["name"] for each in ask(url, "/automations/filter")}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("flows.upkeep.upkeep", "flows.maintenance.maintenance"),
        ("flows.drain.drain", "flows.dispatch.dispatch"),
    ],
    ids=["upkeep", "drain"],
)
def test_a_run_scheduled_by_the_release_before_runs_the_renamed_flow(before: str, now: str) -> None:
    assert load_flow(before) is load_flow(now)


def test_prefect_deploy_makes_the_same_deployments_from_the_checkout(
    deployed: str, settings: Settings, tmp_path: Path
) -> None:
    before = deployments(deployed)["xgboost_btcusd_1h"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "prefect",
            "--no-prompt",
            "deploy",
            "-n",
            "xgboost_btcusd_1h",
            "-n",
            "approve",
        ],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "PREFECT_API_URL": deployed,
            "PREFECT_HOME": str(tmp_path),
            "PREFECT_DEFAULT_WORK_POOL_NAME": settings.deploy.work_pool,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    after = deployments(deployed)["xgboost_btcusd_1h"]
    same = ("id", "entrypoint", "parameters", "tags", "pull_steps", "job_variables", "work_pool_name")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    [then] = before["schedules"]
    [now] = after["schedules"]
    assert [now["schedule"], now["slug"], now["parameters"]] == [
        then["schedule"],
        then["slug"],
        then["parameters"],
    ]
    again = deploy(settings)
    assert {"xgboost_btcusd_1h", "approve"} <= set(again.unchanged)


def test_prefect_yaml_is_what_the_default_settings_make_without_extras() -> None:
    base = Market(symbol="BTCUSD", model_types=(ModelType.XGBOOST, ModelType.LIGHTGBM))
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert written == prefect_yaml(Settings(home=ROOT / ".clm", universe=(base,)))


def test_schedules_are_anchored_in_the_past_and_spread_over_the_interval() -> None:
    week = timedelta(hours=168)
    anchors = {
        Deployment("flows.retrain.retrain", f"model_{number}", "", week).anchor for number in range(100)
    }
    assert len(anchors) > 95
    assert all(FIRST_ANCHOR <= anchor < FIRST_ANCHOR + week for anchor in anchors)
    assert max(anchors) < datetime(2024, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        ({"plugins": ("lasso",), "model_types": ()}, PluginMissing),
        ({"model_types": (ModelType.NHITS,)}, MissingExtra),
    ],
    ids=["lasso", "neuralforecast"],
)
def test_a_universe_that_cannot_be_trained_here_is_refused(
    kinds: dict[str, Any],
    error: type[Exception],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalog, "find_spec", lambda library: None)
    universe = (Market(symbol="BTCUSD", **kinds),)
    with pytest.raises(error, match=request.node.callspec.id):
        target_deployments(Settings(home=tmp_path, universe=universe))


def test_bars_are_fetched_shortly_after_the_shortest_of_them_has_closed(tmp_path: Path) -> None:
    by_hand = Market(symbol="BTCUSD", timeframe="1m", model_types=())
    fetched = [
        Market(symbol=symbol, timeframe=timeframe, exchange="binance", model_types=())
        for symbol, timeframe in (("BTCUSDT", "4h"), ("ETHUSDT", "15m"))
    ]
    names = [each.name for each in target_deployments(Settings(home=tmp_path, universe=(by_hand,)))]
    assert "fetch" not in names
    [fetch] = [
        each
        for each in target_deployments(Settings(home=tmp_path, universe=(by_hand, *fetched)))
        if each.name == "fetch"
    ]
    assert (fetch.every, fetch.anchor - FIRST_ANCHOR) == (timedelta(minutes=15), timedelta(seconds=20))


def test_plug_ins_and_rule_strategies_of_the_universe_are_retrained_on_schedule(tmp_path: Path) -> None:
    universe = (Market(symbol="BTCUSD", model_types=(), plugins=("ridge", "momentum")),)
    for name, each in zip(
        ("ridge", "momentum"), target_deployments(Settings(home=tmp_path, universe=universe)), strict=False
    ):
        assert (each.name, each.every) == (f"{name}_btcusd_1h", timedelta(hours=168))
        assert each.scheduled_parameters["request"]["plugin"] == name
