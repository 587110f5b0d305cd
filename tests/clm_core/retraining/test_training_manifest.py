"""The Kubernetes Job of a training: one pod with an end and few rights, which sees little of the home."""

from pathlib import Path
from typing import Any

import pytest
from trainings import a_spec, three_bars

from clm_core.domain.errors import SettingsError
from clm_core.domain.training_settings import TrainingPlace, TrainingPodSettings, TrainingSettings
from clm_core.retraining.fold_cache import FoldCache
from clm_core.retraining.training_following import TrainingTask
from clm_core.retraining.training_manifest import job_manifest, require_on_volume

JOB = "0f8fad5b-d9cb-469f-a165-70867728950e"


def a_task(volume: Path) -> TrainingTask:
    bars = three_bars()
    spec = a_spec({})
    folder = volume / "home" / "work" / JOB
    return TrainingTask(JOB, spec, bars, folder, FoldCache(volume / "home" / "folds", 64))


def settings(volume: Path, **pod: Any) -> TrainingSettings:
    return TrainingSettings(
        where=TrainingPlace.KUBERNETES,
        limit_seconds=100.5,
        kubernetes=TrainingPodSettings(image="clm:0.1.0", claim="clm-home", mount_path=volume, **pod),
    )


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def test_the_job_of_a_training_has_a_name_of_its_own_and_an_end(tmp_path: Path) -> None:
    manifest = job_manifest(a_task(tmp_path), settings(tmp_path, labels={"team": "alpha"}), "try-1")
    assert manifest["metadata"]["name"] == f"clm-training-{JOB}"
    assert len(manifest["metadata"]["name"]) <= 63
    spec = manifest["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 600 + 101 + 90)
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert spec["template"]["metadata"]["labels"] == {"team": "alpha", "clm-training": JOB}
    [container] = pod_of(manifest)["containers"]
    assert container["command"] == ["python", "-P", "-m", "clm_core.retraining.training"]
    folds = str(tmp_path / "home" / "folds")
    folder = str(tmp_path / "home" / "work" / JOB)
    assert container["args"] == [folder, "--cache", folds, "64", "--caller-silence", "90"]


def test_the_pod_of_a_training_has_no_rights_and_sees_its_own_folders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache" / "numba"))
    pod = pod_of(job_manifest(a_task(tmp_path), settings(tmp_path), "try-1"))
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10_001)
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [each["name"] for each in container["env"]] == ["NUMBA_CACHE_DIR"]
    paths = {each.get("subPath"): each["mountPath"] for each in container["volumeMounts"]}
    assert paths == {
        f"home/work/{JOB}": str(tmp_path / "home" / "work" / JOB),
        "home/folds": str(tmp_path / "home" / "folds"),
        "cache/numba": str(tmp_path / "cache" / "numba"),
        None: "/tmp",
    }
    assert all((tmp_path / path).is_dir() for path in paths if path)


def test_the_pod_of_a_training_may_have_gpus_and_the_whole_volume(tmp_path: Path) -> None:
    own = settings(
        tmp_path,
        gpus=2,
        limits={"cpu": "8", "memory": "32Gi"},
        node_selector={"gpu": "h200"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        mounts="volume",
        pull_secrets=["registry"],
    )
    pod = pod_of(job_manifest(a_task(tmp_path), own, "try-1"))
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"}
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "2"
    assert container["volumeMounts"][0] == {"name": "home", "mountPath": str(tmp_path)}
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_a_folder_outside_of_the_volume_is_refused(tmp_path: Path) -> None:
    pod = settings(tmp_path / "volume").kubernetes
    with pytest.raises(SettingsError, match=r"is not below training\.kubernetes\.mount_path .*CLM_HOME"):
        require_on_volume(tmp_path / "home", pod)
    assert require_on_volume(tmp_path / "volume" / "home", pod) == Path("home")
