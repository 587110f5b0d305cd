"""Bucket of an S3 server: whole objects, written on condition, and errors with advice.

A put is atomic on every S3 server: readers see the former object or the whole new object. Two conditions keep
the writes of several machines apart (`If-None-Match: *` and `If-Match`); a server without conditions is
refused before the first write.
"""

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from clm_core.domain.errors import MissingExtra, SettingsError, StorageUnavailable
from clm_core.domain.storage_settings import StorageSettings

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

EXTRA = "s3"
DEFAULT_REGION = "us-east-1"
"""Region in the signatures for servers that have none."""
ATTEMPTS = 3
"""Attempts of a request before an error."""
PROBE_SECONDS = 1.5
"""Longest wait of a look at the server, once to connect and once for the answer: the checks of containers
wait for 4 seconds."""
DELETED_AT_ONCE = 1000
"""Limit of S3 for one request."""
PROBE = "clm-probe"
"""Key of the object that tests whether the server heeds conditions."""
_UNMET = frozenset({HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT})
_ABSENT = "*"
_connecting = threading.Lock()
_NEVER = '"00000000000000000000000000000000"'
"""Etag of no content."""


@dataclass(frozen=True)
class StoredObject:
    """A whole object."""

    content: bytes
    etag: str
    """Version of the content, for a condition."""


@dataclass(frozen=True)
class ListedObject:
    """An object in a list."""

    key: str
    size: int
    """Bytes."""


