"""Training in a pod: the results of a subprocess, and the end of every training that has no result.

The pods are processes of this machine, behind a stand-in of the cluster's API server. Takes minutes and
needs the extra `kubernetes`: `make deploy-check` runs this file, `make test` skips it.
"""

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENT_SECONDS
from trainings import a_spec

from clm_core.domain.actors import Actor
from clm_core.domain.errors import (
    ClusterRefused,
    ClusterUnavailable,
    NotEnoughBars,
    SettingsError,
    TrainingFailed,
)
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.training_settings import TrainingPlace, TrainingPodSettings, TrainingSettings
from clm_core.domain.vocabulary import JobStatus, ModelType, Role
from clm_core.market.bars import Bars
from clm_core.retraining import training, training_messages, training_places, training_pods
from clm_core.retraining.fold_cache import FoldCache
from clm_core.retraining.training_following import TrainingTask
from clm_core.services import Services

pytestmark = pytest.mark.skipif("DEPLOY_CHECK" not in os.environ, reason="part of `make deploy-check`")

QUICK = {"rounds": 2}
ENDLESS = {"rounds": 10_000, "learning_rate": 1e-6, "early_stopping_rounds": 10_000, "num_leaves": 1024}
WITHIN_SECONDS = 60.0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from fake_cluster import FakeCluster, serving

    cluster = FakeCluster(runs_pods=True)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with serving(cluster, tmp_path / "kubeconfig"):
        yield cluster
        for process in cluster.processes.values():
            process.kill()


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())


def a_task(
    bars: Bars, folder: Path, params: dict[str, float], cache: FoldCache | None = None
) -> TrainingTask:
    spec = a_spec(params, seeds=2)
    return TrainingTask(str(uuid.uuid4()), spec, bars, folder, cache)


def settings(volume: Path, limit_seconds: float = 300, **pod: Any) -> TrainingSettings:
    return TrainingSettings(
        where=TrainingPlace.KUBERNETES,
        limit_seconds=limit_seconds,
        kubernetes=TrainingPodSettings(image="clm:0.1.0", claim="clm-home", mount_path=volume, **pod),
    )


def ignore(step: str, share: float) -> None:
    pass


def test_a_pod_gives_the_same_results_as_a_subprocess(cluster: Any, bars: Bars, tmp_path: Path) -> None:
    one = a_task(bars, tmp_path / "one", QUICK)
    one.folder.mkdir()
    steps: list[tuple[str, float]] = []
    training_places.train_in_subprocess(one, ignore, 300)
    other = a_task(bars, tmp_path / "other", QUICK, FoldCache(tmp_path / "folds", 64))
    training_places.run(other, settings(tmp_path), lambda *step: steps.append(step))
    for name in (training.RESULTS, training.OUT_OF_SAMPLE):
        assert (other.folder / name).read_bytes() == (one.folder / name).read_bytes(), name
    files = sorted(path.name for path in (one.folder / training.BUNDLE).iterdir())
    assert files == sorted(path.name for path in (other.folder / training.BUNDLE).iterdir())
    assert training.is_complete(other.folder)
    assert {"Waiting for a pod", "Walk-forward", "Final fit", "Looking for leaks"} == {
        name for name, _ in steps
    }
    assert cluster.names() == [f"clm-training-{other.name}"], "the log of an ended Job stays"


def test_an_error_of_the_training_reaches_the_run(cluster: Any, bars: Bars, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughBars, match="give more days of bars"):
        training_places.run(a_task(bars[:50], tmp_path / "work", QUICK), settings(tmp_path), ignore)


IMAGE = {
    "phase": "Pending",
    "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}],
}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
QUOTA = "exceeded quota: trainings, requested: count/jobs.batch=1"


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        (
            {"runs_pods": False, "pod_status": IMAGE},
            TrainingFailed,
            "ImagePullError: ErrImagePull: not found",
        ),
        ({"runs_pods": False, "pod_status": EVICTED, "fails": True}, TrainingFailed, "Evicted: The node was"),
        ({"refusal": QUOTA}, ClusterRefused, "exceeded quota"),
        ({"warning": f"Error creating: pods is forbidden: {QUOTA}"}, TrainingFailed, "exceeded quota"),
    ],
    ids=["image", "eviction", "quota of Jobs", "quota of pods"],
)
def test_a_job_without_a_result_fails_with_the_word_of_kubernetes(
    cluster: Any, bars: Bars, tmp_path: Path, change: dict[str, Any], error: type[Exception], word: str
) -> None:
    for name, value in change.items():
        setattr(cluster, name, value)
    begun = time.monotonic()
    with pytest.raises(error, match=word):
        training_places.run(a_task(bars, tmp_path / "work", QUICK), settings(tmp_path), ignore)
    print(f"{word}: {time.monotonic() - begun:.0f} s")
    assert time.monotonic() - begun < WITHIN_SECONDS


@pytest.mark.parametrize(
    ("ending", "word"),
    [("kill", "OOMKilled: the pod used more memory"), ("drain", "Evicted: the pod was deleted")],
)
def test_a_pod_that_dies_in_the_training_is_reported(
    cluster: Any, bars: Bars, tmp_path: Path, ending: str, word: str
) -> None:
    def at_first(step: str, share: float) -> None:
        if step == "Walk-forward" and ending == "kill":
            next(iter(cluster.processes.values())).send_signal(signal.SIGKILL)
        elif step == "Walk-forward":
            cluster.remove_pods()

    with pytest.raises(TrainingFailed, match=word):
        training_places.run(a_task(bars, tmp_path / "work", ENDLESS), settings(tmp_path), at_first)


