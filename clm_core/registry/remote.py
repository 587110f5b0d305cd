"""Versions behind an MLflow server, read over HTTP with a token of the caller: neither mlflow nor a home.

The token goes to this server alone, and into no variable of the process.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from clm_core.domain.errors import (
    ArgumentRefused,
    BundleCorrupt,
    ConflictError,
    ModelHalted,
    NotAuthenticated,
    NotFound,
    RegistryUnavailable,
)
from clm_core.domain.vocabulary import ModelStatus
from clm_core.platform.trusted_certificates import trusted_certificates
from clm_core.registry import integrity
from clm_core.registry.loading import HALT, RECORD

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 10.0
MAX_BYTES = 256 * 2**20
"""Maximum size of a version fetched."""
MAX_FILES = 1000
DIGEST_TAG = "clm.bundle_digest"
STATUS_TAG = "clm.status"
_API = "/api/2.0/mlflow"
# MLflow hands out the files of a version below the addresses of its pages alone
_FILES = "/ajax-api/2.0/mlflow/logged-models"
_MODELS = "models:/"
NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's code of a record that does not exist."""


class RemoteRegistry:
    """Versions of an MLflow server: of `clm up`, or any other whose files the server itself can read."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """
        Args:
            url: address of the server, as `clm up` prints it.
            token: token of `clm tokens create`, at least a viewer's; None for an open server.

        Raises:
            ArgumentRefused: the address is no HTTP address.
        """
        if not url.startswith(("http://", "https://")):
            raise ArgumentRefused(
                f"mlflow={url!r} is no address of a server: pass http://HOST:PORT, as `clm up` prints it. "
                "For a database or a folder pass registry=MLflowRegistry(uri) and ledger="
            )
        self._url = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._url

    def aliased(self, model_id: str, alias: str) -> int | None:
        """MLflow's number of the version behind an alias; None without such an alias or model.

        Raises:
            ConflictError: `production` names a version that no promotion put there.
            NotAuthenticated: the token is missing, wrong or expired.
            RegistryUnavailable: the server does not answer.
        """
        with self._client() as client:
            try:
                answer = _answer(client, f"{_API}/registered-models/alias", name=model_id, alias=alias)
            except NotFound:
                return None
        return int(answer["model_version"]["version"])

    def require_not_halted(self, model_id: str) -> None:
        """
        Raises:
            ModelHalted: the server's ledger has the model as halted.
        """
        answer = self._of_ledger(HALT, name=model_id)
        if answer is not None and answer["halted"] is not None:
            raise ModelHalted(answer["halted"])

    def tagged_digest(self, model_id: str, mlflow_version: int) -> str:
        """Digest of the bundle in the server's ledger; in MLflow's tag on a server without one.

        Raises:
            NotFound: the version does not exist, or was not registered by CLM.
        """
        record = self._of_ledger(RECORD, name=model_id, version=str(mlflow_version))
        if record is not None:
            return str(record["bundle_digest"])
        tags = self._tags(model_id, mlflow_version)
        if DIGEST_TAG not in tags:
            raise NotFound(f"Version {mlflow_version} of {model_id} in MLflow was not registered by CLM.")
        return tags[DIGEST_TAG]

    def tagged_status(self, model_id: str, mlflow_version: int) -> ModelStatus:
        """Status in the server's ledger; in MLflow's tag on a server without one."""
        record = self._of_ledger(RECORD, name=model_id, version=str(mlflow_version))
        if record is not None:
            return ModelStatus(record["status"])
        return ModelStatus(self._tags(model_id, mlflow_version)[STATUS_TAG])

    @contextlib.contextmanager
    def verified(self, model_id: str, mlflow_version: int, package_digest: str | None) -> Iterator[Path]:
        """A private, unverified copy of a version's bundle; no other file of the version is fetched.

        Raises:
            BundleCorrupt: the version is too large to fetch, or names a file outside its folder.
            RegistryUnavailable: the files cannot be read.
        """
        with tempfile.TemporaryDirectory() as folder, self._client() as client:
            source = _version(client, model_id, mlflow_version)["source"]
            if not source.startswith(_MODELS):
                raise RegistryUnavailable(
                    f"{model_id} {mlflow_version} lies at {source}, which this server hands out to nobody: "
                    "pass registry=MLflowRegistry(uri) and ledger="
                )
            stored = f"{_FILES}/{source.removeprefix(_MODELS)}/artifacts"
            bundle = Path(folder) / integrity.BUNDLE.name
            bundle.mkdir()
            _fetch_folder(client, stored, integrity.BUNDLE.as_posix(), bundle)
            yield bundle

    def _of_ledger(self, path: str, **query: str) -> Mapping[str, Any] | None:
        """Answer of the server's ledger; None for a server without one, or of an earlier release."""
        with self._client() as client:
            answer = client.get(path, params=query)
            if answer.status_code in (403, 404) and _code(answer)[0] != NOT_THERE:
                return None
            return _content(client, path, answer)

    def _tags(self, model_id: str, mlflow_version: int) -> dict[str, str]:
        with self._client() as client:
            version = _version(client, model_id, mlflow_version)
        return {tag["key"]: tag["value"] for tag in version.get("tags", ())}

    @contextlib.contextmanager
    def _client(self) -> Iterator["httpx.Client"]:
        import httpx

        try:
            with httpx.Client(
                base_url=self._url,
                headers=self._headers,
                timeout=TIMEOUT_SECONDS,
                verify=trusted_certificates(),
            ) as client:
                yield client
        except httpx.HTTPError as error:
            raise RegistryUnavailable(
                f"MLflow at {self._url} does not answer ({type(error).__name__}: {error}): try again, or see "
                "`clm status` there."
            ) from error


