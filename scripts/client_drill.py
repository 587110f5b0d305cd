"""Client drill: official clients of other makers against a real `clm up`.

    python scripts/client_drill.py [--node FOLDER | --only PART ...] [--json FILE] [--keep FOLDER]

The trader of the examples follows promotions; the libraries of Standard Webhooks, Svix and CloudEvents send
signed messages and verify deliveries; clients generated from the OpenAPI description pass strict type checks;
MLflow's webhook is sent before and after `clm down; clm up`; MLflow's and Prefect's own clients and commands
work; and everything runs on a PostgreSQL server over TCP, as a role without CREATEDB. `--node` does the part
of Node's libraries alone, installed by name in the folder. Exit status 1 if anything differs.
"""

import argparse
import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from drill.home import MODEL, PROMOTE_ALL, SCRIPTS, SMALL, Client, Installation, versions_in_turn
from drill.postgres import database_server
from drill.servers import DrillFailed, wait_until
from jsonschema import Draft202012Validator

ROOT = SCRIPTS.parent
CLIENTS = SCRIPTS / "clients"
TOOLS = ROOT / ".venv-clients" / "bin"
"""Python clients of other makers, from scripts/clients.txt."""
NODE_PACKAGES = ("cloudevents@10", "openapi-typescript@7", "standardwebhooks@1", "svix@1", "typescript@5")
PROMOTION_SECONDS = 2.0
"""Longest time from a promotion to the order of the trader."""
CHANGES = 6
PATIENT_SECONDS = 120.0
LONG_WORK = (
    "/clm/events",
    "/clm/evolve",
    "/clm/evolve-strategies",
    "/clm/jobs/{job_id}/run",
    "/clm/shadow",
    "/clm/train",
    "/clm/tune",
    "/clm/watch",
)
"""Paths whose answers do not end, or that start work: part `openapi` of `make deploy-check` tries them."""
PARTS = ("trader", "senders", "schema", "openapi", "mlflow", "prefect", "rest", "postgres")
"""Parts of Python's clients."""
SETTINGS = """
universe = []
[policy]
file = "policy.toml"
[api]
writes_per_minute = 100000
failed_logins_per_minute = 100000
[webhooks.monitor]
secrets = ["{secret}"]
[webhooks.mlflow]
style = "mlflow"
secrets = ["{mlflow}"]
[[events.subscribers]]
url = "{subscriber}"
secret = "{secret}"
"""
CREATE_WEBHOOK = """
import sys
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent
events = [WebhookEvent.from_str("model_version_tag.set")]
MlflowClient().create_webhook("retrain", sys.argv[1], events, secret=sys.argv[2])
"""
PREFECT_CLIENT = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(len(client.read_deployments()))
"""


def announce(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


@dataclass
class Tried:
    """Clients that were tried, each with its version and what it showed."""

    rows: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, client: str, version_: str, showed: str, is_good: bool) -> None:
        announce(f"{'ok     ' if is_good else 'PROBLEM'} {client} {version_}: {showed}")
        self.rows.append({"client": client, "version": version_, "showed": showed})
        if not is_good:
            self.problems.append(f"{client} {version_}: {showed}")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose failure keeps no other from being tried."""
        try:
            yield
        except (DrillFailed, httpx.HTTPError, subprocess.SubprocessError, OSError, KeyError) as error:
            self.note(name, "", f"{type(error).__name__}: {str(error)[-800:]}", False)


