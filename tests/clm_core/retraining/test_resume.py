"""Resumption: a retrain that failed after the training is repeated without training."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from jobs import after, end_all_jobs

from clm_core.domain.errors import RegistryUnavailable
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.vocabulary import ModelType
from clm_core.retraining import jobs, steps
from clm_core.services import Services

REQUEST = RetrainRequest(
    model_type=ModelType.LIGHTGBM,
    symbol="BTCUSD",
    timeframe="1h",
    dataset_span_days=61,
    training_params={"rounds": 2},
    requested_by="tests",
)


@pytest.fixture(autouse=True)
def kept(services: Services) -> Iterator[Path]:
    """Folder of the training results kept from a failed retrain."""
    end_all_jobs(services)
    yield services.work / "trained" / REQUEST.model_id
    end_all_jobs(services)


def steps_of(services: Services, request: RetrainRequest, *, fails: bool) -> set[str]:
    """Names of the steps announced by a retrain; with `fails`, the retrain fails right after the training."""
    announced = set[str]()
    own = replace(services, announce=lambda step, share: announced.add(step))
    job = jobs.open_job(own, request)
    try:
        with jobs.running(own, job):
            steps.train(own, job, steps.fetch_bars(own, job))
            if fails:
                raise RegistryUnavailable("MLflow is away")
    except RegistryUnavailable:
        pass
    return announced


def test_the_same_retrain_takes_over_the_training_results(services: Services, kept: Path) -> None:
    assert "Final fit" in steps_of(services, REQUEST, fails=True)
    assert kept.exists()
    assert steps_of(services, REQUEST, fails=True) == {"Reusing the earlier training"}
    assert steps_of(services, REQUEST, fails=False) == {"Reusing the earlier training"}
    assert not kept.exists()


def test_a_retrain_with_other_parameters_trains(services: Services) -> None:
    steps_of(services, REQUEST, fails=True)
    other = REQUEST.model_copy(update={"training_params": {"rounds": 3}})
    assert "Final fit" in steps_of(services, other, fails=False)


def test_a_damaged_bundle_is_trained_again(services: Services, kept: Path) -> None:
    steps_of(services, REQUEST, fails=True)
    (kept / "bundle" / "trees.txt").write_text("tree\n")
    assert "Final fit" in steps_of(services, REQUEST, fails=False)


def test_reaping_keeps_the_training_results_of_a_killed_retrain(services: Services, kept: Path) -> None:
    job = jobs.open_job(services, REQUEST)
    _leave_in_the_middle(services, job)
    jobs.reap_dead_jobs(after(services, hours=1))
    assert kept.exists()
    assert steps_of(services, REQUEST, fails=False) == {"Reusing the earlier training"}


def _leave_in_the_middle(services: Services, job: TrainingJob) -> None:
    services.ledger.start_job(job.id, "tests", services.clock(), timedelta(minutes=1))
    steps.train(services, job, steps.fetch_bars(services, job))
