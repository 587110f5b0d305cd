"""`clm up` from the command line: all parts run by the settings of the home, and none is left behind."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest
from alert_receivers import AlertReceiver, alert_receiver
from installations import Installation, wait_until
from markets import add_markets
from other_user import CLOSED, LOCKED, Attempt, as_other_user, as_this_user, paths_of
from webhooks import signed

from clm_core.platform import run_engine, stack_state
from clm_core.platform.database import open_database
from deployments import fork_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NOT_UP = 3
SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl8nUjcLkM"
SETTINGS = f"""
[stack]
concurrent_runs = 1
[webhooks.monitor]
secrets = ["{SECRET}"]
[policy]
file = "policy.toml"
[[universe]]
symbol = "BTCUSD"
"""
POLICY = """
version = 7
preset = "strict"
[models.lightgbm_btcusd_1h]
criteria.min_trades = 4321
"""
WHOLE = "CHAOS_REPETITIONS" in os.environ
MARKETS, OUTAGE_SECONDS = (100, 120.0) if WHOLE else (10, 5.0)
"""Number of markets, with two models each, and length of the outage."""
DISPATCHED_WITHIN_SECONDS = 60.0
DELIVERIES = 1000
CONNECTIONS = 32
ENDLESS = {"rounds": 10_000, "learning_rate": 1e-6, "early_stopping_rounds": 10_000, "max_depth": 12}


@pytest.fixture(scope="module")
def received() -> Iterator[AlertReceiver]:
    """Receiver of the alerts and heartbeats of the stack."""
    with alert_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def up(home: Path, make_home: Callable[[str], Path], received: AlertReceiver) -> Iterator[Installation]:
    installation = Installation(make_home("up"))
    alerts = f'[alerts]\nurls = ["{received.url}"]\nheartbeat_url = "{received.heartbeat_url}"\n'
    (installation.home / "clm.toml").write_text(SETTINGS + alerts)
    refused = installation.clm("up", "--detach")
    assert refused.returncode == 1
    assert f"{installation.home}/policy.toml cannot be read" in refused.stderr
    assert not (installation.home / "stack" / "state.json").exists()
    (installation.home / "policy.toml").write_text(POLICY)
    add_markets(installation.home, MARKETS + 1)
    started = installation.clm("up", "--detach", folder=make_folder(home, "here"))
    assert started.returncode == 0, started.stderr
    assert "http://127.0.0.1:" in started.stdout
    yield installation
    assert installation.clm("down").returncode == 0
    wait_until(lambda: installation.processes() == [])
    assert json.loads(installation.clm("status", "--json").stdout)["up"] is False


def make_folder(home: Path, name: str) -> Path:
    folder = home / f"folder-{name}"
    folder.mkdir(exist_ok=True)
    return folder


def test_status_has_the_health_of_each_part_and_the_next_runs(up: Installation) -> None:
    answer = up.clm("status", "--json")
    assert answer.returncode == 0, answer.stdout
    status = json.loads(answer.stdout)
    assert {part["name"]: part["healthy"] for part in status["parts"]}.items() >= {
        "prefect": True,
        "mlflow": True,
        "worker": True,
        "maintenance-loop": True,
    }.items()

    def next_runs() -> set[str]:
        return {run["deployment"] for run in json.loads(up.clm("status", "--json").stdout)["next_runs"]}

    # schedules may follow after the start
    wait_until(lambda: next_runs() >= {"xgboost_btcusd_1h", "lightgbm_btcusd_1h"})


def test_a_second_clm_up_is_refused_with_the_next_step(up: Installation) -> None:
    refused = up.clm("up")
    assert refused.returncode == 1
    assert "clm down" in refused.stderr


def test_the_servers_listen_locally_and_prefect_asks_for_the_password(up: Installation) -> None:
    assert httpx.post(f"{up.state.prefect_api_url}/flows/filter", json={}).status_code == 401
    assert httpx.get(f"{up.state.mlflow_url}/api/2.0/mlflow/experiments/search").status_code == 401
    forged = httpx.get(up.state.mlflow_url, headers={"Host": "evil.example"})
    assert forged.status_code == 403
    for url in (up.state.prefect_url, up.state.mlflow_url):
        assert re.match(r"http://127\.0\.0\.1:", url)


def test_no_secret_is_on_a_command_line(up: Installation) -> None:
    secret = stack_state.prefect_auth(up.home).encode()
    for process in up.processes():
        assert secret not in Path(f"/proc/{process}/cmdline").read_bytes()


def test_another_user_of_the_machine_gets_nowhere(up: Installation) -> None:
    attempts = [*paths_of(up.home), *sockets_of(up), *ports_of(up), *requests_to_prefect(up)]
    answers = as_other_user(attempts)
    let_in = {attempt: answer for attempt, answer in answers.items() if answer not in attempt.refusals}
    assert let_in == {}
    # the attempts fail for the other user alone, and not because they are badly made
    files = [attempt for attempt in attempts if attempt.action in ("read", "list", "connect")]
    assert len(files) > 50
    assert set(as_this_user(files).values()) <= {"done", "ENOENT"}
    health = Attempt("GET", f"{up.state.prefect_api_url}/health", ())
    assert as_other_user([health]) == {health: "200"}


def sockets_of(up: Installation) -> list[Attempt]:
    """The sockets of PostgreSQL, and their folder."""
    with open_database(up.home) as database:
        folder = Path(parse_qs(urlsplit(database.server).query)["host"][0])
    paths = [*folder.iterdir()]
    assert any(path.is_socket() for path in paths)
    sockets = [Attempt("connect", str(path), CLOSED) for path in paths if path.is_socket()]
    return [Attempt("list", str(folder), CLOSED), *sockets]


def ports_of(up: Installation) -> list[Attempt]:
    """The reservations of the ports."""
    ports = [urlsplit(url).port for url in (up.state.prefect_url, up.state.mlflow_url)]
    return [Attempt("reserve", f"clm-port-{port}", ("EADDRINUSE",)) for port in ports]


def requests_to_prefect(up: Installation) -> list[Attempt]:
    """Requests without a password, and with a wrong one."""
    api = up.state.prefect_api_url
    run: dict[str, Any] = {"name": "theirs", "flow_id": str(uuid4()), "work_pool_name": "clm"}
    requests: list[tuple[Any, str, Any]] = [
        ("POST", "/deployments/filter", {}),
        ("POST", "/flow_runs/", run | {"job_variables": {"command": "id"}}),
        ("GET", "/work_pools/clm", None),
        ("PATCH", "/work_pools/clm", {"base_job_template": {}}),
        ("POST", "/variables/", {"name": "theirs", "value": "1"}),
        ("GET", "/admin/settings", None),
    ]
    return [
        Attempt(method, f"{api}{path}", LOCKED, None if method == "GET" else json.dumps(body), user)
        for method, path, body in requests
        for user in ("", f"{stack_state.PREFECT_USER}:wrong")
    ]


@pytest.mark.skipif(not fork_server.is_supported(), reason="forks are used on Linux")
def test_the_fork_server_has_a_single_thread_after_its_imports(up: Installation) -> None:
    wait_until(lambda: run_engine.is_listening(up.home))
    [server] = [part for part in up.state.parts if part.name == "fork-server"]
    assert len(os.listdir(f"/proc/{server.pid}/task")) == 1


@pytest.mark.skipif(not fork_server.is_supported(), reason="forks are used on Linux")
def test_the_parts_share_the_libraries_of_the_supervisor(up: Installation) -> None:
    def started_as(process: int) -> bytes:
        return Path(f"/proc/{process}/cmdline").read_bytes()

    first = [part for part in up.state.parts if part.pid is not None and not part.restarts]
    forks = {part.name for part in first if part.pid and started_as(part.pid) == started_as(up.state.pid)}
    assert {part.name for part in first} == forks


def test_the_files_of_every_process_are_private(up: Installation) -> None:
    masks = dict[int, str]()
    for process in up.processes():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            [masks[process]] = [line.split()[1] for line in lines if line.startswith("Umask:")]
    assert len(masks) > 5
    assert set(masks.values()) == {"0077"}


def test_a_command_of_ones_own_is_refused_and_never_run(up: Installation, tmp_path: Path) -> None:
    marker = tmp_path / "was here"
    theirs = {"job_variables": {"command": f"touch '{marker}'"}}
    watch = up.prefect("GET", "/deployments/name/watch/watch")
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        up.prefect("POST", f"/deployments/{watch['id']}/create_flow_run", theirs)
    # Prefect does not validate a change of a deployment; the worker takes the command of the pool anyway
    up.prefect("PATCH", f"/deployments/{watch['id']}", theirs)
    run = {"flow_id": watch["flow_id"], "work_pool_name": "clm", "work_queue_name": "maintenance"}
    due = {"scheduled_time": datetime.now(UTC).isoformat()}
    scheduled = {"state": {"type": "SCHEDULED", "state_details": due}, "deployment_id": watch["id"]}
    made = up.prefect("POST", "/flow_runs/", run | scheduled | theirs)
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    wait_until(lambda: up.prefect("GET", f"/flow_runs/{made['id']}")["state_type"] in ended)
    assert not marker.exists()
    own = {"job_variables": {"command": "python -P -m clm_core.platform.run_engine"}}
    up.prefect("PATCH", f"/deployments/{watch['id']}", own)


def test_a_deploy_typed_in_any_folder_gives_the_same_deployments(up: Installation, home: Path) -> None:
    deployed = up.clm("deploy", folder=make_folder(home, "elsewhere"))
    assert deployed.returncode == 0, deployed.stderr
    assert [line.partition(":")[0] for line in deployed.stdout.splitlines()] == ["unchanged"]


def test_other_settings_in_the_current_folder_are_refused_and_pause_nothing(
    up: Installation, home: Path
) -> None:
    folder = make_folder(home, "demo")
    (folder / "clm.toml").write_text("[costs]\nfee_bps = 1\n")
    refused = up.clm("deploy", folder=folder)
    assert refused.returncode == 1
    assert f"{folder}/clm.toml" in refused.stderr
    assert "costs.fee_bps" in refused.stderr
    assert not up.prefect("GET", "/deployments/name/retrain/lightgbm_btcusd_1h")["paused"]


def test_other_settings_by_variable_are_refused_by_name(up: Installation) -> None:
    dearer = Installation(up.home, CLM_COSTS__FEE_BPS="77")
    refused = dearer.clm("retrain", "--model", "lightgbm", "--symbol", "BTCUSD")
    assert refused.returncode == 1
    assert "other settings: costs.fee_bps." in refused.stderr
    assert "unset CLM_COSTS__FEE_BPS" in refused.stderr
    looked = dearer.clm("models", "--json")
    assert looked.returncode == 0
    assert "Warning: The running stack" in looked.stderr


@pytest.fixture(scope="module")
def page(up: Installation) -> Iterator["Page"]:
    """Browser signed in to Prefect."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on PATH to open the pages with")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{up.state.prefect_url}/v2/login")
        page.locator("input").first.fill(stack_state.prefect_auth(up.home))
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard**")
        yield page
        browser.close()