def _version(client: "httpx.Client", model_id: str, mlflow_version: int) -> Mapping[str, Any]:
    answer = _answer(client, f"{_API}/model-versions/get", name=model_id, version=str(mlflow_version))
    version: Mapping[str, Any] = answer["model_version"]
    return version


def _fetch_folder(client: "httpx.Client", stored: str, folder: str, into: Path) -> None:
    """Fetch the files of a flat folder, at most `MAX_FILES` and `MAX_BYTES` of them."""
    listed = _answer(client, f"{stored}/directories", artifact_directory_path=folder).get("files", ())
    if not listed:
        raise RegistryUnavailable(
            f"MLflow could not read {folder}: the files are missing. Restore the version from a backup."
        )
    if len(listed) > MAX_FILES:
        raise BundleCorrupt(f"{folder} holds more than {MAX_FILES} files")
    left = MAX_BYTES
    for entry in listed:
        path = PurePosixPath(entry["path"])
        if str(path.parent) != folder or path.name in ("", ".", ".."):
            raise BundleCorrupt(f"MLflow names {entry['path']!r} as a file of {folder}")
        with client.stream("GET", f"{stored}/files", params={"artifact_file_path": str(path)}) as answer:
            if not answer.is_success:
                answer.read()
                _refuse(answer)
            with (into / path.name).open("wb") as file:
                for chunk in answer.iter_bytes():
                    left -= len(chunk)
                    if left < 0:
                        raise BundleCorrupt(f"{folder} holds more than {MAX_BYTES / 2**20:g} MiB")
                    file.write(chunk)


def _answer(client: "httpx.Client", path: str, **query: str) -> Mapping[str, Any]:
    """JSON of a successful answer.

    Raises:
        NotFound, ConflictError, NotAuthenticated, RegistryUnavailable: see `RemoteRegistry`.
    """
    return _content(client, path, client.get(path, params=query))


def _content(client: "httpx.Client", path: str, answer: "httpx.Response") -> Mapping[str, Any]:
    if not answer.is_success:
        _refuse(answer)
    try:
        content: Mapping[str, Any] = answer.json()
    except ValueError as error:
        raise RegistryUnavailable(
            f"{client.base_url} answers {path} with something other than JSON: is it the address of MLflow?"
        ) from error
    return content


def _code(answer: "httpx.Response") -> tuple[str, str]:
    """MLflow's code and message of an error; an empty code for an answer of another server."""
    try:
        fields = answer.json()
        return fields["error_code"], fields["message"]
    except (ValueError, KeyError, TypeError):
        return "", f"status {answer.status_code}"


def _refuse(answer: "httpx.Response") -> None:
    code, message = _code(answer)
    address = answer.request.url.copy_with(query=None)
    match answer.status_code:
        case 401 | 403:
            raise NotAuthenticated(f"{address} refuses the token: {message}")
        case 409:
            raise ConflictError(message)
        # without an alias MLflow calls the request invalid
        case 404 | 400 if code in (NOT_THERE, "INVALID_PARAMETER_VALUE"):
            raise NotFound(message)
    hint = "" if code else ": is it the address of MLflow's server, as `clm up` prints it?"
    raise RegistryUnavailable(f"{address} answered with an error: {message}{hint}")
