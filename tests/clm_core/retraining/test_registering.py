"""Registration of versions of the same model at the same moment, and beside a promotion."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import promoting
import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from patience import PATIENT_SECONDS

from clm_core.domain.actors import PROTECTION, SYSTEM, Actor
from clm_core.domain.errors import AlreadyExists
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.registry.restoration import Restorations
from clm_core.retraining import jobs, steps
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]


def test_versions_registered_within_the_same_second_have_different_labels(services, tmp_path):
    moment = services.clock()
    together = Barrier(2)
    stopped = replace(services, clock=lambda: moment)
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="BTCUSD",
        dataset_span_days=60,
        training_params={"rounds": 2},
        requested_by="twins",
    )
    first = jobs.open_job(services, request)
    bars = steps.fetch_bars(services, first)
    trained = steps.train(services, first, bars)
    bundle = tmp_path / "bundle"  # the job's own bundle is deleted with the job
    trained = replace(trained, bundle=Path(shutil.copytree(trained.bundle, bundle)))

    def retrain(number: int) -> ModelVersion:
        job = first if number == 0 else jobs.open_job(services, request)
        with jobs.running(services, job) as lease:
            together.wait()
            return steps.register(stopped, lease, job, bars, trained)

    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(retrain, range(2)))
    assert versions[0].version != versions[1].version
    for version in versions:
        number = services.registry.aliased(version.model_id, version.version)
        assert number == version.mlflow_version


def test_a_promotion_and_a_rollback_go_through_while_an_upload_hangs(
    services: Services, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = RetrainRequest(
        model_type=ModelType.XGBOOST,
        symbol="EURUSD",
        dataset_span_days=90,
        training_params={"rounds": 2},
        requested_by="uploader",
    )
    good = make_version(request.model_id)
    worse = make_version(request.model_id)
    job = jobs.open_job(services, request)
    bars = steps.fetch_bars(services, job)
    trained = steps.train(services, job, bars)
    uploading = Event()
    rolled_back = Event()
    write = LocalArtifactRepository.log_artifacts

    def hanging_store(*arguments: Any) -> None:
        uploading.set()
        assert rolled_back.wait(PATIENT_SECONDS)
        write(*arguments)

    def upload() -> ModelVersion:
        with jobs.running(services, job) as lease:
            return steps.register(services, lease, job, bars, trained)

    admin = Actor(name="ada", role=Role.ADMIN)
    now = services.clock()
    promoting.promote(services, good.model_id, good.version, admin, "a good version", now)
    monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", hanging_store)
    with ThreadPoolExecutor(1) as pool:
        registered = pool.submit(upload)
        try:
            assert uploading.wait(PATIENT_SECONDS)
            promoting.promote(services, good.model_id, worse.version, admin, "newer", now)
            assert services.promotions.reconcile(good.model_id, SYSTEM, now) == []
            change = services.promotions.rollback(good.model_id, PROTECTION, "an emergency", now)
            assert not registered.done()
        finally:
            rolled_back.set()
        version = registered.result(PATIENT_SECONDS)
    assert change.to_version == good.version
    assert version.version not in {good.version, worse.version}
    # the champion of the moment at which the upload ended
    assert version.parent_version == good.version


def test_an_upload_does_not_wait_for_another_upload_of_the_model(services: Services) -> None:
    model_id = "lightgbm_labels_1h"
    now = services.clock()
    labels = services.ledger.labels
    with labels.reserved(model_id, now, set) as first, labels.reserved(model_id, now, set) as second:
        assert first < second
    with labels.reserved(model_id, now, set) as freed, labels.reserved(model_id, now, {freed}.copy) as third:
        assert (freed, third) == (first, second)


def test_a_label_is_read_as_taken_after_its_lock_is_held(services: Services) -> None:
    model_id = "lightgbm_late_labels_1h"
    now = services.clock()
    stored = set[str]()
    labels = services.ledger.labels
    with labels.reserved(model_id, now, stored.copy) as first:
        stored.add(first)
    with labels.reserved(model_id, now, stored.copy) as second:
        assert second != first


def test_a_version_is_not_stored_under_the_label_of_another_version(
    services: Services, make_version: MakeVersion, bundle: Any
) -> None:
    version = make_version("lightgbm_twice_1h")
    job = services.ledger.job(version.training_job_id)
    with pytest.raises(AlreadyExists, match=f"has a version {version.version} already"):
        services.registry.register(job, bundle.folder, bundle.digest, bundle.bars, {}, {}, version.version)
    assert services.registry.aliased(version.model_id, version.version) == version.mlflow_version


def test_a_retrain_after_the_deletion_of_its_model_gets_a_label_and_a_number_of_its_own(
    services: Services,
) -> None:
    moment = services.clock()
    stopped = replace(services, clock=lambda: moment)
    request = RetrainRequest(
        model_type=ModelType.XGBOOST,
        symbol="BTCUSD",
        dataset_span_days=60,
        training_params={"rounds": 2},
        requested_by="deleted",
    )

    def retrain() -> ModelVersion:
        job = jobs.open_job(services, request)
        with jobs.running(services, job) as lease:
            bars = steps.fetch_bars(services, job)
            return steps.register(stopped, lease, job, bars, steps.train(services, job, bars))

    first = retrain()
    services.registry.client.delete_registered_model(first.model_id)
    second = retrain()
    assert second.mlflow_version > first.mlflow_version
    assert second.version > first.version
    [restored] = (
        Restorations(services.promotions)
        .restore(first.model_id, first.version, SYSTEM, "tested", moment)
        .versions
    )
    assert restored.version.mlflow_version > second.mlflow_version
    assert services.registry.aliased(first.model_id, first.version) == restored.version.mlflow_version
