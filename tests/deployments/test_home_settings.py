"""Settings of a home under `clm up`: one file and one policy, whatever folder a command is typed in."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from alert_receivers import AlertReceiver, alert_receiver
from installations import Installation, wait_until

SETTINGS = """
[alerts]
urls = ["{url}"]
[policy]
file = "policy.toml"
[[universe]]
symbol = "BTCUSD"
model_types = ["lightgbm"]
"""
POLICY = """
version = 7
preset = "strict"
[models.lightgbm_btcusd_1h]
criteria.min_trades = 4321
"""
REQUEST = {
    "model_type": "lightgbm",
    "symbol": "BTCUSD",
    "timeframe": "1h",
    "dataset_span_days": 150,
    "training_params": {"rounds": 5},
    "requested_by": "test",
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[AlertReceiver]:
    with alert_receiver() as received:
        yield received


@pytest.fixture(scope="module")
def up(home: Path, make_home: Callable[[str], Path], receiver: AlertReceiver) -> Iterator[Installation]:
    installation = Installation(make_home("settings"))
    (installation.home / "clm.toml").write_text(SETTINGS.format(url=receiver.url))
    refused = installation.clm("up", "--detach")
    assert refused.returncode == 1
    assert f"{installation.home}/policy.toml cannot be read" in refused.stderr
    assert not (installation.home / "stack" / "state.json").exists()
    (installation.home / "policy.toml").write_text(POLICY)
    started = installation.clm("up", "--detach", folder=make_folder(home, "here"))
    assert started.returncode == 0, started.stderr
    yield installation
    assert installation.clm("down").returncode == 0
    wait_until(lambda: installation.processes() == [], seconds=60)


def make_folder(home: Path, name: str) -> Path:
    folder = home / f"folder-{name}"
    folder.mkdir(exist_ok=True)
    return folder


def runs(up: Installation, deployment: str) -> list[dict[str, Any]]:
    filters = {"deployments": {"name": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_DESC"}
    found: list[dict[str, Any]] = up.prefect("POST", "/flow_runs/filter", filters)
    return found


def test_maintenance_and_a_retrain_of_the_worker_use_the_policy_beside_the_file(up: Installation) -> None:
    deployment = up.prefect("GET", "/deployments/name/retrain/lightgbm_btcusd_1h")
    up.prefect(
        "POST", f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"request": REQUEST}}
    )

    def ended() -> list[str]:
        states = [run["state_type"] for run in runs(up, "lightgbm_btcusd_1h")]
        return [state for state in states if state in ("COMPLETED", "FAILED", "CRASHED")]

    wait_until(lambda: bool(ended()))
    assert ended() == ["COMPLETED"]
    [version] = json.loads(up.clm("models", "--json").stdout)
    shown = up.clm("show", f"{version['model_id']}@{version['version']}", "--json")
    assert "4321" in shown.stdout
    wait_until(lambda: any(run["state_type"] == "COMPLETED" for run in runs(up, "maintenance")))


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


def test_an_unreadable_policy_is_alerted_and_an_illness_of_status_and_health_until_it_is_readable(
    up: Installation, receiver: AlertReceiver
) -> None:
    policy = up.home / "policy.toml"
    policy.write_text("version = ")

    def status() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(up.clm("status", "--json").stdout)
        return answer

    wait_until(lambda: str(policy) in str(status()["settings_problem"]))
    assert status()["healthy"] is False
    ill = up.clm("status")
    assert ill.returncode == 1
    assert "Ill: " in ill.stdout
    assert str(policy) in ill.stdout
    health = httpx.get(f"{up.state.api_url}/health", timeout=60).json()
    assert (health["status"], health["parts"]["settings"]) == ("ill", "down")
    # no run of maintenance can load the policy: the alert comes from the supervisor
    wait_until(lambda: any("settings refused" in title for title in receiver.titles))
    policy.write_text(POLICY)
    wait_until(lambda: status()["settings_problem"] is None)
    # maintenance may be overdue until its next success
    wait_until(lambda: up.clm("status").returncode == 0)
    wait_until(lambda: httpx.get(f"{up.state.api_url}/health", timeout=60).json()["status"] == "ok")
