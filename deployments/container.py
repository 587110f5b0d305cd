"""Entry point of the image: one process of an installation whose processes run in containers.

    python -m deployments.container SERVICE          a service of `SERVICES`, or a command of `ONCE`
    python -m deployments.container health PORT [PATH]
                                                     exit code 0 if /health of the service has status 200
    python -m deployments.container COMMAND ...      any other command, such as `clm models`

Secrets are read from files: CLM_DATABASE_URL_FILE names the file with the value of CLM_DATABASE_URL, and
likewise for the other names of `SECRETS`. Services listen on all addresses of the container; the API on that
of `[api] address`, where set.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clm_core.domain.errors import CLMError, ServerUnavailable, SettingsError, StorageUnavailable
from clm_core.platform.interpreter import MODULE
from clm_core.platform.private_files import keep_files_private

if TYPE_CHECKING:
    from clm_core.domain.storage_settings import StorageSettings
    from clm_core.platform.database import Database
    from clm_core.settings import Settings

SECRETS = (
    "CLM_DATABASE_URL",
    "CLM_STORAGE__ACCESS_KEY",
    "CLM_STORAGE__SECRET_KEY",
    "CLM_ALERTS__URLS",
    "CLM_ALERTS__HEARTBEAT_URL",
    "PREFECT_API_AUTH_STRING",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
)
"""Variables whose value may stand in a file."""
ALL_ADDRESSES = "0.0.0.0"
PORTS = {"prefect": 4200, "mlflow": 5000, "api": 8000}
JOB_TEMPLATE = "JOB_TEMPLATE_FILE"
"""Variable with the path of the base job template that `deploy` gives a kubernetes work pool."""
MAKE_BUCKET = "MAKE_BUCKET"
"""Variable by which `migrate` makes a missing bucket, for a server of the installation's own."""
STORAGE_WITHIN_SECONDS = 60.0
"""Longest wait of `migrate` for the server of the bucket."""
PREFECT_WITHIN_SECONDS = 600.0
"""Longest wait of `deploy` for the Prefect server."""
PAUSE_SECONDS = 2.0
HEALTH_SECONDS = 4.0


@dataclass(frozen=True)
class Service:
    """Command line of a service, with variables beside those of the container."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def read_secrets(environment: MutableMapping[str, str]) -> None:
    """Replace NAME_FILE by NAME with the contents of the file, without the line break at the end.

    Raises:
        SettingsError: a file cannot be read, or both variables are set.
    """
    for name in SECRETS:
        path = environment.pop(f"{name}_FILE", None)
        if path is None:
            continue
        if name in environment:
            raise SettingsError(f"{name} and {name}_FILE are both set: set one of them.")
        try:
            environment[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SettingsError(f"{name}_FILE: {path} cannot be read ({error.strerror}).") from error


def api(settings: "Settings") -> Service:
    return Service((*MODULE, "clm_core.api", str(PORTS["api"]), settings.api.address or ALL_ADDRESSES))


def mlflow(settings: "Settings") -> Service:
    from deployments.stack import mlflow_environment

    port = PORTS["mlflow"]
    return Service(
        (*MODULE, "clm_core.registry.server", str(port), ALL_ADDRESSES),
        mlflow_environment(shared_database(settings), port),
    )


def prefect(settings: "Settings") -> Service:
    """Prefect's command for a server, after the upgrade of Prefect's tables."""
    from clm_core.platform.prefect_server import server_environment

    port = PORTS["prefect"]
    database = shared_database(settings)
    _upgrade_prefect(settings, database)
    return Service(
        (*MODULE, "prefect", "server", "start", "--host", ALL_ADDRESSES, "--port", str(port)),
        {
            **server_environment(database, settings.home / "prefect", f"http://localhost:{port}/api"),
            "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_SERVER_API_AUTH_STRING": os.environ.get("PREFECT_API_AUTH_STRING", ""),
        },
    )


def worker(settings: "Settings") -> Service:
    return _worker(settings, "default", settings.stack.concurrent_runs)


def maintenance(settings: "Settings") -> Service:
    from clm_core.platform.stack_state import MAINTENANCE_QUEUE
    from deployments.stack import MAINTENANCE_RUNS

    return _worker(settings, MAINTENANCE_QUEUE, MAINTENANCE_RUNS)


SERVICES: Mapping[str, Callable[["Settings"], Service]] = {
    "api": api,
    "mlflow": mlflow,
    "prefect": prefect,
    "worker": worker,
    "maintenance": maintenance,
}


def shared_database(settings: "Settings") -> "Database":
    """PostgreSQL server of the settings, with the databases of an installation.

    Raises:
        SettingsError: the settings name no server.
        DatabaseUnavailable: the server does not answer.
    """
    from clm_core.platform.database import open_database

    if settings.database_url is None:
        raise SettingsError(
            "The containers of an installation share a PostgreSQL server: set CLM_DATABASE_URL, or "
            "CLM_DATABASE_URL_FILE to a file with its URL."
        )
    with open_database(settings.home, settings.database_url) as database:
        return database


def migrate(settings: "Settings") -> None:
    """Upgrade the tables of the ledger, of MLflow and of Prefect to the releases in the image, and prove that
    the bucket of the settings can be written to.

    Raises:
        StorageUnavailable: the bucket cannot be used.
    """
    from clm_core.ledger import migrations
    from clm_core.registry.store_tables import creating_tables

    if settings.storage.url is not None:
        _prepare_bucket(settings.storage)
        print(f"storage: {settings.storage.url} can be written to")
    database = shared_database(settings)
    applied = migrations.upgrade(database.url("ledger", driver="psycopg"))
    print(f"ledger: applied {', '.join(applied)}" if applied else "ledger: nothing to do")
    uri = database.url("mlflow", driver="psycopg")
    with creating_tables(uri):
        _upgrade_mlflow(uri)
    print("mlflow: done")
    _upgrade_prefect(settings, database)


def _prepare_bucket(storage: "StorageSettings") -> None:
    from clm_core.platform.bucket import Bucket

    bucket = Bucket(storage)
    deadline = time.monotonic() + STORAGE_WITHIN_SECONDS
    while True:
        try:
            if os.environ.get(MAKE_BUCKET):
                bucket.make()
            bucket.require_writable()
            return
        except StorageUnavailable:
            # a server that starts beside this container
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def deploy(settings: "Settings") -> None:
    """Wait for Prefect, give a kubernetes work pool its job template, and make the deployments.

    Raises:
        ServerUnavailable: Prefect did not answer in time.
    """
    from deployments import definitions

    _wait_for_prefect(os.environ.get("PREFECT_API_URL", ""))
    if path := os.environ.get(JOB_TEMPLATE):
        write_template(settings, json.loads(Path(path).read_text(encoding="utf-8")))
    if definitions.main([]) != 0:
        sys.exit(1)


def write_template(settings: "Settings", template: dict[str, Any]) -> None:
    """Create the work pool of the settings with a base job template; an existing pool gets the template."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    pool = settings.deploy
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name=pool.work_pool, type=pool.work_pool_type, base_job_template=template),
            overwrite=True,
        )


