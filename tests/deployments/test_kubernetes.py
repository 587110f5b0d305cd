"""The files for Kubernetes: names of settings and services that exist, isolated runs, and no secret.

Helm, kubectl and the schemas of Kubernetes run in `make deploy-check`; here the files for kustomize stand for
the rendered chart.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import deployments
from clm_core.domain.secret_references import references_of
from clm_core.domain.setting_keys import fields, variable
from clm_core.domain.training_settings import TrainingSettings
from clm_core.domain.vault_settings import VaultLogin
from clm_core.settings import Settings
from deployments import container
from deployments.work_pool import COMMAND
from scripts.kubernetes_files import digest

FOLDER = Path(str(deployments.__file__)).parent / "kubernetes"
FILES = sorted((FOLDER / "kustomize").glob("*.yaml"))
WORKERS = {"worker", "maintenance"}


@cache
def objects() -> list[dict[str, Any]]:
    texts = (file.read_text(encoding="utf-8") for file in FILES if file.stem != "kustomization")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [each for text in texts for each in yaml.load_all(text, Loader=loader)]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects() if each["kind"] in kinds]


@cache
def job_template() -> dict[str, Any]:
    (config,) = of_kind("ConfigMap")
    template: dict[str, Any] = json.loads(config["data"]["job-template.json"])
    return template


def run_pod() -> dict[str, Any]:
    job: dict[str, Any] = job_template()["job_configuration"]["job_manifest"]
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Pods by component."""
    for each in of_kind("Deployment", "StatefulSet", "Job"):
        template = each["spec"]["template"]
        yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]
    yield "run", run_pod()


def own_pods() -> list[tuple[str, dict[str, Any]]]:
    return [(name, pod) for name, pod in pods() if name not in ("postgres", "run")]


def test_the_files_for_kustomize_were_written_from_this_chart() -> None:
    text = (FOLDER / "kustomize" / "kustomization.yaml").read_text(encoding="utf-8")
    assert f"# chart: {digest(FOLDER / 'chart')}\n" in text, "run `make kustomize`"
    listed = yaml.safe_load(text)["resources"]
    assert listed == [file.name for file in FILES if file.stem != "kustomization"]


def test_every_value_of_a_template_is_in_the_chart_s_values() -> None:
    values = yaml.safe_load((FOLDER / "chart" / "values.yaml").read_text(encoding="utf-8"))
    for file in (FOLDER / "chart" / "templates").iterdir():
        for path in re.findall(r"\.Values\.([\w.]+)", file.read_text(encoding="utf-8")):
            value: Any = values
            for key in path.split("."):
                assert key in value, f"{file.name}: {path}"
                value = value[key]


@pytest.mark.parametrize("name", ["external-database", "gpu", "trainings", "vault"])
def test_the_other_sets_of_values_name_values_of_the_chart(name: str) -> None:
    values = yaml.safe_load((FOLDER / "chart" / "values.yaml").read_text(encoding="utf-8"))
    others = yaml.safe_load((FOLDER / "values" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert others.keys() <= values.keys()
    groups = {group: inner for group, inner in others.items() if group != "settings"}
    assert all(inner.keys() <= values[group].keys() for group, inner in groups.items())


def test_the_settings_for_a_server_of_secrets_are_settings_of_clm() -> None:
    values = yaml.safe_load((FOLDER / "values" / "vault.yaml").read_text(encoding="utf-8"))
    settings = Settings(**tomllib.loads(values["settings"]))
    assert settings.vault.login is VaultLogin.KUBERNETES
    assert [name for name, _ in references_of(settings)] == ["webhooks.monitor.secrets.0"]


def test_containers_run_services_of_the_entry_point() -> None:
    arguments = {name: pod["containers"][0]["args"] for name, pod in own_pods()}
    assert arguments == {name: [name] for name in (*container.SERVICES, *container.ONCE)}
    ports = {name: pod["containers"][0].get("ports") for name, pod in own_pods()}
    assert {name: ports[name][0]["containerPort"] for name in container.PORTS} == container.PORTS


def test_variables_are_settings_that_exist() -> None:
    known = {variable(key) for key, _ in fields(Settings)} | {f"{name}_FILE" for name in container.SECRETS}
    known |= {"CLM_CONFIG"}
    names = {each["name"] for _, pod in own_pods() for each in pod["containers"][0]["env"]}
    names |= job_template()["job_configuration"]["env"].keys()
    assert {name for name in names if name.startswith("CLM_")} <= known
    assert container.JOB_TEMPLATE in names


def test_no_pod_is_given_variables_of_services() -> None:
    """Kubernetes would set CLM_API_PORT for a Service clm-api, and unknown CLM_ variables are refused."""
    assert all(pod["enableServiceLinks"] is False for _, pod in pods())


def test_pods_keep_the_restricted_profile() -> None:
    """The fields of https://kubernetes.io/docs/concepts/security/pod-security-standards/, restricted."""
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] != 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for each in pod["containers"]:
            security = each["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"requests", "limits"} <= each["resources"].keys(), name


def test_only_the_workers_have_a_token_of_the_cluster() -> None:
    assert {name for name, pod in pods() if pod["automountServiceAccountToken"]} == WORKERS


def test_the_workers_see_neither_the_database_nor_the_home() -> None:
    for name, pod in own_pods():
        secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
        keys = {item["key"] for item in secret["items"]}
        assert ("database-url" in keys) == (name not in WORKERS), name
        assert any(volume["name"] == "home" for volume in pod["volumes"]) == (name not in WORKERS), name


def test_a_run_is_an_isolated_job_with_an_end() -> None:
    spec = job_template()["job_configuration"]["job_manifest"]["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["activeDeadlineSeconds"] > TrainingSettings().limit_seconds
    assert spec["ttlSecondsAfterFinished"] > 0
    pod = run_pod()
    assert pod["restartPolicy"] == "Never"
    secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
    assert [item["key"] for item in secret["items"]] == ["database-url"]


def test_a_run_can_change_neither_command_nor_image_nor_environment() -> None:
    variables = job_template()["variables"]
    assert variables["additionalProperties"] is False
    assert variables["properties"].keys() == {"command", "name", "labels"}
    assert variables["properties"]["command"]["enum"] == [COMMAND]


def test_prefect_accepts_the_job_template() -> None:
    """Prefect refuses placeholders without a variable."""
    placeholders = set(re.findall(r"{{ (\w+) }}", json.dumps(job_template()["job_configuration"])))
    assert placeholders == job_template()["variables"]["properties"].keys()


def test_secrets_are_references() -> None:
    assert not of_kind("Secret")
    for name, pod in pods():
        for each in pod["containers"][0]["env"] if name != "run" else []:
            if re.search("PASSWORD|AUTH_STRING|DATABASE_URL", each["name"]):
                assert each["name"].endswith(("_FILE", "_SECRET_NAME", "_SECRET_KEY")), each


def test_a_policy_denies_all_traffic_and_others_open_what_is_needed() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind("NetworkPolicy")}
    denied = policies["clm-deny"]
    assert denied["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in denied
    to_database = policies["clm-to-postgres"]["ingress"][0]["from"][0]["podSelector"]["matchExpressions"]
    assert not WORKERS & set(to_database[0]["values"])