@pytest.fixture(scope="module")
def run(up: Installation, page: "Page") -> dict[str, Any]:
    """Run launched from the form and ended by the worker."""
    deployment = deployment_of_the_model(up)
    page.goto(f"{up.state.prefect_url}/v2/deployments/deployment/{deployment['id']}/run")
    form = page.locator("form")
    form.locator("input[type=number]").first.fill("150")
    form.locator(".cm-content").first.click()
    page.keyboard.press("Control+A")
    # pasted whole: typed, the editor adds brackets of its own
    page.keyboard.insert_text('{"rounds": 5}')
    page.get_by_role("button", name="Submit").click()
    return ended_run(up, deployment)


def deployment_of_the_model(up: Installation) -> dict[str, Any]:
    deployment: dict[str, Any] = up.prefect("GET", "/deployments/name/retrain/lightgbm_btcusd_1h")
    return deployment


def ended_run(up: Installation, deployment: dict[str, Any]) -> dict[str, Any]:
    """Newest run of a deployment that was not scheduled, once the run has ended."""
    by_hand = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
    }
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    runs = list[dict[str, Any]]()

    def has_ended() -> bool:
        runs[:] = up.prefect("POST", "/flow_runs/filter", by_hand)
        return bool(runs) and runs[0]["state_type"] in ended

    wait_until(has_ended)
    return runs[0]