ONCE: Mapping[str, Callable[["Settings"], None]] = {"migrate": migrate, "deploy": deploy}
"""Commands that end."""


def is_healthy(port: int, path: str = "/health") -> bool:
    """True if the service at a port of the container answers with status 200."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": f"localhost:{port}"})
    try:
        with urllib.request.urlopen(request, timeout=HEALTH_SECONDS) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def main(arguments: Sequence[str]) -> None:
    """Become the service or the command; `migrate`, `deploy` and `health` end in this process."""
    if arguments[0] == "health":
        sys.exit(not is_healthy(int(arguments[1]), *arguments[2:]))
    keep_files_private()
    try:
        read_secrets(os.environ)
        service = _service(arguments)
    except CLMError as error:
        sys.exit(f"Error: {error}")
    if service is not None:
        # a worker starts runs by `python`, which must be this interpreter
        os.environ["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        )
        # the variables of the container have the last word
        os.execvpe(service.command[0], service.command, {**service.environment, **os.environ})


def _service(arguments: Sequence[str]) -> Service | None:
    """Command to become; None after a command that is done."""
    name = arguments[0]
    if name not in SERVICES and name not in ONCE:
        return Service(tuple(arguments))
    from clm_core.settings import load_settings

    settings = load_settings()
    if name in ONCE:
        ONCE[name](settings)
        return None
    return SERVICES[name](settings)


def _worker(settings: "Settings", queue: str, max_runs: int) -> Service:
    from deployments.stack import client_environment

    pool = settings.deploy
    return Service(
        (
            *(*MODULE, "clm_core.platform.prefect_worker", "start", "--with-healthcheck"),
            *("--pool", pool.work_pool, "--type", pool.work_pool_type, "--work-queue", queue),
            *("--limit", str(max_runs), "--install-policy", "never", "--no-create-pool-if-not-found"),
        ),
        client_environment(settings),
    )


def _upgrade_mlflow(uri: str) -> None:
    """Upgrade MLflow's tables; missing tables are created by MLflow's server."""
    from mlflow.store.db import utils
    from sqlalchemy import NullPool, create_engine, inspect

    engine = create_engine(uri, poolclass=NullPool)
    if inspect(engine).has_table("alembic_version"):
        utils._upgrade_db(engine)  # type: ignore[no-untyped-call]


def _upgrade_prefect(settings: "Settings", database: "Database") -> None:
    """Upgrade Prefect's tables, by one container at a time: Prefect itself lets two migrations collide."""
    import psycopg

    from clm_core.platform.locks import AdvisoryLock
    from clm_core.platform.prefect_server import server_environment

    # in another database: CREATE INDEX CONCURRENTLY would wait for those who wait for the lock
    server = urlsplit(database.url("ledger"))._replace(scheme="postgresql").geturl()
    with psycopg.connect(server, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", [AdvisoryLock.PREFECT_TABLES])
        subprocess.run(
            [*MODULE, "prefect", "server", "database", "upgrade", "--yes"],
            env=os.environ | server_environment(database, settings.home / "prefect", ""),
            stdout=sys.stderr,
            check=True,
        )


def _wait_for_prefect(url: str) -> None:
    from clm_core.platform.prefect_runs import is_answering

    if not url:
        raise ServerUnavailable("PREFECT_API_URL is not set: set it to the address of Prefect's API.")
    deadline = time.monotonic() + PREFECT_WITHIN_SECONDS
    while not is_answering(f"{url}/health"):
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"Prefect does not answer at {url}: start its server first.")
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
