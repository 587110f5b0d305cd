"""Secrets in Vault or OpenBao, read when used and kept in the memory of the process alone.

A value is read again after a stated time, for a rotation without a restart, and is never used for longer:
while the server is sealed, denies or does not answer, a secret is refused. The login is renewed after two
thirds of the granted time, and made anew where the server does not renew the login.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clm_core.domain.errors import MissingExtra
from clm_core.domain.secret_references import UnreadableSecret
from clm_core.domain.vault_settings import VaultLogin, VaultSettings

if TYPE_CHECKING:
    from pathlib import Path

    from hvac import Client

REREAD_AFTER_SECONDS = 1.0
"""Shortest time between two readings of a path: forged signatures must not become a storm of requests."""
RETRY_AFTER_SECONDS = 5.0
"""Time for which a refusal stands for all uses of a path: a silent server costs one time limit, not many."""
RENEWED_AT = 2 / 3
"""Fraction of the time of a login after which the login is renewed."""
SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
CREDENTIALS = {VaultLogin.TOKEN: "VAULT_TOKEN", VaultLogin.APPROLE: "VAULT_SECRET_ID"}
"""Variables with the credential of a login."""


@dataclass(frozen=True)
class _Reading:
    """Answer of the server about a path."""

    at: float
    values: Mapping[str, Any]
    problem: str | None = None
    """Reason why there are no values."""


@dataclass(frozen=True)
class _Session:
    """A login."""

    client: "Client"
    pid: int
    renew_at: float
    is_renewable: bool


class Vault:
    """Server of the settings, reached at the first use of a secret."""

    def __init__(
        self,
        settings: VaultSettings,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            environment: variables with the credentials; by default those of the process.
            clock: seconds, never going back.
        """
        self._settings = settings
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._lock = threading.Lock()
        self._readings: dict[str, _Reading] = {}
        self._asked: dict[str, float] = {}
        self._session: _Session | None = None

    def read(self, path: str, key: str) -> str:
        """Value of a key of a secret, at most `reread_seconds` old.

        Args:
            path: mount and path of the secret.

        Raises:
            UnreadableSecret: sealed, denied, unreachable, or no such path or key.
            MissingExtra: hvac is not installed.
        """
        reading = self._fresh(path) or self._read(path)
        if reading.problem is not None:
            raise UnreadableSecret(reading.problem)
        value = reading.values.get(key)
        if not isinstance(value, str) or not value:
            raise UnreadableSecret(f"the secret has no text under the key {key}")
        return value

    def read_again(self, path: str) -> bool:
        """Read a path anew, as after a refused signature; False if nothing can have changed.

        The former reading stays in use for its time if the server refuses or is silent: forged signatures
        must not end the time sooner. Whoever asks a silent server waits, all others use the reading.
        """
        began = self._clock()
        if not self._lock.acquire(timeout=REREAD_AFTER_SECONDS):
            return False
        try:
            before = self._readings.get(path)
            if before is not None and before.at > began:
                return True
            if began - self._asked.get(path, -math.inf) < REREAD_AFTER_SECONDS:
                return False
            answer = self._ask(path)
            if answer.problem is not None and self._fresh(path) is not None:
                return False
            self._readings[path] = answer
            return True
        finally:
            self._lock.release()

    def _fresh(self, path: str) -> _Reading | None:
        """Reading of a path, unless too old."""
        reading = self._readings.get(path)
        if reading is None:
            return None
        lasts = self._settings.reread_seconds if reading.problem is None else RETRY_AFTER_SECONDS
        return reading if self._clock() - reading.at < lasts else None

    def _read(self, path: str) -> _Reading:
        with self._lock:
            # of several threads that wait, the first asks for all
            reading = self._fresh(path) or self._ask(path)
            self._readings[path] = reading
        return reading

    def _ask(self, path: str) -> _Reading:
        """Ask the server; a revoked or expired login is made anew once."""
        is_new = self._session is None
        try:
            reading = self._answer(path)
        except _Denied as error:
            reading = self._refusal(error) if is_new else self._answer_after_login(path)
        self._asked[path] = self._clock()
        return reading

    def _answer_after_login(self, path: str) -> _Reading:
        self._session = None
        try:
            return self._answer(path)
        except _Denied as error:
            return self._refusal(error)

    def _answer(self, path: str) -> _Reading:
        try:
            client = self._logged_in()
            with self._reasons(f"the policy of the login must allow to read {path}"):
                return _Reading(self._clock(), _secret(client, path))
        except _Denied:
            raise
        except UnreadableSecret as error:
            return self._refusal(error)

    def _refusal(self, error: UnreadableSecret) -> _Reading:
        return _Reading(self._clock(), {}, str(error))

    def _logged_in(self) -> "Client":
        """Client with a login valid for a while."""
        session = self._session
        # a fork must not share the connection of its parent
        if session is None or session.pid != os.getpid():
            session = self._log_in()
        elif self._clock() >= session.renew_at:
            session = self._renew(session)
        self._session = session
        return session.client

    def _renew(self, session: _Session) -> _Session:
        if not session.is_renewable:
            return self._log_in()
        try:
            with self._reasons("the login cannot be renewed"):
                return self._session_of(session.client, session.client.auth.token.renew_self()["auth"])
        except _Denied:
            return self._log_in()

    def _log_in(self) -> _Session:
        """
        Raises:
            UnreadableSecret: the server refuses the login, or a credential is missing.
        """
        settings = self._settings
        client = self._client()
        credential = self._credential()
        mount = settings.login_mount or str(settings.login)
        with self._reasons(f"check the credential of the login by {settings.login}"):
            match settings.login:
                case VaultLogin.TOKEN:
                    client.token = credential
                    return self._session_of_token(client)
                case VaultLogin.APPROLE:
                    answer = client.auth.approle.login(settings.role, credential, mount_point=mount)
                case VaultLogin.KUBERNETES:
                    answer = client.auth.kubernetes.login(settings.role, credential, mount_point=mount)
            return self._session_of(client, answer["auth"])

    def _client(self) -> "Client":
        try:
            from hvac import Client
        except ImportError as error:
            raise MissingExtra("hvac", "vault") from error
        settings = self._settings
        if settings.address is None:
            raise UnreadableSecret("[vault] address is not set")
        if settings.ca is not None and not settings.ca.is_file():
            raise UnreadableSecret(f"[vault] ca {settings.ca} is no file")
        return Client(
            url=settings.address,
            # an empty text: otherwise hvac takes the token of ~/.vault-token
            token="",
            verify=True if settings.ca is None else str(settings.ca),
            timeout=settings.timeout_seconds,
            namespace=settings.namespace,
            allow_redirects=False,
        )

    def _session_of(self, client: "Client", auth: Mapping[str, Any]) -> _Session:
        lasts = auth["lease_duration"]
        renew_at = self._clock() + RENEWED_AT * lasts if lasts else math.inf
        return _Session(client, os.getpid(), renew_at, auth["renewable"])

    def _session_of_token(self, client: "Client") -> _Session:
        """Session of a token of an administrator, issued some time ago, perhaps for ever."""
        token = client.auth.token.lookup_self()["data"]
        left = token["ttl"]
        whole = token.get("period") or token["creation_ttl"]
        renew_at = self._clock() + left - (1 - RENEWED_AT) * whole if left else math.inf
        session = _Session(client, os.getpid(), renew_at, bool(token.get("renewable")))
        return session if self._clock() < renew_at or not session.is_renewable else self._renew(session)

    def _credential(self) -> str:
        settings = self._settings
        if settings.credential_file is not None:
            return _content(settings.credential_file)
        if settings.login is VaultLogin.KUBERNETES:
            from pathlib import Path

            return _content(Path(SERVICE_ACCOUNT_TOKEN))
        variable = CREDENTIALS[settings.login]
        if not self._environment.get(variable):
            raise UnreadableSecret(f"neither {variable} nor [vault] credential_file names a credential")
        return self._environment[variable].strip()

    @contextmanager
    def _reasons(self, advice: str) -> Iterator[None]:
        """Errors of the block as reasons; the answers of the server to an error hold no secret."""
        import requests
        from hvac import exceptions

        server = f"the server {self._settings.address}"
        try:
            yield
        except (exceptions.Forbidden, exceptions.Unauthorized, exceptions.InvalidRequest) as error:
            raise _Denied(f"{server} refuses: {advice}") from error
        except exceptions.InvalidPath as error:
            raise UnreadableSecret(f"{server} has no secret there, or the newest is deleted") from error
        except (exceptions.VaultDown, exceptions.VaultNotInitialized) as error:
            raise UnreadableSecret(f"{server} is sealed: unseal it") from error
        except exceptions.VaultError as error:
            raise UnreadableSecret(f"{server} failed ({type(error).__name__})") from error
        except requests.exceptions.SSLError as error:
            raise UnreadableSecret(f"the certificate of {server} is not trusted: set [vault] ca") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise UnreadableSecret(f"{server} does not answer ({type(error).__name__})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableSecret(f"{server} answers unlike Vault or OpenBao") from error


class _Denied(UnreadableSecret):
    """The server refuses a login, or does not let the login read a path."""


def _secret(client: "Client", path: str) -> Mapping[str, Any]:
    """Keys and values of a secret; the server names mount and version of the key-value store."""
    store = client.adapter.get(f"/v1/sys/internal/ui/mounts/{path}")["data"]
    mount = store["path"]
    rest = path.removeprefix(mount)
    if (store["options"] or {}).get("version") == "2":
        answer = client.secrets.kv.v2.read_secret_version(
            rest, mount_point=mount.rstrip("/"), raise_on_deleted_version=True
        )
        return dict(answer["data"]["data"])
    return dict(client.secrets.kv.v1.read_secret(rest, mount_point=mount.rstrip("/"))["data"])


def _content(file: "Path") -> str:
    try:
        content = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise UnreadableSecret(f"the credential {file} cannot be read ({reason})") from error
    if not content:
        raise UnreadableSecret(f"the credential {file} is empty")
    return content
