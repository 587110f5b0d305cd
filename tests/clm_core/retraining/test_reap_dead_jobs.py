"""Jobs with a dead or sleeping process, on a real ledger and a real MLflow."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import LeaseLost
from clm_core.domain.jobs import Lease, RetrainRequest, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType
from clm_core.ledger.audit_log import anchor_folder, entries, read_anchors, verify
from clm_core.retraining import jobs, steps
from clm_core.services import Services, open_ledger

REQUEST = RetrainRequest(
    model_type=ModelType.LIGHTGBM,
    symbol="BTCUSD",
    dataset_span_days=60,
    training_params={"rounds": 2},
    requested_by="tests",
)


@pytest.fixture
def job(services: Services) -> TrainingJob:
    return jobs.open_job(services, REQUEST)


@pytest.fixture
def later(services: Services) -> Services:
    """The services with a clock an hour ahead."""
    return replace(services, clock=lambda: services.clock() + timedelta(hours=1))


def run(services: Services, job: TrainingJob, work: Callable[[Lease], object]) -> None:
    with jobs.running(services, job) as lease:
        work(lease)


def train_and_register(services: Services, lease: Lease, job: TrainingJob) -> ModelVersion:
    bars = steps.fetch_bars(services, job)
    return steps.register(services, lease, job, bars, steps.train(services, job, bars))


def test_a_running_job_is_left_alone(services: Services, job: TrainingJob) -> None:
    with jobs.running(services, job):
        assert jobs.reap_dead_jobs(services) == []
    assert services.ledger.job(job.id).status is JobStatus.COMPLETED


def test_a_lease_is_renewed_while_the_job_runs(services: Services, job: TrainingJob) -> None:
    brief = replace(services, settings=services.settings.model_copy(update={"lease_seconds": 2.0}))
    with jobs.running(brief, job):
        for _ in range(4):
            time.sleep(0.75)
            assert jobs.reap_dead_jobs(brief) == []
    assert services.ledger.job(job.id).status is JobStatus.COMPLETED


def test_a_zombie_process_loses_its_job_and_leaves_no_version_behind(
    services: Services, later: Services, job: TrainingJob
) -> None:
    ended = list[TrainingJob]()

    def wake_up_late(lease: Lease) -> None:
        ended.extend(jobs.reap_dead_jobs(later))
        train_and_register(services, lease, job)

    with pytest.raises(LeaseLost):
        run(services, job, wake_up_late)
    assert [(each.id, each.status, each.failure_cause) for each in ended] == [
        (job.id, JobStatus.FAILED, "lost its lease")
    ]
    assert services.ledger.job(job.id) == ended[0]
    assert services.ledger.versions(training_job_id=job.id) == []
    assert mlflow_statuses(services, job) == {"run": {"FINISHED"}, "version": {"failed"}}


def test_an_error_after_the_loss_of_the_lease_does_not_hide_the_loss(
    services: Services, later: Services, job: TrainingJob
) -> None:
    def break_late(lease: Lease) -> None:
        jobs.reap_dead_jobs(later)
        raise OSError("disk full")

    with pytest.raises(LeaseLost) as lost:
        run(services, job, break_late)
    assert isinstance(lost.value.__context__, OSError)
    assert services.ledger.job(job.id).failure_cause == "lost its lease"


def test_an_unjudged_version_fails_with_its_job(
    services: Services, later: Services, job: TrainingJob
) -> None:
    def sleep_before_the_verdict(lease: Lease) -> None:
        train_and_register(services, lease, job)
        jobs.reap_dead_jobs(later)

    with pytest.raises(LeaseLost):
        run(services, job, sleep_before_the_verdict)
    [version] = services.ledger.versions(training_job_id=job.id)
    assert version.status is ModelStatus.FAILED
    assert mlflow_statuses(services, job)["version"] == {"failed"}


def test_a_reaper_that_died_halfway_is_made_good_by_the_next_reaping(
    services: Services, later: Services, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise ConnectionError("MLflow is away")

    services.ledger.start_job(job.id, "dead", services.clock(), timedelta(seconds=60))
    with monkeypatch.context() as patch:
        patch.setattr(type(services.registry), "abandon", unreachable)
        with pytest.raises(ConnectionError):
            jobs.reap_dead_jobs(later)
    assert services.ledger.job(job.id).status is JobStatus.IN_PROGRESS
    assert jobs.reap_dead_jobs(later) == []
    much_later = replace(services, clock=lambda: later.clock() + timedelta(hours=1))
    assert [ended.id for ended in jobs.reap_dead_jobs(much_later)] == [job.id]


KILLED_WHILE_STORING = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from clm_core.retraining import jobs, steps
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.services import open_services
from clm_core.settings import Settings

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

MLflowRegistry._create_version = killed
with open_services(Settings(lease_seconds=1)) as services:
    job = services.ledger.job(UUID(sys.argv[1]))
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        bundle = Path(sys.argv[2])
        services.registry.register(job, bundle, sys.argv[3], bars, {}, {}, services.clock())
"""


def test_after_kill_9_the_command_ends_the_job_and_its_open_run_in_mlflow(
    services: Services, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    trained = steps.train(services, job, steps.fetch_bars(services, job))
    script = [sys.executable, "-c", KILLED_WHILE_STORING, str(job.id), str(trained.bundle)]
    killed = subprocess.run([*script, trained.bundle_digest], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert services.ledger.jobs(status=JobStatus.IN_PROGRESS) == [services.ledger.job(job.id)]
    assert mlflow_statuses(services, job) == {"run": {"RUNNING"}, "version": set()}
    time.sleep(1)
    answer = CliRunner().invoke(app, ["jobs", "reap", "--json"], catch_exceptions=False)
    [ended] = json.loads(answer.stdout)
    assert (ended["id"], ended["failure_cause"]) == (str(job.id), "lost its lease")
    with open_ledger(services.database) as engine:
        assert verify(engine, read_anchors(anchor_folder(services.settings.home))).problems == ()
        actions = [entry.action for entry in entries(engine, limit=1000) if entry.subject == str(job.id)]
    assert actions == ["job_failed", "job_started", "job_created"]
    assert services.ledger.jobs(status=JobStatus.IN_PROGRESS) == []
    assert mlflow_statuses(services, job) == {"run": {"FAILED"}, "version": set()}
    assert not (services.work / str(job.id)).exists()


def test_the_next_retrain_reaps_the_dead_job(services: Services, later: Services, job: TrainingJob) -> None:
    services.ledger.start_job(job.id, "dead", services.clock(), timedelta(seconds=60))
    jobs.open_job(later, REQUEST)
    assert services.ledger.job(job.id).status is JobStatus.FAILED


def mlflow_statuses(services: Services, job: TrainingJob) -> dict[str, set[str]]:
    client, of_job = services.registry._client, f"tags.`clm.job_id` = '{job.id}'"
    runs = client.search_runs([services.registry._experiment()], of_job)
    return {
        "run": {run.info.status for run in runs},
        "version": {version.tags["clm.status"] for version in client.search_model_versions(of_job)},
    }
