"""Traders on another machine: loading and following over HTTP, and the trader of the examples."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import promoting
import pytest
from api_servers import Server, serving_api
from installations import wait_until
from mlflow_servers import MLflowServer

from clm_core.domain.actors import Actor
from clm_core.domain.errors import (
    ArgumentRefused,
    BundleCorrupt,
    ConflictError,
    ModelHalted,
    NotAuthenticated,
    NotFound,
    RegistryUnavailable,
)
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.market.bars import Bars
from clm_core.registry.locations import artifacts_folder
from clm_core.services import Services
from clm_core.serving import follow, load

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "examples" / "trader"
ADA = Actor(name="ada", role=Role.ADMIN)
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
MakeVersion = Callable[..., ModelVersion]
WITHOUT_MLFLOW = "import runpy, sys; sys.modules['mlflow'] = None; runpy.run_path(sys.argv[1])"
"""Program that runs a file and fails at an import of mlflow."""

sys.path.insert(0, str(EXAMPLE))

from exchange import FakeExchange  # noqa: E402 - an example, found by its folder


@pytest.fixture
def production(make_version: MakeVersion, model_id: str, services: Services) -> ModelVersion:
    made = make_version(model_id)
    promote(services, made)
    return made


def promote(services: Services, version: ModelVersion) -> None:
    promoting.promote(services, version.model_id, version.version, ADA, "", NOW)


@pytest.fixture(scope="module")
def candles(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", days=120, closed_by=services.clock())


@pytest.fixture
def remote(guarded: MLflowServer, tokens: Mapping[Role, str]) -> dict[str, Any]:
    return {"mlflow": guarded.url, "token": tokens[Role.VIEWER]}


def test_a_trader_with_an_address_and_a_token_gets_the_positions_of_the_ledgers_loader(
    production: ModelVersion, services: Services, remote: dict[str, Any], candles: Bars
) -> None:
    served = load(production.model_id, **remote)
    with_ledger = load(production.model_id, registry=services.registry, ledger=services.ledger)
    assert served.bundle_digest == production.bundle_digest
    assert served.execution == with_ledger.execution
    bars = served.bars(candles.to_frame().rename(columns=str.upper))
    assert bars.content_hash == candles.content_hash
    assert np.array_equal(served.positions(bars), with_ledger.positions(candles))
    assert not served.changed()


def test_a_retired_version_loads_by_its_label_with_a_warning(
    production: ModelVersion, make_version: MakeVersion, services: Services, remote: dict[str, Any]
) -> None:
    promote(services, make_version(production.model_id))
    with pytest.warns(UserWarning, match=f"{production.version} is retired: do not trade it"):
        load(production.model_id, production.version, **remote)


def test_a_model_without_a_version_in_production_is_not_found(
    make_version: MakeVersion, model_id: str, remote: dict[str, Any]
) -> None:
    make_version(model_id)
    with pytest.raises(NotFound, match=f"No version of {model_id} has the alias production"):
        load(model_id, **remote)


def test_an_alias_moved_by_hand_is_refused(
    production: ModelVersion, make_version: MakeVersion, services: Services, remote: dict[str, Any]
) -> None:
    failed = make_version(production.model_id, sharpe=-1.0)
    services.registry.point(production.model_id, "production", failed.mlflow_version)
    with pytest.raises(ConflictError, match="moved by hand: `clm reconcile`"):
        load(production.model_id, **remote)


def test_the_digest_comes_from_the_ledger_whatever_mlflows_tag_says(
    production: ModelVersion, services: Services, remote: dict[str, Any]
) -> None:
    tag = ("clm.bundle_digest", "0" * 64)
    services.registry.client.set_model_version_tag(production.model_id, str(production.mlflow_version), *tag)
    assert load(production.model_id, **remote).bundle_digest == production.bundle_digest
    with pytest.raises(BundleCorrupt):
        load(production.model_id, registry=services.registry, ledger=None)


def test_a_halted_model_is_named_as_halted_with_the_reason(
    production: ModelVersion, services: Services, remote: dict[str, Any]
) -> None:
    services.promotions.halt(production.model_id, ADA, "the exchange is down", NOW)
    with pytest.raises(ModelHalted, match=r"by ada: the exchange is down\. Hold no position"):
        load(production.model_id, **remote)


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        (None, "serving-record?name=m&version=1", 401),
        (Role.REPORTER, "serving-record?name=m&version=1", 403),
        (Role.SCRAPER, "halt?name=m", 403),
        (Role.VIEWER, "serving-record?name=m&version=1", 404),
        (Role.VIEWER, "serving-record?name=m&version=-1", 400),
        (Role.VIEWER, "serving-record?name=m", 400),
        (Role.VIEWER, "halt?name=m", 200),
    ],
)
def test_facts_of_the_ledger_are_for_viewers(
    role: Role | None, path: str, status: int, clients: Mapping[Role | None, httpx.Client]
) -> None:
    assert clients[role].get(f"/clm/{path}").status_code == status


def test_a_server_without_a_ledger_gives_the_digest_of_the_tag(
    production: ModelVersion, alone: MLflowServer
) -> None:
    assert load(production.model_id, mlflow=alone.url).bundle_digest == production.bundle_digest
    with pytest.raises(NotFound, match="No version of nobody_1h has the alias"):
        load("nobody_1h", mlflow=alone.url)


def test_a_changed_file_is_refused(
    production: ModelVersion, services: Services, remote: dict[str, Any]
) -> None:
    source = services.registry.client.get_model_version(production.model_id, "1").source
    stored = artifacts_folder(services.settings.home) / "models" / source.removeprefix("models:/")
    (stored / "artifacts" / "artifacts" / "bundle" / "golden.json").write_text("{}")
    with pytest.raises(BundleCorrupt, match=r"golden\.json was changed"):
        load(production.model_id, **remote)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"token": None}, NotAuthenticated, "Log in"),
        ({"token": "clm_000000000000_wrong"}, NotAuthenticated, "refuses the token"),
        ({"mlflow": "http://127.0.0.1:9"}, RegistryUnavailable, "does not answer"),
        ({"mlflow": "sqlite:///mlflow.db"}, ArgumentRefused, "is no address of a server"),
        ({"mlflow": None}, ArgumentRefused, "pass mlflow= with the address"),
        ({"ledger": None}, ArgumentRefused, "ledger= belongs to registry="),
    ],
    ids=["no token", "a wrong token", "no server", "a database", "no address", "a ledger"],
)
def test_arguments_that_cannot_load_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str, remote: dict[str, Any]
) -> None:
    with pytest.raises(error, match=message):
        load("lightgbm_btcusd_1h", **(remote | changes))


def test_a_registry_needs_a_word_on_the_ledger(services: Services) -> None:
    with pytest.raises(ArgumentRefused, match="pass ledger= beside registry="):
        load("lightgbm_btcusd_1h", registry=services.registry)


@pytest.fixture(scope="module")
def api(services: Services) -> Iterator[Server]:
    with serving_api(services) as server:
        yield server


def test_the_address_of_another_server_is_named_as_such(api: Server, remote: dict[str, Any]) -> None:
    with pytest.raises(RegistryUnavailable, match="is it the address of MLflow's server"):
        load("lightgbm_btcusd_1h", **(remote | {"mlflow": api.url}))


def test_following_needs_no_stream(
    production: ModelVersion, make_version: MakeVersion, services: Services, remote: dict[str, Any]
) -> None:
    other = make_version(production.model_id)
    with follow(production.model_id, **remote, poll_seconds=0.1) as followed:
        assert followed.served is not None
        promote(services, other)
        assert followed.wait(30.0)
        assert followed.served.mlflow_version == other.mlflow_version


@pytest.fixture
def exchange(candles: Bars) -> Iterator[FakeExchange]:
    with FakeExchange(candles.to_frame()) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def test_the_trader_of_the_example_trades_what_is_promoted_rolled_back_and_halted(
    production: ModelVersion,
    make_version: MakeVersion,
    services: Services,
    remote: dict[str, Any],
    api: Server,
    exchange: FakeExchange,
) -> None:
    second = make_version(production.model_id)
    environment = {
        "MODEL": production.model_id,
        "MLFLOW_TRACKING_URI": remote["mlflow"],
        "CLM_API": api.url,
        "CLM_TOKEN": remote["token"],
        "EXCHANGE_URL": exchange.url,
    }
    trader = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_MLFLOW, EXAMPLE / "trader.py"], env=os.environ | environment
    )

    def orders() -> list[int]:
        assert trader.poll() is None
        return [order["version"] for order in exchange.orders]

    try:
        wait_until(lambda: orders() == [1])
        promote(services, second)
        began = time.monotonic()
        wait_until(lambda: orders() == [1, 2])
        assert time.monotonic() - began < 30.0, "the trader found the promotion by polling"
        services.promotions.rollback(production.model_id, ADA, "it loses", NOW)
        wait_until(lambda: orders() == [1, 2, 1])
        services.promotions.halt(production.model_id, ADA, "stop", NOW)
        wait_until(lambda: orders() == [1, 2, 1, 0])
        assert exchange.orders[-1]["position"] == 0.0
    finally:
        trader.kill()
        trader.wait()
    assert {order["position"] for order in exchange.orders[:3]} != {0.0}
