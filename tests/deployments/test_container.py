"""The entry point of the image, and the files for Docker: their names are those of settings and services."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws
from pydantic import SecretStr

import deployments
from clm_core.domain.errors import SettingsError, StorageUnavailable
from clm_core.domain.setting_keys import fields, is_secret, variable
from clm_core.domain.storage_settings import StorageSettings
from clm_core.settings import Settings
from deployments import container, stack

DOCKER = Path(str(deployments.__file__)).parent / "docker"
OTHER_IMAGES = {"postgres", "s3", "prometheus", "grafana"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    return content


def test_a_secret_is_read_from_its_file_without_the_line_break(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://clm:a b@db/clm\n")
    environment = {"CLM_DATABASE_URL_FILE": str(tmp_path / "url"), "PATH": "/bin"}
    container.read_secrets(environment)
    assert environment == {"CLM_DATABASE_URL": "postgresql://clm:a b@db/clm", "PATH": "/bin"}


def test_a_secret_given_twice_is_refused_without_its_value(tmp_path: Path) -> None:
    environment = {"CLM_DATABASE_URL_FILE": "/secret", "CLM_DATABASE_URL": "postgresql://clm:hidden@db"}
    with pytest.raises(SettingsError, match="CLM_DATABASE_URL and CLM_DATABASE_URL_FILE") as refused:
        container.read_secrets(environment)
    assert "hidden" not in str(refused.value)


def test_a_missing_secret_file_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="PREFECT_API_AUTH_STRING_FILE: /no/file cannot be read"):
        container.read_secrets({"PREFECT_API_AUTH_STRING_FILE": "/no/file"})


def test_every_secret_is_a_secret_setting_and_no_setting_has_the_name_of_its_file() -> None:
    settings = {variable(key): annotation for key, annotation in fields(Settings)}
    own = [name for name in container.SECRETS if name.startswith("CLM_")]
    assert all(is_secret(settings[name]) for name in own)
    assert not settings.keys() & {f"{name}_FILE" for name in container.SECRETS}


def test_services_without_a_shared_database_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set CLM_DATABASE_URL"):
        container.mlflow(Settings(home=tmp_path))


def test_a_worker_takes_the_queue_and_the_pool_of_the_settings_and_creates_no_pool(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        database_url=SecretStr("postgresql://clm@db/clm"),
        deploy={"work_pool": "trainings", "work_pool_type": "kubernetes"},
        stack={"concurrent_runs": 7},
    )
    command = " ".join(container.worker(settings).command)
    assert "--pool trainings --type kubernetes --work-queue default --limit 7" in command
    assert "--no-create-pool-if-not-found" in command
    assert "--work-queue maintenance" in " ".join(container.maintenance(settings).command)


def test_the_password_of_the_database_is_on_no_command_line(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=SecretStr("postgresql://clm:hidden@db/clm"))
    commands = [container.SERVICES[name](settings).command for name in ("api", "worker", "maintenance")]
    assert "hidden" not in str(commands)


def test_the_api_listens_on_the_address_of_the_settings_and_is_asked_where_it_answers(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, api={"address": "10.0.0.5"})
    assert container.api(settings).command[-1] == "10.0.0.5"
    assert container.api(Settings(home=tmp_path)).command[-1] == "0.0.0.0"
    urls = [stack.api_url(each, 8000) for each in (None, "0.0.0.0", "10.0.0.5", "::", "fd00::7")]
    hosts = ["127.0.0.1", "127.0.0.1", "10.0.0.5", "[::1]", "[fd00::7]"]
    assert urls == [f"http://{host}:8000" for host in hosts]
    with pytest.raises(ValueError, match="must be an IP address"):
        Settings(home=tmp_path, api={"address": "everywhere"})


def test_compose_starts_services_of_the_entry_point_at_their_ports(compose: dict[str, Any]) -> None:
    own = {name: each for name, each in compose["services"].items() if name not in OTHER_IMAGES}
    assert {name: each["command"] for name, each in own.items()} == {
        name: [name] for name in (*container.SERVICES, *container.ONCE)
    }
    for name, port in container.PORTS.items():
        assert own[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_names_settings_that_exist(compose: dict[str, Any]) -> None:
    names = {name for each in compose["services"].values() for name in each.get("environment", {})}
    known = {variable(key) for key, _ in fields(Settings)} | {f"{name}_FILE" for name in container.SECRETS}
    assert {name for name in names if name.startswith("CLM_")} <= known
    assert json.loads(compose["services"]["api"]["environment"]["CLM_API__HOSTS"])


def test_every_container_is_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith("0"), name
        assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= service.keys(), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_secrets_reach_containers_as_files_alone(compose: dict[str, Any]) -> None:
    assert all(list(secret) == ["file"] for secret in compose["secrets"].values())
    used = {name for service in compose["services"].values() for name in service.get("secrets", [])}
    assert used == compose["secrets"].keys()
    values = [
        f"{name}={value}"
        for service in compose["services"].values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASSWORD|AUTH_STRING|DATABASE_URL|TOKEN|ACCESS_KEY|SECRET_KEY", name)
    ]
    assert values
    assert all("=/run/secrets/" in each for each in values)


def test_migrate_makes_a_missing_bucket_only_where_told(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = StorageSettings(url="s3://bars/clm", access_key="key", secret_key="secret")
    monkeypatch.setattr(container, "STORAGE_WITHIN_SECONDS", 0.0)
    with mock_aws():
        with pytest.raises(StorageUnavailable, match="there is no bucket bars"):
            container._prepare_bucket(storage)
        monkeypatch.setenv(container.MAKE_BUCKET, "true")
        container._prepare_bucket(storage)
        container._prepare_bucket(storage)


def test_the_image_runs_as_a_fixed_user_that_is_not_root() -> None:
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", "\n".join(lines), re.M)
    root = DOCKER.parents[1]
    assert all((root / name).exists() for names in copied for name in names.split())
