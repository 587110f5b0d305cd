"""Loading by `mlflow.pyfunc`: the ledger is asked wherever it can be asked."""

import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import promoting
import pytest
from mlflow.exceptions import MlflowException
from mlflow_servers import MLflowServer

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import ConflictError
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.registry import scoring
from clm_core.registry.loading import advice_on
from clm_core.registry.promotion import Promotions
from clm_core.registry.serving_rights import LoadingAdvice
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.ADMIN)
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
MakeVersion = Callable[..., ModelVersion]
_seeds = itertools.count(1)


@pytest.fixture
def make_own(make_version: MakeVersion, bundle: Any, tmp_path: Path, model_id: str) -> MakeVersion:
    """Function that registers a version of a bundle that no other version has."""

    def make(**options: Any) -> ModelVersion:
        seed = next(_seeds)
        recipe = catalog.recipe(ModelType.LIGHTGBM, {"rounds": 2, "learning_rate": 0.01 * seed}, Costs())
        folder = tmp_path / str(seed) / "bundle"
        digest = save_bundle(recipe.fit(bundle.bars, seed=seed), recipe, folder, bundle.bars)
        stored = type(bundle)(folder, digest, bundle.bars)
        return make_version(model_id, stored=stored, **options)

    return make


@pytest.fixture
def good(make_own: MakeVersion, services: Services) -> ModelVersion:
    """Production version."""
    made = make_own()
    promoting.promote(services, made.model_id, made.version, ADA, "", NOW)
    return made


@pytest.fixture
def failed(make_own: MakeVersion, good: ModelVersion) -> ModelVersion:
    """Version of the same model that failed its gate."""
    return make_own(sharpe=-1.0)


@pytest.fixture(params=["database", "server"])
def registry_uri(
    request: pytest.FixtureRequest,
    services: Services,
    guarded: MLflowServer,
    tokens: Mapping[Role, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Address of MLflow for a trader: the database (`clm exec`), or the server and a token."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", tokens[Role.VIEWER])
    uri = guarded.url if request.param == "server" else services.database.url("mlflow")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def load(model_id: str, version: str) -> Any:
    return mlflow.pyfunc.load_model(f"models:/{model_id}{version}")


def test_the_production_version_loads(registry_uri: str, good: ModelVersion) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert load(good.model_id, "@production").metadata.metadata["timeframe"] == "1h"
        assert load(good.model_id, f"@{good.version}") is not None


def test_a_version_behind_a_moved_alias_is_refused_however_it_is_named(
    registry_uri: str, services: Services, good: ModelVersion, failed: ModelVersion
) -> None:
    services.registry.point(good.model_id, "production", failed.mlflow_version)
    for version in ("@production", f"@{failed.version}", f"/{failed.mlflow_version}"):
        with pytest.raises((ConflictError, MlflowException), match="clm reconcile"):
            load(good.model_id, version)
    services.promotions.reconcile(good.model_id, ADA, NOW)
    assert load(good.model_id, "@production") is not None


def test_a_failed_version_loads_by_its_label_with_a_warning(registry_uri: str, failed: ModelVersion) -> None:
    with pytest.warns(UserWarning, match=f"{failed.version} is failed: do not trade it"):
        assert load(failed.model_id, f"@{failed.version}") is not None


def test_a_version_under_promotion_loads(
    registry_uri: str, services: Services, good: ModelVersion, make_own: MakeVersion
) -> None:
    better = make_own(sharpe=3.0)

    class Killed(BaseException):
        pass

    class Crashing(Promotions):
        def _finish(self, *_: Any) -> Any:
            raise Killed

    with pytest.raises(Killed):
        Crashing(services.ledger, services.registry).promote(
            good.model_id, better.version, ADA, "", NOW, promoting.judge(services, NOW)
        )
    assert services.registry.aliased(good.model_id, "production") == better.mlflow_version
    assert load(good.model_id, "@production") is not None
    services.promotions.reconcile(good.model_id, ADA, NOW)


def test_a_registration_loads_no_model(
    make_version: MakeVersion, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[Path]()
    monkeypatch.setattr(scoring, "load_bundle", lambda folder, digest: loaded.append(folder))
    assert make_version(model_id).model_id == model_id
    assert loaded == []


def test_registering_the_bundle_of_a_failed_version_again_warns_nobody(
    make_version: MakeVersion, make_own: MakeVersion, bundle: Any, tmp_path: Path
) -> None:
    failed = make_own(sharpe=-1.0)
    [folder] = tmp_path.glob("*/bundle")
    stored = type(bundle)(folder, failed.bundle_digest, bundle.bars)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = make_version(failed.model_id, stored=stored)
    assert again.bundle_digest == failed.bundle_digest
    assert [each for each in caught if "do not trade it" in str(each.message)] == []


@pytest.mark.parametrize(
    "uri",
    ["postgresql+psycopg://postgres:@/clm_mlflow?host=/nonexistent", "http://127.0.0.1:9"],
    ids=["database", "server"],
)
def test_a_trader_goes_on_when_the_ledger_is_away(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clm.serving"):
        assert advice_on("0" * 64, uri) == LoadingAdvice()
    assert "the ledger does not answer" in caplog.text


@pytest.mark.parametrize(
    "uri", ["sqlite:///x.db", "postgresql+psycopg://ada@db.example/mlflow", "/tmp/mlruns"]
)
def test_another_store_of_mlflow_is_not_asked(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clm.serving"):
        assert advice_on("0" * 64, uri) == LoadingAdvice()
    assert caplog.text == ""


def test_a_server_of_mlflow_alone_is_loaded_from_without_a_question(
    alone: MLflowServer, good: ModelVersion, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "clm.serving"):
        assert advice_on(good.bundle_digest, alone.url) == LoadingAdvice()
    assert caplog.text == ""
