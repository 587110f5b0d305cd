"""Runs of a kubernetes work pool: the Job that the worker creates, and the end of runs whose pods end.

The worker of prefect-kubernetes against a real Prefect server and a stand-in of the cluster's API server.
Takes minutes and needs the extra `kubernetes`: `make deploy-check` runs this file, `make test` skips it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from fake_cluster import FakeCluster, serving
from markets import add_markets

import deployments
from clm_core.domain.actors import Actor
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.triggers import TriggerRequest
from clm_core.domain.vocabulary import JobStatus, ModelType, Role
from clm_core.platform.prefect_server import own_server
from clm_core.services import Services, open_services
from clm_core.settings import Settings
from clm_core.triggers import intake
from clm_core.triggers.dispatch import start_pending_jobs
from deployments.container import write_template
from deployments.definitions import deploy

pytestmark = pytest.mark.skipif("DEPLOY_CHECK" not in os.environ, reason="part of `make deploy-check`")

CHART = Path(str(deployments.__file__)).parent / "kubernetes"
WITHIN_SECONDS = 60.0


def container_ended(reason: str) -> dict[str, Any]:
    ended = {"reason": reason, "exitCode": 137, "finishedAt": "2026-11-30T08:00:00Z"}
    return {"phase": "Failed", "containerStatuses": [{"name": "prefect-job", "state": {"terminated": ended}}]}


IMAGE_PULL = {
    "phase": "Pending",
    "containerStatuses": [
        {"name": "prefect-job", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    ],
}
QUOTA = 'jobs.batch "run" is forbidden: exceeded quota: trainings, requested: count/jobs.batch=1'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    with serving(cluster, tmp_path_factory.getbasetemp() / "kubeconfig"):
        yield cluster


@pytest.fixture(scope="module")
def installation(cluster: FakeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, deploy={"work_pool_type": "kubernetes"})
    config = next(
        each
        for each in yaml.safe_load_all((CHART / "kustomize" / "config.yaml").read_text())
        if each["kind"] == "ConfigMap"
    )
    with open_services(settings) as services, own_server(services.database, home / "prefect") as url:
        add_markets(home, 4)
        write_template(settings, json.loads(config["data"]["job-template.json"]))
        deploy(settings)
        with worker(home, url, tmp_path_factory.getbasetemp() / "kubeconfig"):
            yield services


@contextmanager
def worker(home: Path, prefect_url: str, kubeconfig: Path) -> Iterator[None]:
    environment = {
        "CLM_HOME": str(home),
        "CLM_DEPLOY__WORK_POOL_TYPE": "kubernetes",
        "PREFECT_HOME": str(home / "worker"),
        "PREFECT_API_URL": prefect_url,
        "PREFECT_WORKER_WEBSERVER_PORT": "0",
        "KUBECONFIG": str(kubeconfig),
        **dict(worker_variables()),
    }
    command = [sys.executable, "-P", "-m", "deployments.container", "worker"]
    with (home / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def worker_variables() -> Iterator[tuple[str, str]]:
    """Variables of the chart's worker for the integration."""
    parts = list(yaml.safe_load_all((CHART / "kustomize" / "worker.yaml").read_text()))
    deployment = next(each for each in parts if each["kind"] == "Deployment")
    for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
        if each["name"].startswith("PREFECT_INTEGRATIONS_"):
            yield each["name"], each["value"]


def ended_job(services: Services, symbol: str) -> tuple[TrainingJob, float]:
    """Job of a retrain once it has failed, and the seconds since its run was created."""
    training = RetrainRequest(model_type=ModelType.LIGHTGBM, symbol=symbol, dataset_span_days=90)
    actor = Actor(name="ada", role=Role.OPERATOR)
    answer = intake.submit(services, TriggerRequest(training=training, actor=actor, source="tests"))
    assert isinstance(answer.job_id, UUID)
    start_pending_jobs(services)
    begun = time.monotonic()
    while services.ledger.job(answer.job_id).status is not JobStatus.FAILED:
        assert time.monotonic() - begun < WITHIN_SECONDS * 2, services.ledger.job(answer.job_id)
        time.sleep(1)
        start_pending_jobs(services)
    return services.ledger.job(answer.job_id), time.monotonic() - begun


@pytest.mark.parametrize(
    ("symbol", "change", "word"),
    [
        ("M000USD", {"pod_status": container_ended("OOMKilled"), "fails": True}, "OOMKilled"),
        ("M001USD", {"pod_status": IMAGE_PULL, "fails": False}, "ImagePullError"),
        ("M002USD", {"pod_status": {"phase": "Failed", "reason": "Evicted"}, "fails": True}, "Evicted"),
        ("M003USD", {"refusal": QUOTA}, "exceeded quota"),
    ],
    ids=["memory", "image", "eviction", "quota"],
)
def test_a_run_that_kubernetes_ends_fails_its_job_with_the_reason(
    installation: Services, cluster: FakeCluster, symbol: str, change: dict[str, Any], word: str
) -> None:
    for name, value in change.items():
        setattr(cluster, name, value)
    job, seconds = ended_job(installation, symbol)
    print(f"{word}: {seconds:.0f} s: {job.failure_cause}")
    assert word in str(job.failure_cause)
    assert seconds < WITHIN_SECONDS


def test_the_job_of_a_run_is_isolated(installation: Services, cluster: FakeCluster) -> None:
    job = cluster.created[0]
    spec = job["spec"]
    pod = job["spec"]["template"]["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (
        0,
        25200,
        3600,
    )
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "clm"
    assert pod["securityContext"]["runAsUser"] == 10001
    [container] = pod["containers"]
    assert container["args"] == ["python", "-P", "-m", "clm_core.platform.run_engine"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    environment = {each["name"]: each for each in container["env"]}
    assert environment["PREFECT_API_AUTH_STRING"]["valueFrom"] == {
        "secretKeyRef": {"name": "clm", "key": "prefect-auth"}
    }
    assert environment["CLM_DATABASE_URL_FILE"]["value"] == "/run/secrets/clm/database-url"
    assert environment["PREFECT_HOME"]["value"] == "/var/lib/clm/home/prefect"
    assert "CLM_DATABASE_URL" not in environment
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "run"
    assert labels["app.kubernetes.io/instance"] == "clm"