class Subscriber(ThreadingHTTPServer):
    """Receiver of events that keeps every delivery as it came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.deliveries: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Deliveries)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/events"


class _Deliveries(BaseHTTPRequestHandler):
    server: Subscriber

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.deliveries.append({"headers": headers, "body": body})
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the deliveries are kept."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Drill:
    """An installation with secrets of the drill."""

    installation: Installation
    folder: Path
    secret: str
    mlflow_secret: str
    subscriber: Subscriber
    tried: Tried
    operator: str = ""
    viewer: str = ""

    def get(self, path: str, **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.viewer}"}
        answer = httpx.get(f"{self.installation.api}{path}", params=query, headers=headers, timeout=60)
        return answer.raise_for_status().json()

    def answered(self, source: str) -> int:
        """Number of messages of a source that the intake has answered."""
        answered = "processed_at IS NOT NULL AND error IS NULL"
        query = f"SELECT count(*) FROM inbox WHERE source = '{source}' AND {answered}"
        return int(self.installation.figure(query))


def output_of(
    *command: str | Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Standard output of a command.

    Raises:
        DrillFailed: the command failed.
    """
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        words = " ".join(Path(word).name for word in map(str, command[:4]))
        raise DrillFailed(f"{words}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


def try_senders(drill: Drill, language: str, *command: str | Path, cwd: Path | None = None) -> None:
    """Messages by official libraries are accepted and answered, and their receivers verify deliveries."""
    before = drill.answered("monitor")
    api = drill.installation.api
    answers = json.loads(output_of(*command, "send", api, drill.secret, cwd=cwd))
    for each in answers:
        said = each["said"].get("delivery") or each["said"].get("detail")
        drill.tried.note(
            f"{each['client']} ({language})",
            each["version"],
            f"message answered {each['status']}, {said}",
            each["status"] == httpx.codes.ACCEPTED and said == "new",
        )
    wait_until(
        lambda: drill.answered("monitor") >= before + len(answers),
        "the messages are answered",
        PATIENT_SECONDS,
    )
    wait_until(lambda: bool(drill.subscriber.deliveries), "a delivery", PATIENT_SECONDS)
    file = drill.folder / f"deliveries-{language}.json"
    file.write_text(json.dumps(drill.subscriber.deliveries))
    for each in json.loads(output_of(*command, "verify", drill.secret, file, cwd=cwd)):
        types = sorted(set(each["types"]))
        showed = f"{len(each['types'])} deliveries verified: {', '.join(types)}"
        drill.tried.note(f"{each['client']} ({language}, receiver)", each["version"], showed, bool(types))


def try_schema(drill: Drill) -> None:
    """Every delivery keeps the published schema."""
    published = httpx.get(f"{drill.installation.api}/clm/events/schema", timeout=60).json()
    schema = Draft202012Validator(published)
    bodies = [json.loads(each["body"]) for each in drill.subscriber.deliveries]
    broken = [body["type"] for body in bodies if not schema.is_valid(body)]
    drill.tried.note(
        "jsonschema",
        version("jsonschema"),
        f"{len(bodies)} deliveries, {len(broken)} break the schema",
        not broken,
    )


def try_trader(drill: Drill, client: Client, labels: tuple[str, str]) -> None:
    """The trader of the examples trades a promoted version within `PROMOTION_SECONDS`."""
    sys.path.insert(0, str(ROOT / "examples" / "trader"))
    from exchange import FakeExchange

    from clm_core.market.sources import MarketData

    installation = drill.installation
    market = MarketData(installation.home)
    candles = market.bars("BTCUSD", "1h", days=200, closed_by=datetime.now(UTC)).to_frame()
    numbers = {
        each["version"]["version"]: each["version"]["mlflow_version"]
        for each in drill.get("/clm/models", model_id=MODEL)["items"]
    }
    with FakeExchange(candles) as exchange, serving(exchange):
        environment = {
            "MODEL": MODEL,
            "MLFLOW_TRACKING_URI": installation.state.mlflow_url or "",
            "CLM_API": installation.api,
            "CLM_TOKEN": drill.viewer,
            "EXCHANGE_URL": exchange.url,
            "PATH": os.environ["PATH"],
            "HOME": str(drill.folder),
        }
        trader = subprocess.Popen([sys.executable, ROOT / "examples/trader/trader.py"], env=environment)
        try:
            wait_until(lambda: len(exchange.orders) == 1, "the first order of the trader", PATIENT_SECONDS)
            promoted = client.version_of(client.train("lightgbm", "BTCUSD", 62, **SMALL))
            answered = _promoted_at(drill, promoted)
            wait_until(lambda: len(exchange.orders) >= 2, "the order after the promotion", 60)
            reached = exchange.orders[-1]["at"] - answered
            seconds = []
            for turn in range(CHANGES):
                label = labels[turn % 2]
                began = time.time()
                client.roll_back(MODEL, label)
                orders = turn + 3
                wait_until(lambda n=orders: len(exchange.orders) >= n, "the next order", 60)  # type: ignore[misc]
                order = exchange.orders[-1]
                if order["version"] != numbers[label]:
                    raise DrillFailed(f"the trader trades {order['version']}, in production is {label}")
                seconds.append(order["at"] - began)
            installation.clm("halt", MODEL, "--reason", "drill")
            wait_until(lambda: len(exchange.orders) >= CHANGES + 3, "the order after the halt", 60)
            if exchange.orders[-1]["position"] != 0.0:
                raise DrillFailed("the trader holds a position of a halted model")
        finally:
            trader.kill()
            trader.wait()
    installation.clm("rollback", MODEL, "--to", labels[0], "--reason", "drill")
    showed = f"a promotion is traded {max(reached, 0.0):.2f} s after the answer of POST /clm/promote"
    drill.tried.note("examples/trader", "", showed, reached < PROMOTION_SECONDS)
    slowest = max(seconds)
    showed = f"{CHANGES} rollbacks are traded {min(seconds):.2f} to {slowest:.2f} s after the request"
    drill.tried.note("examples/trader", "", showed, slowest < PROMOTION_SECONDS)


def _promoted_at(drill: Drill, label: str) -> float:
    """Time of the answer to a promotion, seconds since 1970."""
    httpx.post(
        f"{drill.installation.api}/clm/promote",
        json={"model_id": MODEL, "version": label, "reason": "drill"},
        headers={"Authorization": f"Bearer {drill.operator}"},
        timeout=120,
    ).raise_for_status()
    return time.time()


def try_mlflow(drill: Drill) -> None:
    """MLflow's client and command read by HTTP with a token, and its webhook requests a retrain."""
    installation = drill.installation
    with_token = installation.environment | {
        "MLFLOW_TRACKING_URI": installation.state.mlflow_url or "",
        "MLFLOW_TRACKING_TOKEN": drill.operator,
    }
    program = (
        "from mlflow import MlflowClient\n"
        f"print(MlflowClient().get_model_version_by_alias({MODEL!r}, 'production').version)\n"
    )
    number = output_of(sys.executable, "-c", program, environment=with_token).strip()
    drill.tried.note(
        "mlflow, MlflowClient", version("mlflow"), f"production is version {number}", number.isdigit()
    )
    mlflow = Path(sys.executable).with_name("mlflow")
    listed = output_of(mlflow, "experiments", "search", environment=with_token)
    drill.tried.note("mlflow, command", version("mlflow"), "lists the experiments", "clm" in listed)
    if not drill.answered("mlflow"):
        receiver = f"{installation.api}/webhooks/mlflow"
        command = (sys.executable, "-c", CREATE_WEBHOOK, receiver, drill.mlflow_secret)
        installation.clm("exec", "--", *command)
    _request_by_tag(drill, number)


def _request_by_tag(drill: Drill, number: str) -> None:
    before = drill.answered("mlflow")
    # a new webhook is seen within a minute; a tag of another value is another message
    deadline = time.monotonic() + PATIENT_SECONDS
    while drill.answered("mlflow") == before:
        if time.monotonic() > deadline:
            raise DrillFailed("MLflow's webhook requested no retrain")
        httpx.post(
            f"{drill.installation.state.mlflow_url}/api/2.0/mlflow/model-versions/set-tag",
            json={"name": MODEL, "version": number, "key": "clm.retrain", "value": str(time.time())},
            headers={"Authorization": f"Bearer {drill.operator}"},
            timeout=60,
        ).raise_for_status()
        with suppress(DrillFailed):
            wait_until(lambda: drill.answered("mlflow") > before, "the webhook of MLflow", 15)
    drill.tried.note("mlflow, webhook", version("mlflow"), "the tag clm.retrain requested a retrain", True)


def try_prefect(drill: Drill) -> None:
    """Prefect's client and command, by `clm exec` and with the two variables of the documentation."""
    installation = drill.installation
    number = version("prefect")
    listed = installation.clm("exec", "--", "prefect", "deployment", "ls")
    drill.tried.note(
        "prefect, by clm exec", version("prefect"), "lists the deployments", "maintenance" in listed
    )
    own = {name: each for name, each in installation.environment.items() if not name.startswith("CLM_")}
    own["PREFECT_API_URL"] = f"{installation.state.prefect_url}/api"
    own["PREFECT_API_AUTH_STRING"] = (installation.home / "stack" / "prefect.auth").read_text().strip()
    own["PREFECT_HOME"] = str(drill.folder / "prefect")
    prefect = Path(sys.executable).with_name("prefect")
    ran = output_of(prefect, "deployment", "run", "watch/watch", "--watch", environment=own)
    drill.tried.note(
        "prefect, command", version("prefect"), "runs watch/watch to its end", "Completed" in ran
    )
    _cancel_a_run(drill, own, prefect)
    count = output_of(sys.executable, "-c", PREFECT_CLIENT, environment=own).strip()
    drill.tried.note("prefect, client", number, f"reads {count} deployments", int(count) > 5)


def _cancel_a_run(drill: Drill, environment: Mapping[str, str], prefect: Path) -> None:
    """A run cancelled by Prefect's command leaves a job that says so."""
    client = Client(drill.installation, drill.operator)
    job = client.train("lightgbm", "EURUSD", 360, rounds=2000)
    wait_until(lambda: client.job(job)["status"] == "in_progress", "the training begins", PATIENT_SECONDS)
    run = drill.installation.figure(f"SELECT run_id FROM job_runs WHERE job_id = '{job}'")
    output_of(prefect, "flow-run", "cancel", str(run), environment=environment)
    cause = client.ended(job)["failure_cause"]
    showed = f"flow-run cancel: the job is {cause!r}"
    drill.tried.note(
        "prefect, command", version("prefect"), showed, cause == "cancelled by a person in Prefect"
    )


def try_generated_python(drill: Drill, label: str) -> None:
    """A client generated by openapi-python-client passes mypy, reads every answer, and leaves out what its
    user left out."""
    client = drill.folder / "generated"
    description = f"{drill.installation.api}/openapi.json"
    generator = TOOLS / "openapi-python-client"
    output_of(
        generator, "generate", "--url", description, "--output-path", client / "clm_client", "--meta", "none"
    )
    # the template of the generator itself, whose httpx types have changed
    (client / "mypy.ini").write_text(
        "[mypy]\nstrict = True\n[mypy-clm_client.client]\nignore_errors = True\n"
    )
    output_of(TOOLS / "mypy", "--config-file", "mypy.ini", "-p", "clm_client", cwd=client)
    program = (TOOLS / "python", CLIENTS / "generated.py")
    arguments = (drill.installation.api, drill.operator, MODEL, label)
    beside = {**os.environ, "PYTHONPATH": str(client)}
    report = json.loads(output_of(*program, *arguments, environment=beside, cwd=client))
    number = output_of(generator, "--version").split()[-1]
    requester = report["requester"]
    showed = (
        f"mypy --strict passes, {len(report['read'])} operations read, a retrain requested by {requester}"
    )
    drill.tried.note("openapi-python-client", number, showed, requester == "drill-operator")


def try_generated_types(drill: Drill, node: Path) -> None:
    """Types generated by openapi-typescript pass tsc."""
    description = drill.folder / "openapi.json"
    description.write_text(httpx.get(f"{drill.installation.api}/openapi.json", timeout=60).text)
    output_of("npx", "openapi-typescript", description, "-o", "api.ts", cwd=node)
    shutil.copy(CLIENTS / "uses.ts", node)
    options = ("--noEmit", "--strict", "--exactOptionalPropertyTypes", "--skipLibCheck")
    output_of("npx", "tsc", *options, "--target", "es2022", "--moduleResolution", "node", "uses.ts", cwd=node)
    number = json.loads((node / "node_modules/openapi-typescript/package.json").read_text())["version"]
    drill.tried.note("openapi-typescript", number, "tsc --strict passes", True)


def try_rest(drill: Drill) -> None:
    """schemathesis as three roles, in all phases, on every path that starts no work of minutes."""
    number = version("schemathesis")
    for role in ("viewer", "operator", "admin"):
        command = (
            Path(sys.executable).with_name("schemathesis"),
            *("run", f"{drill.installation.api}/openapi.json", "--no-color", "--warnings=off"),
            *(
                "--phases=examples,coverage,fuzzing,stateful",
                "--max-examples=3",
                "--generation-deterministic",
            ),
            # a valid request may still be refused, such as a symbol without bars
            *("--checks=all", "--exclude-checks=positive_data_acceptance", "--request-timeout=60"),
            *(f"--exclude-path={path}" for path in LONG_WORK),
            f"--header=Authorization: Bearer {drill.installation.token(role)}",
        )
        output_of(*command, cwd=drill.folder)
        drill.tried.note("schemathesis", number, f"every answer as described, as {role}", True)


def try_postgres(drill: Drill) -> None:
    """A home on a PostgreSQL server over TCP, as a role made by the SQL of the documentation."""
    with database_server(drill.folder / "postgres") as server:
        server.run_documented_grants()
        home = drill.folder / "tcp"
        home.mkdir(mode=0o700)
        (home / "clm.toml").write_text("universe = []\n")
        installation = Installation(home, CLM_DATABASE_URL=server.url)
        with installation.up():
            health = httpx.get(f"{installation.api}/health", timeout=60).json()["status"]
    showed = f"`clm up` over TCP as a role without CREATEDB: health {health}"
    drill.tried.note("PostgreSQL", server.version, showed, health == "ok")


def run(folder: Path, node: Path | None, only: Sequence[str] | None) -> Tried:
    """
    Args:
        node: folder with Node's packages, for the part of Node alone; None for all others.
        only: names of the parts to try; None for all.
    """
    tried = Tried()
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    with Subscriber() as subscriber, serving(subscriber):
        home = folder / "home"
        home.mkdir(mode=0o700, parents=True)
        (home / "policy.toml").write_text(PROMOTE_ALL)
        drill = Drill(Installation(home), folder, secret, secrets.token_urlsafe(24), subscriber, tried)
        settings = home / "clm.toml"
        settings.write_text(
            SETTINGS.format(secret=secret, mlflow=drill.mlflow_secret, subscriber=subscriber.url)
        )
        settings.chmod(0o600)
        try:
            _try_in_node(drill, node) if node is not None else _try_all(drill, only or PARTS)
        finally:
            drill.installation.kill()
    return tried


def _start(drill: Drill) -> None:
    announce("clm up")
    drill.installation.clm("up", "--detach")
    drill.operator = drill.operator or drill.installation.token("operator")
    drill.viewer = drill.viewer or drill.installation.token("viewer")


def _try_in_node(drill: Drill, node: Path) -> None:
    _start(drill)
    with drill.tried.part("senders in Node"):
        try_senders(drill, "Node", "node", CLIENTS / "senders.mjs", cwd=node)
    with drill.tried.part("openapi-typescript"):
        try_generated_types(drill, node)
    drill.installation.clm("down")


def _try_all(drill: Drill, only: Sequence[str]) -> None:
    if set(only) != {"postgres"}:
        _start(drill)
        client = Client(drill.installation, drill.operator)
        labels = versions_in_turn(drill.installation, client)
        announce(f"{MODEL}: {' and '.join(labels)} were promoted")
        python = (TOOLS / "python", CLIENTS / "senders.py")
        attempts: Mapping[str, Callable[[], None]] = {
            "trader": lambda: try_trader(drill, client, labels),
            "senders": lambda: try_senders(drill, "Python", *python),
            "schema": lambda: try_schema(drill),
            "openapi": lambda: try_generated_python(drill, labels[0]),
            "mlflow": lambda: try_mlflow(drill),
            "prefect": lambda: try_prefect(drill),
        }
        for name, attempt in attempts.items():
            if name in only:
                with drill.tried.part(name):
                    attempt()
        drill.installation.clm("down")
        _start(drill)
        if "mlflow" in only:
            with drill.tried.part("mlflow, after a restart"):
                try_mlflow(drill)
        if "rest" in only:
            # last, since its admin halts models
            with drill.tried.part("rest"):
                try_rest(drill)
        drill.installation.clm("down")
    if "postgres" in only:
        with drill.tried.part("postgres"):
            try_postgres(drill)


def installed_packages(folder: Path) -> Path:
    """Folder with Node's packages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    output_of("npm", "install", "--no-audit", "--no-fund", "--silent", *NODE_PACKAGES, cwd=folder)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--node", type=Path, metavar="FOLDER", help="Node's libraries alone, installed there")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts of Python's clients alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the clients that were tried")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all files in a new folder")
    options = parser.parse_args()
    # files of an embedded server belong to its own user, who has to reach them
    with tempfile.TemporaryDirectory(prefix="clm-drill-") as temporary:
        os.chmod(temporary, 0o755)
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        tried = Tried()
        try:
            node = None if options.node is None else installed_packages(options.node.absolute())
            tried = run(folder, node, options.only)
        except DrillFailed as error:
            tried.problems.append(f"The drill ended early: {error}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(tried.rows, indent=2))
    for problem in tried.problems:
        print(f"PROBLEM: {problem}")
    print(f"Client drill: {len(tried.rows)} clients tried, {len(tried.problems)} problems.")
    return 1 if tried.problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
