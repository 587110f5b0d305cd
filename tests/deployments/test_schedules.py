"""Schedules over weeks of a moved clock: Prefect's server and scheduler, restarted and deployed to again."""

import itertools
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from installations import wait_until
from moved_clock import MovedServer, server_at
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from psycopg.sql import SQL

from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.platform.prefect_server import server_environment
from clm_core.services import Services
from clm_core.settings import Settings
from deployments.definitions import Deployment, DeployResult, deploy, target_deployments

pytestmark = pytest.mark.chaos

DATABASE = "clm_prefect_of_schedules"
BEGIN = datetime(2026, 1, 7, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
MARKET = Market(symbol="BTCUSD", model_types=(ModelType.XGBOOST, ModelType.NHITS, ModelType.RL_V3))
AHEAD = 3
"""Number of runs that Prefect creates ahead for a schedule."""


@dataclass
class World:
    """Settings and server at a moment."""

    settings: Settings
    prefect: httpx.Client
    now: datetime = BEGIN

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        return self.prefect.post(path, json=body).raise_for_status().json()

    def deploy(self, **changes: Any) -> DeployResult:
        """Deploys after changes of the market."""
        self.settings = self.settings.model_copy(update={"universe": (MARKET.model_copy(update=changes),)})
        with temporary_settings({PREFECT_API_URL: str(self.prefect.base_url), PREFECT_API_AUTH_STRING: None}):
            return deploy(self.settings)

    def pause(self, name: str, paused: bool) -> None:
        self.prefect.patch(f"/deployments/{self.ids[name]}", json={"paused": paused}).raise_for_status()

    @property
    def ids(self) -> dict[str, str]:
        return {each["name"]: each["id"] for each in self.ask("/deployments/filter", {})}

    def runs(self, name: str) -> list[dict[str, Any]]:
        runs = list[dict[str, Any]]()
        query = {"deployments": {"name": {"any_": [name]}}, "limit": 200}
        while page := self.ask("/flow_runs/filter", query | {"offset": len(runs)}):
            runs += page
        return runs

    def slots(self, name: str, *states: str) -> Counter[datetime]:
        """Number of runs by scheduled time, up to now."""
        times = (
            datetime.fromisoformat(run["expected_start_time"])
            for run in self.runs(name)
            if not states or run["state_type"] in states
        )
        return Counter(time for time in times if time <= self.now)

    def go_on(self, server: MovedServer, by: timedelta, names: list[str]) -> None:
        """Moves the clock, waits for the scheduler, and completes the due runs."""
        self.now += by
        server.move_to(self.now)
        self.settle(names)

    def settle(self, names: list[str]) -> None:
        self.wait_for_runs_ahead(names, AHEAD)
        while due := self._due(names):
            for run in due:
                for state in ("PENDING", "RUNNING", "COMPLETED"):
                    answer = self.ask(f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}})
                    assert answer["status"] == "ACCEPT", answer

    def wait_for_runs_ahead(self, names: list[str], count: int) -> None:
        wait_until(lambda: all(self._ahead(name) >= count for name in names))

    def _ahead(self, name: str) -> int:
        later = {"after_": self.now.isoformat()}
        query = {
            "deployments": {"name": {"any_": [name]}},
            "flow_runs": {"expected_start_time": later, "state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        return int(self.ask("/flow_runs/count", query))

    def _due(self, names: list[str]) -> list[dict[str, Any]]:
        """Runs handed to a worker at the moment."""
        pool = f"/work_pools/{self.settings.deploy.work_pool}/get_scheduled_flow_runs"
        given = self.ask(pool, {"scheduled_before": self.now.isoformat()})
        ids = [self.ids[name] for name in names]
        return [each["flow_run"] for each in given if each["flow_run"]["deployment_id"] in ids]


@dataclass(frozen=True)
class Servers:
    """Prefect servers with a shared database and port, started one after the other."""

    port: int
    environment: dict[str, str]
    log: Path

    def at(self, moment: datetime) -> AbstractContextManager[MovedServer]:
        return server_at(moment, self.port, self.environment, self.log)


@pytest.fixture(scope="module")
def servers(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Servers:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL(f"CREATE DATABASE {DATABASE}"))
    folder = tmp_path_factory.mktemp("schedules")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    known = server_environment(services.database, folder, f"http://127.0.0.1:{port}/api")
    url = urlsplit(known["PREFECT_API_DATABASE_CONNECTION_URL"])._replace(path=f"/{DATABASE}").geturl()
    changes = {
        "PREFECT_API_DATABASE_CONNECTION_URL": url,
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "0.2",
    }
    return Servers(port, known | changes, folder / "server.log")


@pytest.fixture
def world(services: Services, servers: Servers) -> Iterator[World]:
    settings = Settings(home=services.settings.home, universe=(MARKET,))
    with httpx.Client(base_url=f"http://127.0.0.1:{servers.port}/api", timeout=20) as prefect:
        yield World(settings, prefect)


def grid(deployment: Deployment, since: datetime, until: datetime) -> list[datetime]:
    """Scheduled times of a deployment."""
    assert deployment.every is not None
    before = (since - deployment.anchor) // deployment.every
    slots = (deployment.anchor + number * deployment.every for number in itertools.count(before))
    return [slot for slot in itertools.takewhile(lambda slot: slot <= until, slots) if slot >= since]


def test_each_schedule_fires_once_a_slot_despite_restarts_and_deployments(
    world: World, servers: Servers
) -> None:
    schedules = {
        each.name: each for each in target_deployments(world.settings) if each.every and each.every >= DAY
    }
    assert {each.every for each in schedules.values()} == {DAY, 7 * DAY, 14 * DAY}
    names = list(schedules)
    with servers.at(world.now) as server:
        assert set(world.deploy().created) > set(names)
        world.pause("maintenance", paused=True)
        world.settle(names)
        for _ in range(2):
            world.go_on(server, 3 * DAY, names)
        assert set(world.deploy().unchanged) > set(names)
        assert set(world.deploy(dataset_span_days=300).updated) >= set(names)
        world.go_on(server, 3 * DAY, names)
    # three days later: runs created before are late
    world.now += 3 * DAY
    with servers.at(world.now) as server:
        world.deploy()
        world.settle(names)
        world.deploy(dataset_span_days=365)
        world.go_on(server, 3 * DAY, names)
    stopped = world.now
    world.now += 10 * DAY
    with servers.at(world.now) as server:
        world.settle(names)
        back = world.now
        world.go_on(server, 3 * DAY, names)
        for name, schedule in schedules.items():
            passed = grid(schedule, stopped, back)
            expected = set(grid(schedule, BEGIN, world.now)) - set(passed[AHEAD:])
            assert world.slots(name) == dict.fromkeys(expected, 1), name
            assert world.slots(name, "COMPLETED") == dict.fromkeys(expected, 1), name
        world.pause("maintenance", paused=False)
        resumed = world.now
        for _ in range(2):
            world.wait_for_runs_ahead(["maintenance"], 60)
            world.now += timedelta(minutes=45)
            server.move_to(world.now)
        minutes = [resumed + minute * MINUTE for minute in range(1, 91)]
        slots = world.slots("maintenance")
        assert [slots[minute] for minute in minutes] == [1] * len(minutes)
