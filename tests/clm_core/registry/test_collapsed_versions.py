"""Refusal of a version whose registered model collapsed, at promotion and at loading."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import promoting
import pytest

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import PreflightFailed, PromotionRefused
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType, Role
from clm_core.evidence.soundness import Skill
from clm_core.market.bars import Bars
from clm_core.models import activity
from clm_core.models.bundle import save_bundle
from clm_core.models.catalog import recipe
from clm_core.registry.promotion import Promotions
from clm_core.registry.scoring import Scorer
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
    with pytest.warns(UserWarning, match=f"is not sound: {PROBLEM}"):
        served = load(version.model_id, version.version, registry=services.registry, ledger=ledger)
    assert served.mlflow_version == version.mlflow_version


UNSKILLED = (
    "the registered model's forecast is worse than a constant: skill -3.00%, 3.0 standard errors below"
)


@pytest.fixture(scope="module")
def stored_with(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stored]:
    """Function that stores a trading model with a skill, or with none."""
    bars = services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())
    made = recipe(ModelType.LIGHTGBM, {"rounds": 2, "sizing": "none"}, Costs())
    fitted: Any = made.fit(bars, seed=1)

    def stored(**skill: float) -> Stored:
        others = {name: value for name, value in fitted.train_metrics.items() if "skill" not in name}
        folder = tmp_path_factory.mktemp("measured") / "bundle"
        model = replace(fitted, inner=replace(fitted.inner, train_metrics=others | skill))
        return Stored(folder, save_bundle(model, made, folder, bars), bars)

    return stored


@pytest.fixture(scope="module")
def unskilled(stored_with: Callable[..., Stored]) -> Stored:
    return stored_with(skill=-0.03, skill_error=0.01)


def test_a_passed_version_with_a_forecast_worse_than_a_constant_is_neither_promoted_nor_rolled_back_to(
    services: Services, make_version: MakeVersion, unskilled: Stored, model_id: str
) -> None:
    first = make_version(model_id, stored=unskilled)
    with pytest.raises(PromotionRefused, match=UNSKILLED):
        promote(services, first)
    promote(services, first, force=True)
    assert services.ledger.promotions.committed(model_id)[-1].forced
    promote(services, make_version(model_id, now=NOW + timedelta(seconds=5)))
    with pytest.raises(PromotionRefused, match=UNSKILLED):
        services.promotions.rollback(model_id, ADMIN, "tested", NOW)


def test_a_forced_version_without_skill_is_loaded_with_a_warning_that_names_who_forced_it(
    services: Services, make_version: MakeVersion, unskilled: Stored, model_id: str
) -> None:
    promote(services, make_version(model_id, stored=unskilled), force=True)
    with pytest.warns(UserWarning, match=rf"{UNSKILLED} zero \(ada forced the promotion \(tested\)\)"):
        served = load(model_id, registry=services.registry, ledger=services.ledger)
    assert served.skill == Skill(-0.03, 0.01)
    with pytest.warns(UserWarning, match="the ledger alone knows whether an admin forced"):
        load(model_id, registry=services.registry, ledger=None)


def test_production_refuses_a_version_without_skill_that_nobody_forced(
    services: Services,
    make_version: MakeVersion,
    unskilled: Stored,
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = make_version(model_id, stored=unskilled)
    # a promotion by a release that asked for no skill
    monkeypatch.setattr(Promotions, "_problems_of_bundle", lambda *_: ())
    promote(services, version)
    with pytest.raises(PreflightFailed, match=f"may not serve: {UNSKILLED}"):
        load(model_id, registry=services.registry, ledger=services.ledger)
    with pytest.warns(UserWarning, match=f"is not sound: {UNSKILLED}"):
        load(model_id, version.version, registry=services.registry, ledger=services.ledger)


@pytest.mark.parametrize(
    "skill",
    [{}, {"validation_log_loss": 0.7, "validation_log_loss_of_constant": 0.6}],
    ids=["no loss", "loss of an earlier release"],
)
def test_a_version_without_a_measured_skill_is_loaded_and_the_log_says_so(
    skill: dict[str, float],
    services: Services,
    make_version: MakeVersion,
    stored_with: Callable[..., Stored],
    model_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    promote(services, make_version(model_id, stored=stored_with(**skill)))
    with caplog.at_level(logging.INFO, "clm.serving"), warnings.catch_warnings():
        warnings.simplefilter("error")
        load(model_id, registry=services.registry, ledger=services.ledger)
    assert "without a check of its skill: no skill against a constant was measured" in caplog.text


def test_mlflow_loads_an_unsound_version_with_a_warning(unskilled: Stored) -> None:
    config = {
        "bundle_digest": unskilled.digest,
        "symbol": "BTCUSD",
        "timeframe": "1h",
        "calendar": str(unskilled.bars.calendar),
    }
    with pytest.warns(UserWarning, match=f"the version of BTCUSD 1h is not sound: {UNSKILLED}"):
        Scorer.load(unskilled.folder, config)


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
