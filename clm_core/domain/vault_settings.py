"""Settings of the server that keeps secrets, Vault or OpenBao: `[vault]`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class VaultLogin(StrEnum):
    TOKEN = "token"
    """A token issued by an administrator: VAULT_TOKEN, or `credential_file`."""
    APPROLE = "approle"
    """Role id, `role`, and secret id: VAULT_SECRET_ID, or `credential_file`."""
    KUBERNETES = "kubernetes"
    """Service account of the pod, with `role`."""


def _encrypted(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must look like https://host:8200")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("must be https: over http everybody on the way reads the secrets")
    if parts.username or parts.password:
        raise ValueError("must not hold a password: the login has settings of its own")
    return address.rstrip("/")


class VaultSettings(BaseModel):
    """Vault or OpenBao, where a secret setting may keep its value: `vault://mount/path#key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[str, AfterValidator(_encrypted)] | None = None
    """`https://host:8200`; http on this machine alone."""
    namespace: str | None = Field(default=None, min_length=1)
    """Namespace of login and secrets, where the server has namespaces."""
    ca: Path | None = None
    """PEM file of the authority that signed the server's certificate; by default those of the system."""
    login: VaultLogin = VaultLogin.TOKEN
    """`token`, `approle` or `kubernetes`."""
    login_mount: str | None = Field(default=None, min_length=1)
    """Path of the login method in the server; by default `approle` or `kubernetes`."""
    role: str | None = Field(default=None, min_length=1)
    """Role id of AppRole, or name of the role of Kubernetes."""
    credential_file: Path | None = None
    """File with the credential of the login, read at each login; by default VAULT_TOKEN, VAULT_SECRET_ID, or
    the token of the pod's service account."""
    reread_seconds: float = Field(default=300.0, ge=1, le=86_400)
    """Time for which a value that was read is used, seconds; then it is read again."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    """Time limit of a request to the server, seconds."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.login is VaultLogin.TOKEN and (self.role or self.login_mount):
            raise ValueError('role and login_mount have no effect with a token: set login = "approle"')
        if self.login is not VaultLogin.TOKEN and self.role is None:
            raise ValueError(f"login by {self.login} needs a role")
        return self
