"""`clm up` as somebody types it: everything it runs, and that nothing of it stays."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from installations import Installation, wait_until

from clm_core import stack

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NOT_UP = 3
ENDLESS = {"rounds": 10_000, "learning_rate": 1e-6, "early_stopping_rounds": 10_000, "max_depth": 12}


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[Installation]:
    installation = Installation(home / "up")
    started = installation.clm("up", "--detach")
    assert started.returncode == 0, started.stderr
    assert "http://127.0.0.1:" in started.stdout
    yield installation
    assert installation.clm("down").returncode == 0
    wait_until(lambda: installation.processes() == [], seconds=10)
    assert json.loads(installation.clm("status", "--json").stdout)["up"] is False


def test_status_tells_that_each_part_answers_and_what_runs_next(up: Installation) -> None:
    found = up.clm("status", "--json")
    assert found.returncode == 0, found.stdout
    status = json.loads(found.stdout)
    assert {part["name"]: part["healthy"] for part in status["parts"]}.items() >= {
        "prefect": True,
        "mlflow": True,
        "worker": True,
    }.items()
    assert {run["deployment"] for run in status["next_runs"]} >= {"xgboost_btcusd_1h", "lightgbm_btcusd_1h"}


def test_a_second_one_is_refused_with_what_to_do(up: Installation) -> None:
    refused = up.clm("up")
    assert refused.returncode == 1
    assert "clm down" in refused.stderr


def test_only_this_machine_reaches_it_and_prefect_only_with_the_password(up: Installation) -> None:
    assert httpx.post(f"{up.state.prefect_api_url}/flows/filter", json={}).status_code == 401
    forged = httpx.get(up.state.mlflow_url, headers={"Host": "evil.example"})
    assert forged.status_code == 403
    for url in (up.state.prefect_url, up.state.mlflow_url):
        assert re.match(r"http://127\.0\.0\.1:", url)


def test_no_secret_is_on_a_command_line(up: Installation) -> None:
    secret = stack.prefect_auth(up.home).encode()
    for process in up.processes():
        assert secret not in Path(f"/proc/{process}/cmdline").read_bytes()


@pytest.fixture(scope="module")
def page(up: Installation) -> Iterator["Page"]:
    """A browser, signed in to Prefect."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on PATH to open the pages with")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(30_000)
        page.goto(f"{up.state.prefect_url}/v2/login")
        page.locator("input").first.fill(stack.prefect_auth(up.home))
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard**")
        yield page
        browser.close()


@pytest.fixture(scope="module")
def run(up: Installation, page: "Page") -> dict[str, Any]:
    """Launched from the form, run by the worker, ended."""
    deployment = up.prefect("GET", "/deployments/name/retrain/lightgbm_btcusd_1h")
    page.goto(f"{up.state.prefect_url}/v2/deployments/deployment/{deployment['id']}/run")
    form = page.locator("form")
    form.locator("input[type=number]").first.fill("150")
    form.locator(".cm-content").first.click()
    page.keyboard.press("Control+A")
    # pasted whole: typed, the editor adds brackets of its own
    page.keyboard.insert_text('{"rounds": 5}')
    page.get_by_role("button", name="Submit").click()
    by_hand = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
    }
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    runs = list[dict[str, Any]]()

    def has_ended() -> bool:
        runs[:] = up.prefect("POST", "/flow_runs/filter", by_hand)
        return bool(runs) and runs[0]["state_type"] in ended

    wait_until(has_ended, seconds=300)
    return runs[0]


def test_a_retrain_launched_from_the_form_is_run_and_judged(up: Installation, run: dict[str, Any]) -> None:
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["name"] == "lightgbm_btcusd_1h manual"
    assert set(run["tags"]) >= {"lightgbm_btcusd_1h", "lightgbm", "manual"}
    request = run["parameters"]["request"]
    assert (request["dataset_span_days"], request["training_params"]) == (150, {"rounds": 5})
    [version] = json.loads(up.clm("models", "--json").stdout)
    assert version["model_id"] == "lightgbm_btcusd_1h"


