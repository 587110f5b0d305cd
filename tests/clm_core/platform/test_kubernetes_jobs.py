"""Reasons why a Job in Kubernetes gives no result, and refusals without a client or a cluster."""

import sys
from pathlib import Path
from typing import Any

import pytest

from clm_core.domain.errors import MissingExtra, SettingsError
from clm_core.platform.kubernetes_jobs import Trouble, cluster, delay_of, has_begun, has_succeeded, trouble_of

RUNNING = {"metadata": {}, "status": {"active": 1}}


def failed_job(reason: str) -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": "the limit"}
    return {"metadata": {}, "status": {"conditions": [condition]}}


def a_pod(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "training", "state": state}]
    return {"metadata": {"name": "pod"}, "status": {"containerStatuses": containers, **status}}


def terminated(code: int, reason: str, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "clm:0.1.0 not found"}}


def disrupted(reason: str) -> list[dict[str, Any]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "node drained"}]


@pytest.mark.parametrize(
    ("job", "pod", "warnings", "trouble"),
    [
        (RUNNING, None, [], None),
        (RUNNING, a_pod({"running": {}}, phase="Running"), [], None),
        (RUNNING, a_pod(waiting("ContainerCreating"), phase="Pending"), [], None),
        (RUNNING, a_pod(terminated(0, "Completed"), phase="Succeeded"), [], None),
        (None, None, [], Trouble("JobDeleted: somebody deleted the Job", True)),
        (
            RUNNING,
            a_pod(terminated(137, "OOMKilled"), phase="Failed"),
            [],
            Trouble("OOMKilled: the pod used more memory than its limit", True),
        ),
        (
            RUNNING,
            a_pod(phase="Failed", reason="Evicted", message="low on disk"),
            [],
            Trouble("Evicted: low on disk", True),
        ),
        (
            RUNNING,
            a_pod(terminated(143, "Error"), conditions=disrupted("EvictionByEvictionAPI")),
            [],
            Trouble("Evicted: node drained", True),
        ),
        (
            RUNNING,
            a_pod(terminated(1, "Error", "Traceback\nPermissionError: spec.json\n")),
            [],
            Trouble("exit code 1: PermissionError: spec.json", True, "Traceback\nPermissionError: spec.json"),
        ),
        (
            RUNNING,
            a_pod(waiting("ImagePullBackOff"), phase="Pending"),
            [],
            Trouble("ImagePullError: ImagePullBackOff: clm:0.1.0 not found", False),
        ),
        (
            RUNNING,
            a_pod(waiting("CreateContainerConfigError"), phase="Pending"),
            [],
            Trouble("CreateContainerConfigError: clm:0.1.0 not found", False),
        ),
        (RUNNING, None, ["exceeded quota"], Trouble("the Job gets no pod: exceeded quota", False)),
        (
            failed_job("DeadlineExceeded"),
            a_pod({"running": {}}),
            [],
            Trouble("DeadlineExceeded: the limit", True),
        ),
        (
            failed_job("BackoffLimitExceeded"),
            None,
            [],
            Trouble("Evicted: the pod was deleted (the limit)", True),
        ),
    ],
    ids=[
        *("no pod yet", "running", "starting", "succeeded", "deleted", "memory", "eviction", "drain"),
        *("exit code", "image", "container", "quota of pods", "deadline", "pod gone"),
    ],
)
def test_the_trouble_of_a_job_has_the_word_of_kubernetes(
    job: dict[str, Any] | None, pod: dict[str, Any] | None, warnings: list[str], trouble: Trouble | None
) -> None:
    assert trouble_of(job, pod, warnings) == trouble


def test_a_pod_begins_with_its_container() -> None:
    assert not has_begun(None)
    assert not has_begun(a_pod(waiting("ContainerCreating")))
    assert has_begun(a_pod({"running": {}}))
    assert has_begun(a_pod(terminated(0, "Completed")))
    assert has_succeeded(a_pod(phase="Succeeded"))


def test_a_pod_without_a_node_says_why() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    assert delay_of(a_pod(conditions=[condition])) == "Unschedulable: no GPU"
    assert delay_of(a_pod(conditions=[condition | {"status": "True"}])) is None
    assert delay_of(None) is None


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)
    with pytest.raises(MissingExtra, match=r"continuous-learning-manager\[kubernetes\]"), cluster(None):
        pass


def test_a_missing_cluster_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kubernetes_asyncio")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="let KUBECONFIG name a kubeconfig"), cluster(None):
        pass
