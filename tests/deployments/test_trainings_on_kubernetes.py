"""Trainings in Jobs of their own: the chart gives settings of CLM, and the Job made of them is valid.

Needs helm and the schemas of Kubernetes: `make deploy-check` runs this file, `make test` skips it.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainings import a_spec, three_bars

import deployments
from clm_core.domain.training_settings import TrainingPlace
from clm_core.retraining.training_following import TrainingTask
from clm_core.retraining.training_manifest import job_manifest
from clm_core.settings import Settings, load_settings

pytestmark = pytest.mark.skipif("DEPLOY_CHECK" not in os.environ, reason="part of `make deploy-check`")

FOLDER = Path(str(deployments.__file__)).parent / "kubernetes"
TOOLS = FOLDER.parents[1] / ".venv-deploy"
JOB = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    values = FOLDER / "values" / "trainings.yaml"
    command = ["helm/helm", "template", "clm", FOLDER / "chart", "--namespace", "clm", "--values", values]
    rendered = subprocess.run([TOOLS / command[0], *command[1:]], stdout=subprocess.PIPE, check=True)
    return [each for each in yaml.safe_load_all(rendered.stdout) if each]


@pytest.fixture
def run_job(objects: list[dict[str, Any]]) -> dict[str, Any]:
    config = next(each for each in objects if each["kind"] == "ConfigMap")
    configuration: dict[str, Any] = json.loads(config["data"]["job-template.json"])["job_configuration"]
    return configuration


@pytest.fixture
def settings(run_job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a run, as its variables give them."""
    for name, value in run_job["env"].items():
        if name.startswith("CLM_") and name not in ("CLM_CONFIG", "CLM_DATABASE_URL_FILE"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLM_TRAINING__KUBERNETES__MOUNT_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return load_settings()


def test_the_job_of_a_training_is_valid_and_as_the_chart_says(
    settings: Settings, run_job: dict[str, Any], tmp_path: Path
) -> None:
    assert settings.training.where is TrainingPlace.KUBERNETES
    spec = a_spec({})
    bars = three_bars()
    task = TrainingTask(JOB, spec, bars, settings.home / "work" / JOB, None)
    manifest = job_manifest(task, settings.training, "try-1")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(manifest))
    validated = subprocess.run(
        [TOOLS / "bin" / "kubernetes-validate", "--strict", "--quiet", tmp_path / "job.yaml"], check=False
    )
    assert validated.returncode == 0
    checked = subprocess.run(
        [
            *(TOOLS / "bin" / "checkov", "--quiet", "--compact", "--skip-download"),
            *("--framework", "kubernetes", "--file", tmp_path / "job.yaml"),
            # the image, the namespace and the policies of the network are the chart's
            *("--skip-check", "CKV_K8S_43,CKV_K8S_21,CKV2_K8S_6"),
        ],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    pod = manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    run_pod = run_job["job_manifest"]["spec"]["template"]["spec"]
    assert container["image"] == run_pod["containers"][0]["image"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "clm-home"
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "training"
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]


def test_runs_may_create_and_delete_jobs_and_no_more(
    objects: list[dict[str, Any]], run_job: dict[str, Any]
) -> None:
    pod = run_job["job_manifest"]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("clm-run", True)
    role = next(each for each in objects if each["kind"] == "Role" and each["metadata"]["name"] == "clm-run")
    assert role["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "create", "delete"]},
        {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]},
    ]
    deadline = run_job["job_manifest"]["spec"]["activeDeadlineSeconds"]
    training = Settings().training
    assert deadline > training.limit_seconds + training.kubernetes.start_seconds


def test_a_training_reaches_nothing_by_the_network(objects: list[dict[str, Any]]) -> None:
    for policy in (each for each in objects if each["kind"] == "NetworkPolicy"):
        if "podSelector" in policy["spec"] and not policy["metadata"]["name"].endswith("-deny"):
            assert "training" not in json.dumps(policy["spec"])