@pytest.fixture(scope="module")
def retrained(up: Installation, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Ended run of the worker: launched from the form where there is a browser, else by a request."""
    if CHROMIUM is not None:
        run: dict[str, Any] = request.getfixturevalue("run")
        return run
    deployment = deployment_of_the_model(up)
    training = deployment["parameters"]["request"] | {
        "dataset_span_days": 150,
        "training_params": {"rounds": 5},
    }
    body = {"parameters": {"request": training}}
    up.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    return ended_run(up, deployment)


def test_maintenance_and_a_retrain_of_the_worker_use_the_policy_beside_the_file(
    up: Installation, retrained: dict[str, Any]
) -> None:
    assert retrained["state_type"] == "COMPLETED"
    [version] = json.loads(up.clm("models", "--json").stdout)
    shown = up.clm("show", f"{version['model_id']}@{version['version']}", "--json")
    assert "4321" in shown.stdout

    def has_succeeded() -> bool:
        passes = json.loads(up.clm("status", "--json").stdout)["passes"]
        return any(each["name"] == "maintenance" and each["succeeded_at"] for each in passes)

    wait_until(has_succeeded)


def test_a_retrain_launched_from_the_form_is_run_and_judged(up: Installation, run: dict[str, Any]) -> None:
    assert run["state_type"] == "COMPLETED", run["state"]
    assert re.fullmatch(r"lightgbm_btcusd_1h manual: (PASS|FAIL|INCONCLUSIVE)", run["name"])
    assert set(run["tags"]) >= {"lightgbm_btcusd_1h", "lightgbm", "manual"}
    request = run["parameters"]["request"]
    assert (request["dataset_span_days"], request["training_params"]) == (150, {"rounds": 5})
    [version] = json.loads(up.clm("models", "--json").stdout)
    assert version["model_id"] == "lightgbm_btcusd_1h"


@pytest.mark.parametrize("ui", ["/v2/artifacts/artifact", "/artifacts/artifact"], ids=["v2", "v1"])
def test_the_page_of_a_run_shows_verdict_equity_curve_and_the_link_into_mlflow(
    ui: str, up: Installation, run: dict[str, Any], page: "Page"
) -> None:
    artifact = artifacts(up, run)["lightgbm-btcusd-1h-verdict"]
    page.goto(f"{up.state.prefect_url}{ui}/{artifact['id']}")
    picture = page.locator("img[src^='data:image/png']")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 400
    assert page.get_by_role("heading", name=re.compile(r"lightgbm_btcusd_1h v\d+_\d+")).count() == 1
    assert page.get_by_text(re.compile(r"^(PASS|FAIL|INCONCLUSIVE): \d+ of \d+ checks")).count() > 0
    assert page.get_by_text("Sharpe ratio").count() > 0
    link = page.get_by_role("link", name="Version in MLflow").get_attribute("href")
    assert link == f"{up.state.mlflow_url}/#/models/lightgbm_btcusd_1h/versions/1"


def test_the_link_into_mlflow_opens_the_version(up: Installation, run: dict[str, Any], page: "Page") -> None:
    page.goto(f"{up.state.mlflow_url}/#/models/lightgbm_btcusd_1h/versions/1")
    page.get_by_label("Password or token").fill(stack_state.prefect_auth(up.home))
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Source Run").first.wait_for()
    [version] = json.loads(up.clm("models", "--json").stdout)
    assert page.get_by_text(version["version"]).count() > 0


def test_the_run_shows_its_progress_and_compares_with_no_production_version(
    up: Installation, run: dict[str, Any]
) -> None:
    shown_artifacts = artifacts(up, run)
    assert float(shown_artifacts["lightgbm-btcusd-1h-progress"]["data"]) == 100
    assert "lightgbm-btcusd-1h-champion" not in shown_artifacts, "there is no production version"


def artifacts(up: Installation, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    query = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    return {each["key"]: each for each in up.prefect("POST", "/artifacts/filter", query)}


def test_a_training_does_not_hold_up_maintenance_and_ends_when_its_run_is_cancelled(up: Installation) -> None:
    deployment = up.prefect("GET", "/deployments/name/retrain/on-demand")
    request = {"model_type": "xgboost", "symbol": "BTCUSD", "training_params": ENDLESS}
    body = {"parameters": {"request": request}}
    run = up.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    wait_until(lambda: trainings(up) != [])
    assert_maintenance_starts(up)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    up.prefect("POST", f"/flow_runs/{run['id']}/set_state", cancelling)

    def has_ended() -> bool:
        return bool(up.prefect("GET", f"/flow_runs/{run['id']}")["state_type"] == "CANCELLED")

    wait_until(has_ended)
    wait_until(lambda: trainings(up) == [])
    [job] = json.loads(up.clm("jobs", "--model-id", "xgboost_btcusd_1h", "--json").stdout)
    assert job["status"] in {"failed", "in_progress"}  # in progress until its lease has run out


def assert_maintenance_starts(up: Installation) -> None:
    """Asserts a prompt start while the only slot for trainings is taken."""
    deployment = up.prefect("GET", "/deployments/name/maintenance/maintenance")
    run = up.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", {})
    # cancelled if the scheduled run is in progress
    begun = {"RUNNING", "COMPLETED", "FAILED", "CANCELLED"}
    wait_until(lambda: up.prefect("GET", f"/flow_runs/{run['id']}")["state_type"] in begun)


def trainings(up: Installation) -> list[int]:
    """Training processes of the installation."""
    processes = []
    for process in up.processes():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{process}/cmdline").read_text()
            # the name of a fork
            name = Path(f"/proc/{process}/comm").read_text().strip()
            if "clm_core.retraining.training" in command or name == "training":
                processes.append(process)
    return processes


def test_a_server_that_is_killed_comes_back_and_is_reported(up: Installation) -> None:
    [before] = [part for part in up.state.parts if part.name == "mlflow"]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: up.state.healthy and "mlflow" in {p.name for p in up.state.parts if p.restarts == 1})
    assert "mlflow: ended (SIGKILL)" in (stack_state.folder(up.home) / "logs" / "up.log").read_text()


def test_an_unreadable_policy_is_alerted_and_an_illness_of_status_and_health_until_it_is_readable(
    up: Installation, received: AlertReceiver, ledger: psycopg.Connection[Any]
) -> None:
    policy = up.home / "policy.toml"
    policy.write_text("broken [")

    wait_until(lambda: str(policy) in str(up.state.settings_problem))
    status = json.loads(up.clm("status", "--json").stdout)
    assert str(policy) in status["settings_problem"]
    assert status["healthy"] is False
    ill = up.clm("status")
    assert ill.returncode == 1
    assert "Ill: " in ill.stdout
    assert str(policy) in ill.stdout
    health = httpx.get(f"{up.state.api_url}/health", timeout=60).json()
    assert (health["status"], health["parts"]["settings"]) == ("ill", "down")
    # no run of maintenance can load the policy: the alert comes from the supervisor
    wait_until(lambda: has_title(received, "settings refused, settings"))
    policy.write_text(POLICY)
    wait_until(lambda: up.state.settings_problem is None)
    wait_until(lambda: lasting(ledger, "settings_refused") == [])
    # maintenance may be overdue until its next success
    wait_until(lambda: httpx.get(f"{up.state.api_url}/health", timeout=60).json()["status"] == "ok")
    assert json.loads(up.clm("status", "--json").stdout)["settings_problem"] is None
    wait_until(lambda: up.clm("status").returncode == 0)


def test_a_watch_that_no_longer_succeeds_is_ill_and_alerted_until_it_succeeds_again(
    up: Installation, received: AlertReceiver, ledger: psycopg.Connection[Any]
) -> None:
    wait_until(lambda: ledger.execute(SET_BACK).rowcount == 1)
    wait_until(lambda: has_title(received, "pass overdue, watch"))
    answers = []

    def is_ill() -> bool:
        # a scheduled run may have succeeded meanwhile
        ledger.execute(SET_BACK)
        answers.append(up.clm("status", "--json"))
        return answers[-1].returncode == 1

    def is_ill_by_http() -> bool:
        ledger.execute(SET_BACK)
        health = httpx.get(f"{up.state.api_url}/health").json()
        return (health["status"], len(health["problems"])) == ("ill", 1)

    wait_until(is_ill)
    passes = {each["name"]: each for each in json.loads(answers[-1].stdout)["passes"]}
    assert "clm watch" in passes["watch"]["reason"]
    wait_until(is_ill_by_http)
    watch = up.prefect("GET", "/deployments/name/watch/watch")
    up.prefect("POST", f"/deployments/{watch['id']}/create_flow_run", {})
    wait_until(lambda: lasting(ledger, "pass_overdue") == [])
    wait_until(lambda: httpx.get(f"{up.state.api_url}/health").json()["problems"] == [])
    assert received.heartbeats > 0


SET_BACK = """
UPDATE scheduled_passes SET expected_since = now() - interval '1 day', succeeded_at = now() - interval '1 day'
WHERE name = 'watch'
"""


def has_title(received: AlertReceiver, subject: str) -> bool:
    return any(title.endswith(f": {subject}") for title in received.titles)


def lasting(ledger: psycopg.Connection[Any], kind: str) -> list[tuple[Any, ...]]:
    return ledger.execute(
        "SELECT subject FROM alerts WHERE ended_at IS NULL AND kind = %s", [kind]
    ).fetchall()


@pytest.fixture(scope="module")
def trainings_paused(up: Installation) -> None:
    """Keeps runs of the on-demand deployment scheduled, while maintenance goes on."""
    up.prefect("POST", "/work_pools/clm/queues", {"name": "nobody", "is_paused": True})
    deployment = up.prefect("GET", "/deployments/name/retrain/on-demand")
    queue = {"work_pool_name": "clm", "work_queue_name": "nobody"}
    up.prefect("PATCH", f"/deployments/{deployment['id']}", queue)


@pytest.fixture(scope="module")
def ledger(up: Installation) -> Iterator[psycopg.Connection[Any]]:
    with open_database(up.home) as database:
        url = database.url("ledger").replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


@contextlib.contextmanager
def sender(up: Installation) -> Iterator[Callable[[str, str], int]]:
    """Function that posts a message with id and body and returns the status of the response."""
    limits = httpx.Limits(max_connections=CONNECTIONS)
    with httpx.Client(base_url=up.state.api_url or "", limits=limits, timeout=120) as client:

        def post(message_id: str, body: str) -> int:
            headers = signed(SECRET, message_id, body, datetime.now(UTC))
            return client.post("/webhooks/monitor", content=body, headers=headers).status_code

        yield post


def training_of(model_type: str, symbol: str) -> str:
    data = {"model_type": model_type, "symbol": symbol, "requested_by": "ada"}
    return json.dumps({"type": "manual.training_requested", "data": data})


def server(up: Installation) -> int:
    """Process id of the Prefect server."""
    [part] = [part for part in up.state.parts if part.name == "prefect"]
    assert part.pid is not None
    return part.pid


def runs_of(up: Installation, models: Collection[str]) -> Counter[str]:
    """Number of Prefect runs of each model."""
    runs = list[dict[str, Any]]()
    tags = {"flow_runs": {"tags": {"any_": sorted(models)}}}
    while page := up.prefect("POST", "/flow_runs/filter", tags | {"offset": len(runs), "limit": 200}):
        runs += page
    return Counter(tag for run in runs for tag in run["tags"] if tag in models)


def wait_until_dispatched(up: Installation, models: Collection[str]) -> float:
    """Seconds until each model has a run, after `clm dispatch` or, in chaos tests, scheduled maintenance."""
    began = time.monotonic()
    if not WHOLE:
        assert up.clm("dispatch").returncode == 0
    wait_until(lambda: runs_of(up, models).keys() == set(models), seconds=3 * DISPATCHED_WITHIN_SECONDS)
    return time.monotonic() - began


@pytest.mark.usefixtures("trainings_paused")
def test_a_webhook_is_dispatched_before_the_next_maintenance(up: Installation) -> None:
    dispatches = {"deployments": {"name": {"any_": ["dispatch"]}}}
    assert up.prefect("POST", "/flow_runs/filter", dispatches) == []
    with sender(up) as post:
        assert post("evt_soon", training_of("lightgbm", "M000USD")) == 202
    wait_until(lambda: up.prefect("POST", "/flow_runs/filter", dispatches) != [])
    wait_until(lambda: runs_of(up, {"lightgbm_m000usd_1h"}) == {"lightgbm_m000usd_1h": 1})


@pytest.mark.chaos
@pytest.mark.usefixtures("trainings_paused")
def test_1000_deliveries_of_one_message_while_prefect_is_killed_become_one_run(
    up: Installation, ledger: psycopg.Connection[Any]
) -> None:
    body = training_of("xgboost", "M000USD")
    killed = server(up)
    with sender(up) as post, ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = pool.map(lambda _: post("evt_1000", body), range(DELIVERIES))
        some = list(itertools.islice(answers, DELIVERIES // 3))
        os.kill(killed, signal.SIGKILL)
        assert Counter([*some, *answers]) == {202: DELIVERIES}
    [kept] = ledger.execute("SELECT count(*) FROM inbox WHERE message_id = 'evt_1000'").fetchall()
    assert kept == (1,)
    wait_until(lambda: up.state.healthy and server(up) != killed)
    wait_until_dispatched(up, {"xgboost_m000usd_1h"})
    assert runs_of(up, {"xgboost_m000usd_1h"}) == {"xgboost_m000usd_1h": 1}
    jobs = "SELECT count(*) FROM training_jobs WHERE model_id = 'xgboost_m000usd_1h'"
    assert ledger.execute(jobs).fetchall() == [(1,)]


@pytest.mark.chaos
@pytest.mark.usefixtures("trainings_paused")
def test_webhooks_of_an_outage_of_prefect_are_accepted_and_become_one_run_each_after_it(
    up: Installation,
) -> None:
    """Prefect hangs without answering for a while, and is killed at the end."""
    messages = {
        f"{model_type}_m{number:03}usd_1h": training_of(model_type, f"M{number:03}USD")
        for number in range(1, MARKETS + 1)
        for model_type in ("xgboost", "lightgbm")
    }
    hanging = server(up)
    os.kill(hanging, signal.SIGSTOP)
    ends = time.monotonic() + OUTAGE_SECONDS
    with sender(up) as post, ThreadPoolExecutor(CONNECTIONS) as pool:
        assert Counter(pool.map(post, messages.keys(), messages.values())) == {202: len(messages)}
    time.sleep(max(0.0, ends - time.monotonic()))
    os.kill(hanging, signal.SIGKILL)
    wait_until(lambda: up.state.healthy and server(up) != hanging)
    seconds = wait_until_dispatched(up, messages)
    assert runs_of(up, messages) == dict.fromkeys(messages, 1)
    assert seconds <= DISPATCHED_WITHIN_SECONDS


def test_status_without_running_servers_says_so_and_counts_the_jobs(
    make_home: Callable[[str], Path],
) -> None:
    installation = Installation(make_home("idle"))
    answer = installation.clm("status")
    assert answer.returncode == NOT_UP
    assert "clm up" in answer.stdout
    assert "Jobs: none yet" in answer.stdout
    assert "Nothing is up" in installation.clm("down").stdout
