"""MLflow's tables: created by several processes at the same moment, and read without MLflow."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from patience import PATIENT_SECONDS
from psycopg.sql import SQL

from clm_core.domain.errors import NotFound, RegistryUnavailable
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.registry import mlflow_registry, version_files
from clm_core.registry.mlflow_registry import DIGEST_TAG, JOB_TAG, STATUS_TAG, MLflowRegistry
from clm_core.registry.store_tables import finish_run, is_registered, location_behind
from clm_core.services import Services
from deployments.fork_server import ENVIRONMENT

CONNECT = """
import os, sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
import mlflow, mlflow.store.tracking.sqlalchemy_store
from clm_core.registry.mlflow_registry import MLflowRegistry
start, starter = os.pipe()
# a fork has the modules: importing them in each process takes seconds
processes = []
for _ in range(4):
    if (process := os.fork()) == 0:
        os.close(starter)
        registry = MLflowRegistry(sys.argv[1], Path(sys.argv[2]))
        os.read(start, 1)  # until the parent closes the other end
        registry.connect()
        sys.exit()
    processes.append(process)
os.close(starter)
print([os.waitpid(process, 0)[1] for process in processes])
"""


def test_processes_that_use_an_empty_store_at_the_same_moment_create_its_tables_once(
    services: Services, tmp_path: Path
) -> None:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE mlflow_at_once"))
    url = urlsplit(services.database.url("mlflow"))._replace(path="/mlflow_at_once").geturl()
    script = [sys.executable, "-c", CONNECT, url, str(tmp_path / "mlflow" / "artifacts")]
    done = subprocess.run(
        script,
        env=os.environ | ENVIRONMENT | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=PATIENT_SECONDS,
        check=True,
    )
    assert done.stdout == "[0, 0, 0, 0]\n", done.stderr
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'clm'").fetchone() == (1,)


@pytest.mark.parametrize("is_database", [True, False], ids=["tables", "requests"])
def test_jobs_left_open_have_a_running_run_or_an_unjudged_version_that_is_not_deleted(
    is_database: bool, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = services.registry
    registry.connect()
    client = registry.client
    before = registry.left_open()
    monkeypatch.setattr(mlflow_registry, "is_database", lambda uri: is_database)
    experiment = client.get_experiment_by_name("clm").experiment_id
    elsewhere = client.create_experiment(f"elsewhere-{uuid4()}")
    model_id = f"left-open-{uuid4()}"
    client.create_registered_model(model_id)
    source = (services.settings.home / "mlflow" / "artifacts" / "nothing").as_uri()

    def run(experiment_id: str = experiment) -> tuple[UUID, str]:
        job = uuid4()
        return job, client.create_run(experiment_id, tags={JOB_TAG: str(job)}).info.run_id

    def version(status: ModelStatus) -> tuple[UUID, str]:
        job = uuid4()
        tags = {JOB_TAG: str(job), STATUS_TAG: status.value}
        return job, client.create_model_version(model_id, source, tags=tags).version

    running, run_id = run()
    ended, ended_run = run()
    client.set_terminated(ended_run)
    deleted, deleted_run = run()
    client.delete_run(deleted_run)
    foreign, foreign_run = run(elsewhere)
    untagged_run = client.create_run(experiment).info.run_id
    unjudged, number = version(ModelStatus.TRAINING)
    judged, _ = version(ModelStatus.PRODUCTION)
    removed, removed_number = version(ModelStatus.TRAINING)
    client.delete_model_version(model_id, removed_number)
    try:
        assert registry.left_open() - before == {running, unjudged}
        assert not {ended, deleted, foreign, judged, removed} & registry.left_open()
    finally:
        for each in (run_id, foreign_run, untagged_run):
            client.set_terminated(each)
        client.delete_model_version(model_id, number)


@pytest.mark.parametrize("is_database", [True, False], ids=["tables", "requests"])
def test_aliases_and_tags_are_those_of_versions_that_are_not_deleted(
    is_database: bool, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = services.registry
    monkeypatch.setattr(mlflow_registry, "is_database", lambda uri: is_database)
    client = registry.client
    model_id = f"aliased-{uuid4()}"
    assert registry.aliases(model_id) == {}
    assert registry.aliased(model_id, "production") is None
    client.create_registered_model(model_id)
    source = (services.settings.home / "mlflow" / "artifacts" / "nothing").as_uri()
    for digest in ("a", "b", None):
        client.create_model_version(model_id, source, tags={} if digest is None else {DIGEST_TAG: digest})
    client.set_registered_model_alias(model_id, "production", "2")
    client.set_registered_model_alias(model_id, "v20250101_000000", "1")
    assert registry.aliases(model_id) == {"production": 2, "v20250101_000000": 1}
    assert registry.aliased(model_id, "production") == 2
    assert registry.aliased(model_id, "previous") is None
    assert registry.tagged_digest(model_id, 2) == "b"
    with pytest.raises(NotFound, match="not registered by CLM"):
        registry.tagged_digest(model_id, 3)
    client.delete_model_version(model_id, "2")
    assert registry.aliased(model_id, "production") is None
    for missing in (2, 4):
        with pytest.raises(RegistryUnavailable, match=f"read {model_id} {missing}"):
            registry.tagged_digest(model_id, missing)


@pytest.mark.parametrize("is_database", [True, False], ids=["tables", "requests"])
def test_files_are_attached_to_the_run_named(
    is_database: bool, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = services.registry
    monkeypatch.setattr(mlflow_registry, "is_database", lambda uri: is_database)
    experiment = registry.client.get_experiment_by_name("clm").experiment_id
    run_id = registry.client.create_run(experiment).info.run_id
    file = tmp_path / "sheet.html"
    file.write_text("a sheet")
    registry.attach(run_id, [file], "report")
    assert [each.path for each in registry.client.list_artifacts(run_id, "report")] == ["report/sheet.html"]
    with pytest.raises(RegistryUnavailable, match="store the report of run nothing"):
        registry.attach("nothing", [file], "report")
    registry.client.set_terminated(run_id)


def test_a_model_is_registered_and_a_prompt_of_the_name_is_none(services: Services) -> None:
    uri = services.database.url("mlflow", driver="psycopg")
    model_id = f"model-{uuid4()}"
    prompt = f"prompt-{uuid4()}"
    assert not is_registered(uri, model_id)
    services.registry.ensure_model(model_id)
    services.registry.ensure_model(model_id)
    services.registry.client.register_prompt(prompt, "Sell {{symbol}}")
    assert is_registered(uri, model_id)
    assert not is_registered(uri, prompt)


def test_a_store_without_tables_has_no_job_left_open_and_a_lost_one_says_so(
    services: Services, tmp_path: Path
) -> None:
    with psycopg.connect(services.database.server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE mlflow_empty"))
    url = urlsplit(services.database.url("mlflow", driver="psycopg"))
    empty = url._replace(path="/mlflow_empty").geturl()
    assert MLflowRegistry(empty, tmp_path).left_open() == set()
    assert MLflowRegistry(empty, tmp_path).aliases("lightgbm_btcusd_1h") == {}
    lost = url._replace(path="/mlflow_lost").geturl()
    with pytest.raises(RegistryUnavailable, match="mlflow_lost"):
        MLflowRegistry(lost, tmp_path).left_open()


@pytest.mark.parametrize("is_database", [True, False], ids=["tables", "requests"])
def test_a_status_is_shown_in_the_tag_and_the_description_at_once(
    is_database: bool,
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = services.registry
    version = make_version(model_id, in_full=True)
    number = version.mlflow_version
    before = registry.client.get_model_version(model_id, str(number))
    monkeypatch.setattr(mlflow_registry, "is_database", lambda uri: is_database)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    registry.set_status(model_id, number, ModelStatus.SHADOW, "first, with a ' and a %", at)
    registry.set_status(model_id, number, ModelStatus.RETIRED, "second", at)
    after = registry.client.get_model_version(model_id, str(number))
    assert after.tags == before.tags | {STATUS_TAG: ModelStatus.RETIRED.value}
    assert after.description.count("first, with a ' and a %") == after.description.count("second") == 1
    assert after.last_updated_timestamp > before.last_updated_timestamp
    assert (after.user_id, after.source) == (before.user_id, before.source)
    registry.client.delete_model_version(model_id, str(number))
    with pytest.raises(RegistryUnavailable, match="not found"):
        registry.set_status(model_id, number, ModelStatus.RETIRED, "third", at)


@pytest.mark.parametrize("is_database", [True, False], ids=["tables", "requests"])
def test_the_files_of_a_registered_version_are_ready_and_those_of_a_failed_upload_failed(
    is_database: bool,
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = services.registry
    client = registry.client
    experiment = client.get_experiment_by_name("clm").experiment_id
    monkeypatch.setattr(mlflow_registry, "is_database", lambda uri: is_database)
    make_version(model_id, in_full=True)

    def no_space(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(version_files, "save", no_space)
    with pytest.raises(RegistryUnavailable, match="no space"):
        make_version(model_id, in_full=True)
    name = f"name = '{model_id.replace('.', '-')}'"
    models = client.search_logged_models([experiment], name, order_by=[{"field_name": "creation_time"}])
    assert [str(model.status) for model in models] == ["READY", "FAILED"]
    assert all(model.params for model in models)
    runs = [client.get_run(model.source_run_id) for model in models]
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert all(run.data.params.keys() > model.params.keys() for run, model in zip(runs, models, strict=True))


def test_a_deleted_run_is_not_finished(services: Services) -> None:
    services.registry.connect()
    client = services.registry.client
    run_id = client.create_run(client.get_experiment_by_name("clm").experiment_id).info.run_id
    uri = services.database.url("mlflow")
    client.delete_run(run_id)
    assert not finish_run(uri, run_id, "FINISHED")
    assert client.get_run(run_id).info.status == "RUNNING"
    client.restore_run(run_id)
    assert finish_run(uri, run_id, "FINISHED")
    finished = client.get_run(run_id).info
    assert finished.status == "FINISHED"
    assert finished.end_time >= finished.start_time


def test_the_files_behind_an_alias_are_those_that_mlflow_names(
    services: Services, make_version: Callable[..., ModelVersion], model_id: str
) -> None:
    version = make_version(model_id, in_full=True)
    uri = services.database.url("mlflow")
    named = services.registry.client.get_model_version_download_uri(model_id, str(version.mlflow_version))
    assert location_behind(uri, model_id, version.version) == named
    assert location_behind(uri, model_id, "none-of-this-name") is None
    with services.registry.fetched(f"models:/{model_id}@{version.version}") as bundle:
        assert (bundle / "manifest.json").is_file()
    services.registry.client.delete_model_version(model_id, str(version.mlflow_version))
    assert location_behind(uri, model_id, version.version) is None
