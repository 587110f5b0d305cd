"""Jobs with a dead or sleeping process, on a real ledger and a real MLflow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from installations import wait_until
from jobs import after
from patience import PATIENT_SECONDS
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import LeaseLost
from clm_core.domain.jobs import Lease, RetrainRequest, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType
from clm_core.ledger.audit_log import anchor_folder, entries, read_anchors, verify
from clm_core.platform.database import revive
from clm_core.retraining import jobs, steps
from clm_core.services import Services, open_ledger, open_services
from clm_core.settings import Settings

REQUEST = RetrainRequest(
    model_type=ModelType.LIGHTGBM,
    symbol="BTCUSD",
    dataset_span_days=60,
    training_params={"rounds": 2},
    requested_by="tests",
)


@pytest.fixture
def services(services: Services) -> Services:
    """Services that wait for a heartbeat as long as those of the product."""
    return replace(services, pause=time.sleep)


@pytest.fixture
def job(services: Services) -> TrainingJob:
    return jobs.open_job(services, REQUEST)


@pytest.fixture
def later(services: Services) -> Services:
    """The services an hour later."""
    return after(services, hours=1)


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


def ahead(services: Services, **time: float) -> Services:
    """The services of a reaper whose clock is wrong, and who waits as long as any other."""
    return replace(services, clock=lambda: services.clock() + timedelta(**time))


def with_brief_lease(services: Services) -> Services:
    return replace(services, settings=services.settings.model_copy(update={"lease_seconds": 6.0}))


@pytest.mark.parametrize("hours", [1, -24])
def test_a_reaper_with_a_wrong_clock_leaves_a_living_job_alone(
    hours: int, services: Services, job: TrainingJob
) -> None:
    with jobs.running(with_brief_lease(services), job) as lease:
        wrong = ahead(services, hours=hours)
        assert lease.job_id in {suspect.job_id for suspect in services.ledger.suspect_leases(wrong.clock())}
        assert job.id not in {ended.id for ended in jobs.reap_dead_jobs(wrong)}
    assert services.ledger.job(job.id).status is JobStatus.COMPLETED


def test_a_step_of_the_clock_between_two_heartbeats_costs_no_job(
    services: Services, job: TrainingJob
) -> None:
    steps_taken = [timedelta(0)]
    brief = with_brief_lease(services)
    stepped = replace(brief, clock=lambda: services.clock() + steps_taken[-1])
    with jobs.running(stepped, job):
        for days in (1, -1, 0):
            steps_taken.append(timedelta(days=days))
            assert job.id not in {ended.id for ended in jobs.reap_dead_jobs(stepped)}
    assert services.ledger.job(job.id).status is JobStatus.COMPLETED


def test_a_dead_job_whose_lease_was_set_before_the_clock_was_put_back_is_ended(
    services: Services, job: TrainingJob
) -> None:
    tomorrow = services.clock() + timedelta(days=1)
    services.ledger.start_job(job.id, "dead", tomorrow, timedelta(seconds=2))
    assert [ended.id for ended in jobs.reap_dead_jobs(services)] == [job.id]


def test_the_wait_for_a_heartbeat_is_announced_and_costs_nothing_without_an_expired_lease(
    services: Services, later: Services, job: TrainingJob
) -> None:
    announced = list[str]()
    waits = list[float]()
    heard = replace(later, announce=lambda step, share: announced.append(step), pause=waits.append)
    assert jobs.reap_dead_jobs(heard) == []
    assert (announced, waits) == ([], [])
    services.ledger.start_job(job.id, "trainer-3:4711", services.clock(), timedelta(seconds=60))
    jobs.reap_dead_jobs(heard)
    assert (announced, waits) == (["Waiting 30 s for a heartbeat of trainer-3:4711"], [30.0])


AWAY = """
import sys, time
from uuid import UUID
from clm_core.retraining import jobs
from clm_core.services import open_services
from clm_core.settings import Settings

with open_services(Settings(lease_seconds=2)) as services:
    with jobs.running(services, services.ledger.job(UUID(sys.argv[1]))):
        print("running", flush=True)
        sys.stdin.readline()
"""


def test_a_job_survives_an_outage_of_the_database_longer_than_its_lease(
    make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home("outage")
    monkeypatch.setenv("CLM_HOME", str(home))
    with open_services(Settings(home=home)) as own:
        job = jobs.open_job(own, REQUEST)
        script = [sys.executable, "-c", AWAY, str(job.id)]
        with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "running\n"
            [before] = own.ledger.suspect_leases(own.clock() + timedelta(days=1))
            server = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
            os.kill(server, signal.SIGKILL)
            time.sleep(4)
            wait_until(lambda: revive(home))
            assert before.expires_at < own.clock()
            assert jobs.reap_dead_jobs(own) == []
            holder.communicate("\n", PATIENT_SECONDS)
        assert own.ledger.job(job.id).status is JobStatus.COMPLETED


def test_a_process_whose_machine_is_five_minutes_ahead_reads_the_clock_of_the_database(
    services: Services, job: TrainingJob
) -> None:
    with (
        jobs.running(services, job),
        time_machine.travel(datetime.now(UTC) + timedelta(minutes=5)),
        open_services(services.settings) as displaced,
    ):
        assert displaced.clock() < datetime.now(UTC) - timedelta(minutes=3)
        assert jobs.reap_dead_jobs(displaced) == []
    assert services.ledger.job(job.id).status is JobStatus.COMPLETED


@pytest.mark.chaos
@pytest.mark.parametrize("offset", ["+5m", "-5m", "+1d", "-1d"])
def test_the_command_ends_no_living_job_under_faketime(
    offset: str, services: Services, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed: apt install faketime")
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    command = ["faketime", "-f", offset, Path(sys.executable).with_name("clm"), "jobs", "reap", "--json"]
    with jobs.running(services, job):
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        assert json.loads(answer.stdout) == []
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
    assert [ended.id for ended in jobs.reap_dead_jobs(after(services, hours=2))] == [job.id]


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
        services.registry.register(job, bundle, sys.argv[3], bars, {}, {}, "v20260101_000000")
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
    client = services.registry._client
    of_job = f"tags.`clm.job_id` = '{job.id}'"
    runs = client.search_runs([services.registry._experiment().experiment_id], of_job)
    return {
        "run": {run.info.status for run in runs},
        "version": {version.tags["clm.status"] for version in client.search_model_versions(of_job)},
    }