class Bucket:
    """Objects below the prefix of the settings; keys are relative to the prefix."""

    def __init__(self, settings: StorageSettings, attempts: int = ATTEMPTS) -> None:
        self._settings = settings
        self._attempts = attempts
        self._client: tuple[tuple[int, str | None, str | None], Any] | None = None
        self._is_proven = False

    @classmethod
    def probed(cls, settings: StorageSettings) -> "Bucket":
        """Bucket for a look at the server, with a single attempt and a short time limit."""
        seconds = min(settings.timeout_seconds, PROBE_SECONDS)
        return cls(settings.model_copy(update={"timeout_seconds": seconds}), attempts=1)

    @property
    def url(self) -> str:
        """Address without a slash at the end."""
        return self._settings.url or ""

    @property
    def client(self) -> Any:
        """Client of boto3 with the keys in force; keys in the server of secrets are read again in time.

        Raises:
            MissingExtra: boto3 is not installed.
            SecretUnavailable: the server of secrets does not give a key.
        """
        # a fork must not share the connections of its parent
        keys = (os.getpid(), *self._keys())
        with _connecting:
            if self._client is None or self._client[0] != keys:
                self._client = keys, self._connect(*keys[1:])
            return self._client[1]

    def get(self, key: str) -> StoredObject | None:
        """An object, None for an unknown key.

        Raises:
            StorageUnavailable: the server refuses or does not answer.
        """
        with self.errors(f"read {self.address(key)}", "s3:GetObject"):
            try:
                answer = self.client.get_object(Bucket=self._settings.bucket, Key=self._full(key))
                return StoredObject(answer["Body"].read(), answer["ETag"])
            except self._client_error() as error:
                if _code(error) not in {"NoSuchKey", "404"}:
                    raise
                return None

    def put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write an object in one piece, if the present state is as expected.

        Args:
            over: etag of the object to replace; None if there must be no object.

        Returns:
            False if the object is another: nothing was written.

        Raises:
            StorageUnavailable: the server refuses or does not answer; the object is as before, or whole.
        """
        condition = {"IfNoneMatch": _ABSENT} if over is None else {"IfMatch": over}
        with self.errors(f"write {self.address(key)}", "s3:PutObject"):
            try:
                self.client.put_object(
                    Bucket=self._settings.bucket,
                    Key=self._full(key),
                    Body=content,
                    ContentMD5=_md5(content),
                    **condition,
                )
            except self._client_error() as error:
                # 404: the object to replace is gone
                if _status(error) not in _UNMET and not (over is not None and _code(error) in _GONE):
                    raise
                return False
        return True

    def objects(self, below: str) -> list[ListedObject]:
        """All objects whose keys begin with `below`."""
        pages = self._pages(below, {})
        return [
            ListedObject(self._relative(each["Key"]), each["Size"])
            for page in pages
            for each in page.get("Contents", ())
        ]

    def folders(self, below: str) -> list[str]:
        """Names of the folders directly below a folder, sorted.

        Args:
            below: key of the folder with a slash at the end, or an empty text.
        """
        pages = self._pages(below, {"Delimiter": "/"})
        prefixes = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
        return sorted(self._relative(prefix).removeprefix(below).rstrip("/") for prefix in prefixes)

    def delete(self, keys: list[str]) -> None:
        """Remove objects.

        Raises:
            StorageUnavailable: an object could not be removed.
        """
        for start in range(0, len(keys), DELETED_AT_ONCE):
            objects = [{"Key": self._full(key)} for key in keys[start : start + DELETED_AT_ONCE]]
            with self.errors(f"remove objects of {self.url}", "s3:DeleteObject"):
                answer = self.client.delete_objects(
                    Bucket=self._settings.bucket, Delete={"Objects": objects, "Quiet": True}
                )
            if errors := answer.get("Errors"):
                raise StorageUnavailable(
                    f"The storage did not remove {errors[0]['Key']} ({errors[0].get('Code')}): allow "
                    f"s3:DeleteObject on {self.url}."
                )

    def make(self) -> None:
        """Make the bucket unless there is one, on a server of the installation's own.

        Raises:
            StorageUnavailable: the server refuses or does not answer.
        """
        with self.errors(f"make the bucket {self._settings.bucket}", "s3:CreateBucket"):
            known = self.client.exceptions
            with suppress(known.BucketAlreadyOwnedByYou, known.BucketAlreadyExists):
                self.client.create_bucket(Bucket=self._settings.bucket)

    def require_reachable(self) -> None:
        """Ask for the bucket.

        Raises:
            StorageUnavailable: the server does not answer, or refuses the keys; or there is no bucket.
        """
        with self.errors(f"list {self.url}", "s3:ListBucket"):
            self.client.list_objects_v2(Bucket=self._settings.bucket, Prefix=self._full(""), MaxKeys=1)

    def require_writable(self) -> None:
        """Write an object of a single byte, and prove the server's support of conditions.

        Raises:
            StorageUnavailable: the keys may not write, or the server ignores a condition.
        """
        # there from the first time on, so that nothing has to be removed
        self.put(PROBE, b"1", over=None)
        heeds = not self.put(PROBE, b"1", over=None) and not self.put(PROBE, b"1", over=_NEVER)
        if not heeds:
            raise StorageUnavailable(
                f"The storage at {self.url} ignores conditions (If-Match, If-None-Match), so two machines "
                "could overwrite each other's bars: take a server that heeds them, such as Amazon S3, MinIO "
                "or SeaweedFS."
            )
        self._is_proven = True

    def require_conditions(self) -> None:
        """As `require_writable`, once in the life of the process."""
        if not self._is_proven:
            self.require_writable()

    def address(self, key: str) -> str:
        """Address of an object, for messages."""
        return f"{self.url}/{key}"

    def _keys(self) -> tuple[str | None, str | None]:
        access = self._settings.access_key
        secret = self._settings.secret_key
        if access is None or secret is None:
            return None, None
        return access.get_secret_value(), secret.get_secret_value()

    def _connect(self, access_key: str | None, secret_key: str | None) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingExtra("boto3", EXTRA) from error
        settings = self._settings
        session = boto3.Session(
            aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=settings.region
        )
        if settings.ca is not None and not settings.ca.is_file():
            raise SettingsError(f"[storage] ca {settings.ca} is no file.")
        config = Config(
            connect_timeout=settings.timeout_seconds,
            read_timeout=settings.timeout_seconds,
            retries={"total_max_attempts": self._attempts, "mode": "standard"},
            # other servers than Amazon's know the digest of a whole object, but no checksums in trailers
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return session.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=session.region_name or DEFAULT_REGION,
            verify=None if settings.ca is None else str(settings.ca),
            config=config,
        )

    def _pages(self, below: str, options: dict[str, str]) -> Iterator[dict[str, Any]]:
        with self.errors(f"list {self.address(below)}", "s3:ListBucket"):
            pages = self.client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self._settings.bucket, Prefix=self._full(below), **options)

    def _full(self, key: str) -> str:
        prefix = self._settings.prefix
        return f"{prefix}/{key}" if prefix else key

    def _relative(self, full: str) -> str:
        prefix = self._settings.prefix
        return full.removeprefix(f"{prefix}/") if prefix else full

    def _client_error(self) -> type["ClientError"]:
        from botocore.exceptions import ClientError

        return ClientError  # type: ignore[no-any-return]

    @contextmanager
    def errors(self, action: str, right: str) -> Iterator[None]:
        """Errors of boto3 in the words of the settings.

        Args:
            action: action of the block, for the message.
            right: right needed by the keys.
        """
        # the client first: without the extra there is nothing to import below
        assert self.client
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, SSLError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            raise StorageUnavailable(self._refusal(action, right, error)) from error
        except Boto3Error as error:
            # of an upload in parts, raised while the refusal of the server was handled
            cause = error.__context__
            reason = self._refusal(action, right, cause) if isinstance(cause, ClientError) else str(error)
            raise StorageUnavailable(reason) from error
        except NoCredentialsError as error:
            raise StorageUnavailable(
                f"The storage could not {action}: there are no keys. Set access_key and secret_key under "
                "[storage], AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give pod or machine a role."
            ) from error
        except SSLError as error:
            raise StorageUnavailable(
                f"The storage could not {action}: the certificate of {self._server} is not trusted. Set "
                "[storage] ca."
            ) from error
        except (BotoCoreError, HTTPError, OSError) as error:
            raise StorageUnavailable(
                f"The storage could not {action}: {self._server} does not answer ({type(error).__name__}). "
                "Check [storage] endpoint, network and server; what was written before stays whole."
            ) from error

    def _refusal(self, action: str, right: str, error: "ClientError") -> str:
        code = _code(error)
        match code:
            case "NoSuchBucket":
                reason = f"there is no bucket {self._settings.bucket} at {self._server}: make it, or correct "
                reason += "[storage] url"
            case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken":
                reason = f"{self._server} refuses the keys ({code}): correct access_key and secret_key under "
                reason += "[storage], or the variables of AWS"
            case "AccessDenied" | "403" | "AllAccessDisabled":
                reason = f"{self._server} denies it: allow the keys {right} on {self.url}"
            case "PermanentRedirect" | "301" | "AuthorizationHeaderMalformed":
                reason = "the bucket lies in another region: set [storage] region"
            case _:
                message = error.response.get("Error", {}).get("Message", "")
                reason = f"{self._server} answers {code}{f' ({message})' if message else ''}"
        return f"The storage could not {action}: {reason}."

    @property
    def _server(self) -> str:
        return self._settings.endpoint or str(self.client.meta.endpoint_url)


def variables_of_mlflow(settings: StorageSettings) -> dict[str, str]:
    """Variables by which MLflow's own client of S3 in another program reaches the bucket; empty without.

    Raises:
        SecretUnavailable: the server of secrets does not give a key.
    """
    if settings.url is None:
        return {}
    access = settings.access_key
    secret = settings.secret_key
    values = {
        "MLFLOW_S3_ENDPOINT_URL": settings.endpoint,
        "AWS_ACCESS_KEY_ID": None if access is None else access.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": None if secret is None else secret.get_secret_value(),
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_CA_BUNDLE": None if settings.ca is None else str(settings.ca),
    }
    return {name: value for name, value in values.items() if value is not None}


def _md5(content: bytes) -> str:
    """Digest for the server to refuse a body cut off or changed on the way."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


_GONE = frozenset({"NoSuchKey", "404"})


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
