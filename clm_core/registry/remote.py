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
    NotAuthenticated,
    NotFound,
    RegistryUnavailable,
)
from clm_core.domain.vocabulary import ModelStatus
from clm_core.platform.trusted_certificates import trusted_certificates
from clm_core.registry import integrity

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 10.0
MAX_BYTES = 256 * 2**20
"""Maximum size of a version fetched."""
MAX_FILES = 1000
DIGEST_TAG, STATUS_TAG = "clm.bundle_digest", "clm.status"
_API = "/api/2.0/mlflow"
# MLflow hands out the files of a version below the addresses of its pages alone
_FILES = "/ajax-api/2.0/mlflow/logged-models"
_MODELS = "models:/"


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
                found = _asked(client, f"{_API}/registered-models/alias", name=model_id, alias=alias)
            except NotFound:
                return None
        return int(found["model_version"]["version"])

    def tagged_digest(self, model_id: str, mlflow_version: int) -> str:
        """Digest of the bundle in MLflow's tag.

        Raises:
            NotFound: the version does not exist, or was not registered by CLM.
        """
        tags = self._tags(model_id, mlflow_version)
        if DIGEST_TAG not in tags:
            raise NotFound(f"Version {mlflow_version} of {model_id} in MLflow was not registered by CLM.")
        return tags[DIGEST_TAG]

    def tagged_status(self, model_id: str, mlflow_version: int) -> ModelStatus:
        """Status in MLflow, which follows the status in the ledger with a short delay."""
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
    found = _asked(client, f"{_API}/model-versions/get", name=model_id, version=str(mlflow_version))
    version: Mapping[str, Any] = found["model_version"]
    return version


def _fetch_folder(client: "httpx.Client", stored: str, folder: str, into: Path) -> None:
    """Fetch the files of a flat folder, at most `MAX_FILES` and `MAX_BYTES` of them."""
    listed = _asked(client, f"{stored}/directories", artifact_directory_path=folder).get("files", ())
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


def _asked(client: "httpx.Client", path: str, **query: str) -> Mapping[str, Any]:
    """JSON of a successful answer.

    Raises:
        NotFound, ConflictError, NotAuthenticated, RegistryUnavailable: see `RemoteRegistry`.
    """
    answer = client.get(path, params=query)
    if not answer.is_success:
        _refuse(answer)
    try:
        found: Mapping[str, Any] = answer.json()
    except ValueError as error:
        raise RegistryUnavailable(
            f"{client.base_url} answers {path} with something other than JSON: is it the address of MLflow?"
        ) from error
    return found


def _refuse(answer: "httpx.Response") -> None:
    try:
        fields = answer.json()
        code, message = fields["error_code"], fields["message"]
    except (ValueError, KeyError, TypeError):
        code, message = "", f"status {answer.status_code}"
    address = answer.request.url.copy_with(query=None)
    match answer.status_code:
        case 401 | 403:
            raise NotAuthenticated(f"{address} refuses the token: {message}")
        case 409:
            raise ConflictError(message)
        # without an alias MLflow calls the request invalid
        case 404 | 400 if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise NotFound(message)
    hint = "" if code else ": is it the address of MLflow's server, as `clm up` prints it?"
    raise RegistryUnavailable(f"{address} answered with an error: {message}{hint}")
