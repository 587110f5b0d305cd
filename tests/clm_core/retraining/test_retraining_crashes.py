"""Crashes: a retrain killed at any step is ended by the next reaping, with nothing left half done."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from jobs import after
from processes import Parent

from clm_core.domain.faults import Fault
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger import audit_log
from clm_core.retraining import jobs
from clm_core.services import Services

REPETITIONS = int(os.environ.get("CHAOS_REPETITIONS", "2"))
STEPS = list(Fault)[list(Fault).index(Fault.JOB_RECORDED) :]
ENDS_AS = {Fault.JOB_RECORDED: JobStatus.PENDING, Fault.COMPLETED: JobStatus.COMPLETED}
"""Job status after a crash at the fault; FAILED for any other fault."""


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("fault", STEPS, ids=str)
def test_a_retrain_killed_at_any_step_is_completed_or_failed_as_a_whole(
    fault: Fault, repetition: int, services: Services, parent: Parent, verify_audit: Any
) -> None:
    job, ended = parent.retrain(fault)
    assert ended == -signal.SIGKILL
    # an hour later, after the expiry of the lease
    jobs.reap_dead_jobs(after(services, hours=1))
    job = services.ledger.job(job.id)
    assert job.status is ENDS_AS.get(fault, JobStatus.FAILED)
    assert_nothing_is_half_done(services, job)
    assert_every_change_is_an_entry(services, job)
    verify_audit()


def test_a_retrain_after_all_the_killed_ones_completes(services: Services, parent: Parent) -> None:
    job, ended = parent.retrain()
    assert (job.status, ended) == (JobStatus.COMPLETED, 0)
    assert_nothing_is_half_done(services, job)


@pytest.fixture
def full_disk(services: Services) -> Iterator[Path]:
    """MLflow's artifact folder on a disk with room for half a version."""
    folder = services.settings.home / "mlflow" / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "clm-tests", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("no mount command here to make a small disk")
    if (mounted := run(mount)).returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    assert run(["umount", str(folder)]).returncode == 0


def test_a_full_disk_fails_the_job_and_once_there_is_room_the_next_completes(
    services: Services, parent: Any, full_disk: Path
) -> None:
    # the small disk hides the bundles of earlier versions: a recipe without any
    failed, ended = parent.retrain(horizon=11)
    assert (failed.status, ended) == (JobStatus.FAILED, 1)
    assert "No space left on device" in str(failed.failure_cause)
    assert_nothing_is_half_done(services, failed)
    assert services.ledger.versions(training_job_id=failed.id) == []
    assert run(["mount", "-o", "remount,size=64m", str(full_disk)]).returncode == 0
    completed, ended = parent.retrain(horizon=11)
    assert (completed.status, ended) == (JobStatus.COMPLETED, 0)
    assert_nothing_is_half_done(services, completed)


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_nothing_is_half_done(services: Services, job: TrainingJob) -> None:
    """Ledger and MLflow agree on every version of the job, in line with the job's final status."""
    assert not (services.work / str(job.id)).exists()
    client = services.registry._client
    of_job = f"tags.`clm.job_id` = '{job.id}'"
    runs = client.search_runs([services.registry._experiment().experiment_id], of_job)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    in_mlflow = {
        int(stored.version): stored.tags["clm.status"] for stored in client.search_model_versions(of_job)
    }
    recorded = {
        version.mlflow_version: version.status.value
        for version in services.ledger.versions(training_job_id=job.id)
    }
    if job.status is JobStatus.COMPLETED:
        assert in_mlflow == recorded
        assert list(in_mlflow.values()) == [ModelStatus.CANDIDATE.value]
    else:
        # versions unknown to the ledger are failed in MLflow
        assert in_mlflow == dict.fromkeys(in_mlflow, ModelStatus.FAILED.value)
        assert in_mlflow | recorded == in_mlflow


def assert_every_change_is_an_entry(services: Services, job: TrainingJob) -> None:
    """The audit holds an entry for every change of status, in order, and no other entry."""
    audited = audit_log.entries(services.ledger._engine, job.model_id, limit=1000)[::-1]
    expected = {
        JobStatus.PENDING: ["job_created"],
        JobStatus.FAILED: ["job_created", "job_started", "job_failed"],
        JobStatus.COMPLETED: ["job_created", "job_started", "job_completed"],
    }
    assert [entry.action for entry in audited if entry.subject == str(job.id)] == expected[job.status]
    for version in services.ledger.versions(training_job_id=job.id):
        changes = [entry for entry in audited if entry.details.get("version") == version.version]
        path = ["training"]
        for entry in changes:
            if entry.action == "version_status_changed":
                assert entry.details["from"] == path[-1]
                path.append(str(entry.details["to"]))
        assert path[-1] == version.status
        assert [entry.action for entry in changes].count("version_registered") == 1