def test_the_time_limit_ends_the_pod(cluster: Any, bars: Bars, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"took longer than 4 s.*raise training\.limit_seconds"):
        training_places.run(a_task(bars, tmp_path / "work", ENDLESS), settings(tmp_path, 4), ignore)
    assert ended(cluster)


def test_a_pod_that_does_not_start_in_time_is_given_up(cluster: Any, bars: Bars, tmp_path: Path) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    cluster.runs_pods = False
    cluster.pod_status = {"phase": "Pending", "conditions": [condition]}
    steps: list[str] = []
    with pytest.raises(TrainingFailed, match=r"did not start within 5 s .*Unschedulable: 0/3 nodes"):
        training_places.run(
            a_task(bars, tmp_path / "work", QUICK),
            settings(tmp_path, start_seconds=5),
            lambda step, _: steps.append(step),
        )
    assert f"Waiting for a node: Unschedulable: {message}" in steps


def test_an_interruption_ends_the_pod(cluster: Any, bars: Bars, tmp_path: Path) -> None:
    started = threading.Event()

    def at_first(step: str, share: float) -> None:
        if step == "Walk-forward" and not started.is_set():
            started.set()
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        training_places.run(a_task(bars, tmp_path / "work", ENDLESS), settings(tmp_path), at_first)
    assert ended(cluster)


def test_a_pod_whose_run_died_ends_by_itself(
    cluster: Any, bars: Bars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clm_core.retraining.training_manifest.SILENCE_SECONDS", 3.0)
    task = a_task(bars, tmp_path / "work", ENDLESS)
    manifest = training_pods.job_manifest(task, settings(tmp_path), "one")
    training.write_input(task.spec, task.bars, task.folder)
    with training_pods.cluster(None) as jobs, training_messages.alive(task.folder, 3.0):
        jobs.create(manifest)
        reader = training_messages.MessageReader(task.folder)
        while not any(reader.read()):
            time.sleep(0.1)
        process = cluster.processes[f"clm-training-{task.name}"]
        time.sleep(4)
        assert process.poll() is None
    assert process.wait(PATIENT_SECONDS) == 1
    last = (task.folder / training_messages.MESSAGES).read_text().splitlines()[-1]
    assert "its run gave no sign of life for 3 s" in json.loads(last)["message"]


def test_a_second_try_replaces_the_job_of_the_first(cluster: Any, bars: Bars, tmp_path: Path) -> None:
    task = a_task(bars, tmp_path / "work", QUICK)
    endless = TrainingTask(task.name, a_task(bars, task.folder, ENDLESS).spec, bars, task.folder, None)
    training.write_input(endless.spec, bars, task.folder)
    with training_pods.cluster(None) as jobs:
        jobs.create(training_pods.job_manifest(endless, settings(tmp_path), "first"))
    while not cluster.processes:
        time.sleep(0.05)
    [first] = cluster.processes.values()
    training_places.run(task, settings(tmp_path), ignore)
    assert first.poll() is not None
    assert training.is_complete(task.folder)
    assert len(cluster.created) == 2


def test_a_job_whose_creation_was_not_answered_is_not_doubled(
    cluster: Any, bars: Bars, tmp_path: Path
) -> None:
    cluster.lost_answers = 1
    task = a_task(bars, tmp_path / "work", QUICK)
    training_places.run(task, settings(tmp_path), ignore)
    assert training.is_complete(task.folder)
    assert len(cluster.created) == 1


def test_a_cluster_that_does_not_answer_is_named(
    cluster: Any, bars: Bars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setattr(training_pods, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(training_pods, "LOOK_SECONDS", 0.5)
    with pytest.raises(ClusterUnavailable, match="Kubernetes does not answer"):
        training_places.run(a_task(bars, tmp_path / "work", QUICK), settings(tmp_path), ignore)


def test_the_check_of_the_settings_names_missing_rights(cluster: Any, tmp_path: Path) -> None:
    training_pods.require_pods(tmp_path / "home", settings(tmp_path))
    cluster.forbidden = {"create jobs", "list events"}
    with pytest.raises(SettingsError, match="may not create jobs, list events in the namespace clm"):
        training_pods.require_pods(tmp_path / "home", settings(tmp_path))


def test_a_retrain_trains_in_a_pod(cluster: Any, services: Services) -> None:
    from clm_core.retraining import jobs, steps

    home = services.settings.home
    other = services.settings.model_copy(update={"training": settings(home)})
    own = replace(services, settings=other)
    actor = Actor(name="ada", role=Role.OPERATOR)
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM, symbol="BTCUSD", dataset_span_days=90, training_params=QUICK
    )
    job = jobs.open_job(own, request.model_copy(update={"requested_by": actor.name}))
    with jobs.running(own, job) as lease:
        bars = steps.fetch_bars(own, job)
        trained = steps.train(own, job, bars)
        version = steps.register(own, lease, job, bars, trained)
    assert own.ledger.job(job.id).status is JobStatus.COMPLETED
    assert version.bundle_digest == trained.bundle_digest
    [container] = cluster.created[0]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == str(home / "work" / str(job.id))


def ended(cluster: Any) -> bool:
    """True if no Job is left, and the process of every pod has ended."""
    deadline = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < deadline:
        if not cluster.names() and all(each.poll() is not None for each in cluster.processes.values()):
            return True
        time.sleep(0.1)
    return False
