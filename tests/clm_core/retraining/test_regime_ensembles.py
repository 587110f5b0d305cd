"""Ensembles with a pool of members for each regime, of the recipes of a market."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from clm_core.domain.errors import InvalidTrainingParams
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.models.ensemble import EnsembleModel
from clm_core.retraining import jobs, steps
from clm_core.retraining.reproduce import reproduce
from clm_core.services import Services
from clm_core.serving import load

POOLS = {"combine": "regime", "members_from": "market", "folds": 2}


SYMBOL = f"R{uuid.uuid4().hex[:8]}".upper()
MODEL = f"ensemble_{SYMBOL.lower()}_1h"


@pytest.fixture(scope="module")
def quick(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Services with the bundled BTCUSD bars as a separate market, without the versions of other tests."""
    folder: Path = tmp_path_factory.mktemp("market")
    bars = services.market.bars("BTCUSD", "1h", closed_by=services.clock())
    SeriesStore(folder / "data").add(replace(bars, symbol=SYMBOL), "tests", services.clock())
    changed = {"walk_forward": WalkForwardPlan(folds=2, first_train_fraction=0.6)}
    settings = services.settings.model_copy(update=changed)
    return replace(services, settings=settings, open_market=lambda: MarketData(folder))


def request_for(kind: str, symbol: str = SYMBOL, **params: Any) -> RetrainRequest:
    """Request on two years of BTCUSD, which has both regimes."""
    return RetrainRequest.model_validate(
        {
            "model_type": kind,
            "symbol": symbol,
            "dataset_span_days": 600,
            "training_params": params,
            "requested_by": "tests",
        }
    )


def retrain(services: Services, request: RetrainRequest, status: ModelStatus) -> ModelVersion:
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        services.ledger.set_version_status(version.model_id, version.version, status, services.clock(), lease)
    return services.ledger.version(version.model_id, version.version)


@pytest.fixture(scope="module")
def rules(quick: Services) -> tuple[ModelVersion, ...]:
    statuses = {
        "momentum": ModelStatus.CANDIDATE,
        "ma_cross": ModelStatus.SHADOW,
        "breakout": ModelStatus.FAILED,
    }
    return tuple(retrain(quick, request_for(kind), status) for kind, status in statuses.items())


@pytest.fixture(scope="module")
def ensemble(quick: Services, rules: tuple[ModelVersion, ...]) -> ModelVersion:
    return retrain(quick, request_for("ensemble", **POOLS, allow_failed=True), ModelStatus.CANDIDATE)


def members(params: dict[str, Any]) -> set[str]:
    return {each["asked"] for each in params["members"]}


def test_the_members_are_the_newest_versions_of_the_recipes_of_the_market(
    quick: Services, rules: tuple[ModelVersion, ...]
) -> None:
    names = {f"{each.model_id}@{each.version}" for each in rules}
    all_recipes = jobs.new_job(quick, request_for("ensemble", **POOLS, allow_failed=True)).training_params
    assert names <= members(all_recipes)
    passed = jobs.new_job(quick, request_for("ensemble", **POOLS)).training_params
    assert members(passed) & names == {f"{each.model_id}@{each.version}" for each in rules[:2]}
    # repeated later, the members are the newest of that moment
    repeated = jobs.new_job(quick, request_for("ensemble", **passed | {"members": passed["members"][:2]}))
    assert repeated.training_params == passed


def test_a_market_with_fewer_than_two_recipes_is_refused(clm: Services) -> None:
    with pytest.raises(InvalidTrainingParams, match="has 0 recipes to choose from besides 0 whose newest"):
        jobs.new_job(clm, request_for("ensemble", "BTCUSD", **POOLS))


def test_a_registered_ensemble_serves_the_pool_of_the_regime(
    quick: Services, ensemble: ModelVersion, rules: tuple[ModelVersion, ...]
) -> None:
    served = load(MODEL, ensemble.version, registry=quick.registry, ledger=quick.ledger)
    inner = served.model.inner
    assert isinstance(inner, EnsembleModel)
    assert inner.by_regime is not None
    assert {part.digest for part in inner.members} >= {each.bundle_digest for each in rules}
    for pool in inner.by_regime.weights:
        assert sum(pool) in (0.0, pytest.approx(1.0))
        assert np.count_nonzero(pool) <= 2
    bars = quick.market.bars(SYMBOL, "1h", days=600, closed_by=quick.clock())
    labels = inner.by_regime.reader.labels(bars)
    assert set(labels) == {-1, 0, 1}
    by_member = np.array([part.positions(bars) for part in inner.parts])
    weights = np.array([*inner.by_regime.weights, [0.0] * len(inner.members)])
    expected = (weights[labels].T * by_member).sum(axis=0)
    np.testing.assert_allclose(inner.positions(bars), expected, atol=1e-12)
    metrics = ensemble.train_metrics
    own = f"{rules[0].model_id}.{rules[0].version}"
    assert {f"weight_calm.{own}", f"weight_turbulent.{own}", f"weight.{own}"} <= metrics.keys()


def test_the_pyfunc_of_such_an_ensemble_gives_the_positions_of_its_window(
    quick: Services, ensemble: ModelVersion
) -> None:
    served = load(MODEL, ensemble.version, registry=quick.registry, ledger=quick.ledger)
    needed = served.model.bars_needed
    assert needed is not None
    assert needed >= 152 * 24
    bars = quick.market.bars(SYMBOL, "1h", days=600, closed_by=quick.clock())
    window = bars[-needed:].to_frame().reset_index(names="timestamp")
    with quick.registry.package(ensemble.model_path) as package:
        pyfunc = mlflow.pyfunc.load_model(str(package))
    assert pyfunc.predict(window)["position"].iloc[-1] == served.model.positions(bars)[-1]


def test_such_an_ensemble_is_reproduced(quick: Services, ensemble: ModelVersion) -> None:
    reproduction = reproduce(quick, ensemble)
    assert (reproduction.reproduced, reproduction.differences) == (True, ())
