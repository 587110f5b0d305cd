"""Registration by two retrains of the same model at the same moment."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.retraining import jobs, steps


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
