"""Settings of the place of bars and artifacts: `[storage]`."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from clm_core.domain.secret_references import Referable

_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9!_.*'()=-]+)*)/?")


def _bucket_url(url: str) -> str:
    if not _URL.fullmatch(url) or {".", ".."} & set(url.split("/")):
        raise ValueError("must look like s3://bucket or s3://bucket/prefix")
    return url.rstrip("/")


def _address(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must look like https://host:9000")
    if parts.username or parts.password:
        raise ValueError("must not hold a password: access_key and secret_key are settings of their own")
    return endpoint.rstrip("/")


class StorageSettings(BaseModel):
    """Bucket of an S3 server for bars and the artifacts of MLflow; without a URL the home holds both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, AfterValidator(_bucket_url)] | None = None
    """`s3://bucket/prefix`; the bucket must exist."""
    endpoint: Annotated[str, AfterValidator(_address)] | None = None
    """Address of an S3 server other than Amazon's, `https://host:9000`; by default AWS_ENDPOINT_URL_S3."""
    region: str | None = Field(default=None, min_length=1)
    """Region of the bucket; by default AWS_REGION, AWS_DEFAULT_REGION or the profile, else us-east-1."""
    access_key: Annotated[SecretStr, Referable()] | None = None
    """Access key id. Without keys the usual sources of AWS: variables, profile, role of pod or machine."""
    secret_key: Annotated[SecretStr, Referable()] | None = None
    """Secret access key."""
    ca: Path | None = None
    """PEM file of the authority of the server's certificate; by default the authorities of the system."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=300)
    """Time limit of a connection, and of each wait for the next bytes of the server, seconds."""
    cache_mib: int = Field(default=2048, ge=0)
    """Limit of the copies of bars kept in the home, MiB; the copies used longest ago go first. 0: none."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together: set both or neither")
        if self.url is None and (self.endpoint or self.access_key):
            raise ValueError("endpoint and keys have no effect without url")
        return self

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self._part("bucket")

    @property
    def prefix(self) -> str:
        """Beginning of the keys, without slashes at the ends; empty for the whole bucket."""
        return self._part("prefix").strip("/")

    def _part(self, name: str) -> str:
        match = _URL.fullmatch(self.url or "")
        assert match is not None, "the settings name no bucket"
        return match[name]


IN_THE_HOME = StorageSettings()
"""Settings without a bucket."""