@pytest.mark.parametrize("ui", ["/v2/artifacts/artifact", "/artifacts/artifact"], ids=["v2", "v1"])
def test_the_page_of_a_run_shows_verdict_equity_curve_and_the_way_into_mlflow(
    ui: str, up: Installation, run: dict[str, Any], page: "Page"
) -> None:
    artifact = artifacts(up, run)["lightgbm-btcusd-1h-verdict"]
    page.goto(f"{up.state.prefect_url}{ui}/{artifact['id']}")
    picture = page.locator("img[src^='data:image/png']")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 400
    assert page.get_by_role("heading", name=re.compile(r"lightgbm_btcusd_1h v\d+_\d+: [A-Z]+")).count() == 1
    assert page.get_by_text("Sharpe ratio").count() > 0
    link = page.get_by_role("link", name="This version in MLflow").get_attribute("href")
    assert link == f"{up.state.mlflow_url}/#/models/lightgbm_btcusd_1h/versions/1"


def test_the_link_into_mlflow_opens_the_version(up: Installation, run: dict[str, Any], page: "Page") -> None:
    page.goto(f"{up.state.mlflow_url}/#/models/lightgbm_btcusd_1h/versions/1")
    page.get_by_text("Source Run").first.wait_for()
    [version] = json.loads(up.clm("models", "--json").stdout)
    assert page.get_by_text(version["version"]).count() > 0


def test_the_run_shows_its_progress_and_the_champion_beside_the_challenger(
    up: Installation, run: dict[str, Any]
) -> None:
    found = artifacts(up, run)
    assert float(found["lightgbm-btcusd-1h-progress"]["data"]) == 100
    rows = json.loads(found["lightgbm-btcusd-1h-champion"]["data"])
    assert {row["criterion"]: row["nothing (serves)"] for row in rows}["Sharpe ratio"] == "-"


def artifacts(up: Installation, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    wanted = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    return {each["key"]: each for each in up.prefect("POST", "/artifacts/filter", wanted)}


def test_a_run_that_is_cancelled_ends_its_training_too(up: Installation) -> None:
    deployment = up.prefect("GET", "/deployments/name/retrain/on-demand")
    request = {"model_type": "xgboost", "symbol": "BTCUSD", "training_params": ENDLESS}
    body = {"parameters": {"request": request}}
    run = up.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    wait_until(lambda: trainings(up) != [], seconds=120)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    up.prefect("POST", f"/flow_runs/{run['id']}/set_state", cancelling)

    def has_ended() -> bool:
        return bool(up.prefect("GET", f"/flow_runs/{run['id']}")["state_type"] == "CANCELLED")

    wait_until(has_ended, seconds=90)
    wait_until(lambda: trainings(up) == [], seconds=10)
    [job] = json.loads(up.clm("jobs", "--model-id", "xgboost_btcusd_1h", "--json").stdout)
    assert job["status"] in {"failed", "in_progress"}  # in progress until its lease has run out


def trainings(up: Installation) -> list[int]:
    """Processes that train for this home."""
    found = []
    for process in up.processes():
        with suppress(OSError):
            if b"clm_core.training" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


def test_a_server_that_is_killed_comes_back_and_is_reported(up: Installation) -> None:
    [before] = [part for part in up.state.parts if part.name == "mlflow"]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: up.state.healthy and "mlflow" in {p.name for p in up.state.parts if p.restarts == 1})
    assert "mlflow: ended (SIGKILL)" in (stack.folder(up.home) / "logs" / "up.log").read_text()


def test_when_nothing_is_up_status_says_so_and_still_shows_what_is_known(home: Path) -> None:
    installation = Installation(home / "idle")
    answer = installation.clm("status")
    assert answer.returncode == NOT_UP
    assert "clm up" in answer.stdout
    assert "Jobs: none yet" in answer.stdout
    assert "Nothing is up" in installation.clm("down").stdout
