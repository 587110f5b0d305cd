"""Dead man's switch against real PostgreSQL, Prefect and a receiver of alerts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from alert_receivers import AlertReceiver, alert_receiver
from installations import wait_until
from pydantic import SecretStr
from sqlalchemy import Engine, text

from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import DeliveryFailed
from clm_core.domain.operation_settings import AlertSettings
from clm_core.domain.passes import PassCondition
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.ledger.engine import open_engine
from clm_core.operations import heartbeat
from clm_core.operations.pass_watch import PassCheck, check
from clm_core.platform.database import Database
from clm_core.services import Services
from clm_core.settings import CONFIG_VARIABLE, Settings
from deployments import watchdog
from deployments.definitions import deploy
from deployments.watchdog import Watchdog

EXCHANGE = (Market(symbol="BTCUSDT", model_types=(ModelType.XGBOOST,), exchange="binance"),)
NOBODY = "http://127.0.0.1:9/api"


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    return Settings(home=home, universe=EXCHANGE)


@pytest.fixture(scope="module")
def prefect(settings: Settings, prefect_url: str) -> Iterator[str]:
    deploy(settings)
    yield prefect_url
    # other tests of the session start runs too
    for each in httpx.post(f"{prefect_url}/deployments/filter", json={}).json():
        httpx.delete(f"{prefect_url}/deployments/{each['id']}").raise_for_status()


@pytest.fixture
def engine(services: Services) -> Iterator[Engine]:
    engine = open_engine(services.database.url("ledger"))
    execute(engine, "DELETE FROM scheduled_passes")
    yield engine
    execute(engine, "UPDATE alerts SET ended_at = at WHERE ended_at IS NULL")
    engine.dispose()


@pytest.fixture
def receiver() -> Iterator[AlertReceiver]:
    with alert_receiver() as received:
        yield received


@pytest.fixture
def checked(prefect: str, engine: Engine, receiver: AlertReceiver) -> Callable[..., PassCheck]:
    def once(api: str = prefect, **more: Any) -> PassCheck:
        return check(engine, [SecretStr(receiver.url)], {"PREFECT_API_URL": api}, **more)

    return once


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def hours_pass(engine: Engine, name: str = "%", hours: int = 5) -> None:
    """Moves schedule and success of a pass back."""
    back = ", ".join(
        f"{each} = {each} - interval '{hours} hours'" for each in ("expected_since", "succeeded_at")
    )
    execute(engine, f"UPDATE scheduled_passes SET {back} WHERE name LIKE '{name}'")


def conditions(result: PassCheck) -> dict[str, PassCondition]:
    return {each.name: each.condition for each in result.passes}


def subjects(services: Services, kind: AlertKind) -> list[str]:
    return [alert.subject for alert in services.alerts.lasting(kind)]


def test_every_scheduled_pass_is_watched_and_new_ones_are_well(checked: Callable[..., PassCheck]) -> None:
    result = checked()
    assert conditions(result) == dict.fromkeys(
        ("fetch", "maintenance", "shadow-1h", "watch"), PassCondition.OK
    )
    assert result.problems == ()


def test_a_pass_that_no_longer_succeeds_is_alerted_once_and_its_success_ends_the_alert(
    checked: Callable[..., PassCheck], engine: Engine, services: Services, receiver: AlertReceiver
) -> None:
    checked()
    services.ledger.passes.succeeded("maintenance")
    hours_pass(engine)
    result = checked()
    assert {name for name, each in conditions(result).items() if each is PassCondition.OVERDUE} == {
        "fetch",
        "maintenance",
        "shadow-1h",
        "watch",
    }
    assert "clm maintenance" in "\n".join(result.problems)
    checked()
    # a new receiver gets the alerts of other tests as well
    announced = sorted(title.partition(": pass overdue, ")[2] for title in receiver.titles)
    assert [name for name in announced if name] == ["fetch", "maintenance", "shadow-1h", "watch"]
    services.ledger.passes.succeeded("maintenance")
    assert conditions(checked())["maintenance"] is PassCondition.OK
    assert subjects(services, AlertKind.PASS_OVERDUE) == ["fetch", "shadow-1h", "watch"]


def test_a_pass_is_found_overdue_while_prefect_is_away(
    checked: Callable[..., PassCheck], engine: Engine, receiver: AlertReceiver
) -> None:
    checked()
    hours_pass(engine, "maintenance")
    result = checked(NOBODY)
    assert conditions(result)["maintenance"] is PassCondition.OVERDUE
    assert "Prefect did not carry out" in result.problems[0]
    assert receiver.titles[-1].endswith(": pass overdue, maintenance")


def test_a_paused_pass_is_shown_and_no_illness_and_due_again_when_resumed(
    checked: Callable[..., PassCheck], engine: Engine, prefect: str
) -> None:
    checked()
    deployment = httpx.get(f"{prefect}/deployments/name/watch/watch").json()["id"]
    httpx.patch(f"{prefect}/deployments/{deployment}", json={"paused": True}).raise_for_status()
    try:
        hours_pass(engine, "watch")
        result = checked()
        assert (conditions(result)["watch"], result.problems) == (PassCondition.PAUSED, ())
    finally:
        httpx.patch(f"{prefect}/deployments/{deployment}", json={"paused": False}).raise_for_status()
    assert conditions(checked())["watch"] is PassCondition.OK


def test_a_deployment_deleted_by_hand_becomes_overdue_and_one_removed_by_the_settings_does_not(
    checked: Callable[..., PassCheck], engine: Engine, prefect: str, settings: Settings
) -> None:
    checked()
    deployment = httpx.get(f"{prefect}/deployments/name/maintenance/maintenance").json()["id"]
    httpx.delete(f"{prefect}/deployments/{deployment}").raise_for_status()
    hours_pass(engine, "maintenance")
    assert conditions(checked())["maintenance"] is PassCondition.OVERDUE
    without_exchange = tuple(market.model_copy(update={"exchange": None}) for market in EXCHANGE)
    deploy(settings.model_copy(update={"universe": without_exchange}))
    assert "fetch" not in conditions(checked())
    deploy(settings)


def test_a_start_of_the_servers_gives_every_pass_time(
    checked: Callable[..., PassCheck], engine: Engine
) -> None:
    checked()
    hours_pass(engine)
    assert checked(restarted=True).problems == ()


def test_an_unreadable_policy_is_alerted_although_no_pass_is_overdue_yet(
    checked: Callable[..., PassCheck],
    services: Services,
    receiver: AlertReceiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = tmp_path / "policy.toml"
    file = tmp_path / "clm.toml"
    policy.write_text("broken [")
    file.write_text(f"[policy]\nfile = '{policy}'\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    [problem] = checked().problems
    assert str(policy) in problem
    assert receiver.titles[-1].endswith(": settings refused, settings")
    file.write_text("no_such_setting = 1\n")
    assert "no_such_setting" in checked().problems[0]
    monkeypatch.delenv(CONFIG_VARIABLE)
    assert checked().problems == ()
    assert subjects(services, AlertKind.SETTINGS_REFUSED) == []


def test_a_silent_ledger_is_alerted_directly_and_once(
    home: Path, receiver: AlertReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.05)
    settings = Settings(home=home, alerts=AlertSettings(urls=(SecretStr(receiver.url),)))
    said = list[str]()
    database = Database("postgresql://clm@127.0.0.1:9/clm")
    dog = Watchdog(settings, database, {"PREFECT_API_URL": NOBODY}, said.append)
    checks = list[bool]()
    check_once = dog._check
    monkeypatch.setattr(dog, "_check", lambda restarted: (check_once(restarted), checks.append(restarted)))
    dog.start()
    try:
        wait_until(lambda: len(checks) >= 3)
    finally:
        dog.stop()
    assert receiver.titles == ["CLM: ledger unreachable, ledger"]
    assert said == ["The ledger does not answer."]


def test_a_suspended_machine_alerts_nobody_when_it_wakes_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000.0]
    restarts = list[bool]()
    dog = Watchdog(Settings(home=home), Database("postgresql://127.0.0.1:9/clm"), {}, print)
    monkeypatch.setattr(watchdog.time, "time", lambda: clock[0])
    monkeypatch.setattr(dog, "_check", restarts.append)
    sleeps = iter([20.0, 8 * 3600.0, 20.0])

    def sleep(_: float) -> bool:
        nap = next(sleeps, None)
        clock[0] += nap or 0
        return nap is None

    monkeypatch.setattr(dog._ended, "wait", sleep)
    dog.run()
    assert restarts == [True, False, True, False]


def test_a_heartbeat_is_sent_to_the_monitor_and_a_failure_hides_its_address(
    receiver: AlertReceiver,
) -> None:
    heartbeat.send(None)
    heartbeat.send(SecretStr(receiver.heartbeat_url))
    assert receiver.heartbeats == 1
    with pytest.raises(DeliveryFailed) as failed:
        heartbeat.send(SecretStr("http://127.0.0.1:9/s3cret"))
    assert "s3cret" not in str(failed.value)
