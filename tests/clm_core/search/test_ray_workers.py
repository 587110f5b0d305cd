"""Searches on a Ray cluster that requires a token and loses one of its two machines."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tunings import a_request, quick, tune

from clm_core.domain.errors import ServerUnavailable
from clm_core.domain.evolution import EvolveRequest
from clm_core.domain.searches import Placement
from clm_core.domain.strategy_search import StrategySearchRequest
from clm_core.domain.tuning import TrialState
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.search import evolution, tuning
from clm_core.search.strategy_search import open_strategy_search, search_strategies, verify
from clm_core.services import Services

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra")
QUICKLY = {"health_check_period_ms": 500, "health_check_failure_threshold": 2, "health_check_timeout_ms": 500}
"""Ray notices a lost machine after a second instead of a minute."""
NODE: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80_000_000}


@dataclass(frozen=True)
class Cluster:
    """A head without processors, and two nodes with a processor each, all on this machine."""

    machines: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        return str(self.machines.address)

    def complete(self) -> None:
        while len(self.nodes) < 2:
            self.nodes.append(self.machines.add_node(**NODE, num_cpus=1))

    def lose_a_machine(self) -> None:
        self.machines.remove_node(self.nodes.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests: Ray reads the token of a process once.

    On its own address, for nothing finds a cluster on 127.0.0.1: Ray takes that for the address.
    """
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(uuid.uuid4().hex)
    folder = tempfile.mkdtemp(prefix="ray-")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        # Ray notes the cluster started last in this folder, whatever the temp_dir of the cluster
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        from ray.cluster_utils import Cluster as RayCluster

        head = {**NODE, "num_cpus": 0, "temp_dir": folder, "_system_config": QUICKLY}
        machines = RayCluster(initialize_head=True, head_node_args=head)
        try:
            yield Cluster(machines, [])
        finally:
            machines.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(own_cluster: Cluster) -> Cluster:
    own_cluster.complete()
    return own_cluster


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    bars = services.market.bars("BTCUSD", "1h", days=100, closed_by=services.clock())
    SeriesStore(tmp_path / "data").add(replace(bars, symbol="RAYUSD"), "tests", services.clock())
    return quick(replace(services, open_market=lambda: MarketData(tmp_path)))


@pytest.mark.chaos
def test_every_trial_ends_once_with_the_local_result_although_a_machine_is_lost(
    clm: Services, cluster: Cluster
) -> None:
    request = a_request(symbol="RAYUSD", trials=5, holdout=0.0, on="ray", ray_address=cluster.address)
    lost = list[str]()

    def announce(step: str, share: float) -> None:
        if not lost and not step.startswith("0 of"):
            lost.append(step)
            cluster.lose_a_machine()

    watching = replace(clm, announce=announce)
    result = tuning.search(watching, tuning.open_tuning(clm, request), request)
    assert lost
    assert [trial.number for trial in result.trials] == list(range(5))
    assert {trial.state for trial in result.trials} <= {TrialState.COMPLETE, TrialState.DEGENERATE}
    records = clm.ledger.trials.records("RAYUSD", "1h")
    assert len(records) == 5
    assert all(len(record.daily) for record in records)
    here = tune(clm, a_request(symbol="RAYUSD", trials=1, holdout=0.0))
    assert here.trials[0].sharpe_ratio == result.trials[0].sharpe_ratio


@pytest.mark.chaos
def test_an_evolution_finds_what_it_finds_on_this_machine_although_a_machine_is_lost(
    clm: Services, cluster: Cluster
) -> None:
    lost = list[str]()

    def announce(step: str, share: float) -> None:
        if not lost and step.startswith("Generation 1"):
            lost.append(step)
            cluster.lose_a_machine()

    watching = replace(clm, announce=announce)
    fields = {
        "model_type": "other",
        "plugin": "ridge",
        "symbol": "RAYUSD",
        "dataset_span_days": 90,
        "population": 4,
        "generations": 2,
    }
    places = {"there": {"on": "ray", "ray_address": cluster.address}, "here": {"workers": 1}}
    results = []
    for name, place in places.items():
        request = EvolveRequest.model_validate(fields | place | {"name": name})
        opened = evolution.open_evolution(clm, request)
        results.append(evolution.search(watching, opened, request.placement))
    there, here = (each.model_dump(include={"generations", "best_params", "unseen"}) for each in results)
    assert lost
    assert there == here


@pytest.mark.chaos
def test_a_search_for_strategies_finds_the_same_bits_although_a_machine_is_lost(
    clm: Services, cluster: Cluster
) -> None:
    lost = list[str]()

    def announce(step: str, share: float) -> None:
        if not lost and step.startswith("Generation 2"):
            lost.append(step)
            cluster.lose_a_machine()

    fields = {
        "families": ["momentum", "breakout"],
        "symbol": "RAYUSD",
        "population": 12,
        "generations": 4,
        "name": "rules",
    }
    request = StrategySearchRequest.model_validate(
        fields | {"on": "ray", "ray_address": cluster.address, "workers": 2}
    )
    definition = open_strategy_search(clm, request)
    result = search_strategies(replace(clm, announce=announce), definition, 4, request.placement)
    assert lost
    assert (result.interrupted, result.candidates) == (False, 60)
    assert verify(clm, definition.name, Placement(workers=1)).differences == ()


def test_the_error_for_an_absent_cluster_names_its_address_and_the_remedy(clm: Services) -> None:
    request = a_request(symbol="RAYUSD", on="ray", ray_address="127.0.0.1:1")
    opened = tuning.open_tuning(clm, request)
    with pytest.raises(ServerUnavailable, match=r"Cannot connect to Ray at 127.0.0.1:1: .* --ray-address"):
        tuning.search(clm, opened, request)
