"""Refusal of a version whose registered model never trades, at promotion and at loading."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import promoting
import pytest

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import PreflightFailed, PromotionRefused
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role
from clm_core.market.bars import Bars
from clm_core.models import activity
from clm_core.models.bundle import save_bundle
from clm_core.models.catalog import recipe
from clm_core.services import Services
from clm_core.serving import load

MakeVersion = Callable[..., ModelVersion]
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADMIN = Actor(name="ada", role=Role.ADMIN)
FLAT: dict[str, Any] = {
    "label": "sign",
    "horizon": 24,
    "threshold": 0.4,
    "calibrate": False,
    "uniqueness_weights": False,
    "rounds": 1,
    "sizing": "none",
}
"""A single tree, whose probabilities vary and never leave the threshold: no position on any bar."""
PROBLEM = "the fitted model is flat on 100.0% of the newest 720 training bars"


@dataclass(frozen=True)
class Stored:
    """A bundle on disk."""

    folder: Path
    digest: str
    bars: Bars


@pytest.fixture(scope="module")
def flat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    bars = services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())
    made = recipe(ModelType.LIGHTGBM, FLAT, Costs())
    folder = tmp_path_factory.mktemp("flat") / "bundle"
    return Stored(folder, save_bundle(made.fit(bars, seed=1), made, folder, bars), bars)


@pytest.fixture
def version(make_version: MakeVersion, flat: Stored, model_id: str) -> ModelVersion:
    """A version judged PASS."""
    made = make_version(model_id, stored=flat)
    assert made.status is ModelStatus.CANDIDATE
    return made


def promote(services: Services, version: ModelVersion, **options: Any) -> None:
    promoting.promote(services, version.model_id, version.version, ADMIN, "tested", NOW, **options)


def test_a_passed_version_whose_model_never_trades_is_not_promoted(
    services: Services, version: ModelVersion
) -> None:
    with pytest.raises(PromotionRefused, match=PROBLEM):
        promote(services, version)
    assert services.ledger.promotions.champion(version.model_id) is None


def test_an_admin_who_forces_it_is_recorded_as_overruling(services: Services, version: ModelVersion) -> None:
    promote(services, version, force=True)
    [change] = services.ledger.promotions.committed(version.model_id)
    assert change.forced


@pytest.mark.parametrize("with_ledger", [True, False], ids=["ledger", "tags alone"])
def test_production_refuses_a_model_that_never_trades_and_its_label_loads_it_with_a_warning(
    services: Services, version: ModelVersion, with_ledger: bool
) -> None:
    promote(services, version, force=True)
    ledger = services.ledger if with_ledger else None
    with pytest.raises(PreflightFailed, match=f"never trades: {PROBLEM}"):
        load(version.model_id, registry=services.registry, ledger=ledger)
    with pytest.warns(UserWarning, match=f"has collapsed: {PROBLEM}"):
        served = load(version.model_id, version.version, registry=services.registry, ledger=ledger)
    assert served.mlflow_version == version.mlflow_version


def test_a_version_that_trades_is_promoted_and_loaded_without_a_warning(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    promote(services, make_version(model_id))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(model_id, registry=services.registry, ledger=services.ledger)


def test_the_record_of_the_activity_is_part_of_the_verified_bundle(flat: Stored) -> None:
    assert activity.read(flat.folder) is not None
    assert activity.FILE in (flat.folder / "manifest.json").read_text()
