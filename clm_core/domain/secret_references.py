"""References to secrets in Vault or OpenBao, `vault://mount/path#key`, in place of secret settings."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, GetCoreSchemaHandler, SecretStr, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from clm_core.domain.errors import SecretUnavailable

SCHEME = "vault://"
_REFERENCE = re.compile(r"vault://(?P<path>[^/#?\s]+(?:/[^/#?\s]+)+)#(?P<key>[^#\s]+)")


class SecretServer(Protocol):
    """Server of the secrets."""

    def read(self, path: str, key: str) -> str:
        """Value of a key of a secret; a reading of a few minutes ago may answer.

        Raises:
            UnreadableSecret: the value cannot be read; the message has the reason.
        """

    def read_again(self, path: str) -> bool:
        """Read a path anew; False if nothing can have changed, or the server did not answer."""


class UnreadableSecret(Exception):
    """The server does not give a secret; the message is the reason, as a clause without a full stop."""


class SecretReference(SecretStr):
    """Secret of the settings, kept in the server and read when used.

    A reference prints, compares and serialises as the reference: the value shows nowhere.
    """

    def __init__(self, reference: str, check: Callable[[SecretStr], object]) -> None:
        """
        Args:
            check: raises ValueError for a value forbidden by the setting.

        Raises:
            ValueError: the text is no reference.
        """
        super().__init__(reference)
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ValueError("must look like vault://mount/path#key")
        self.path = match["path"]
        self.key = match["key"]
        self._check = check
        self._server: SecretServer | None = None
        self._setting = "the setting"

    @property
    def reference(self) -> str:
        return self._secret_value

    def bind(self, server: SecretServer, setting: str) -> None:
        """Name the server of the value, and the setting for messages."""
        self._server = server
        self._setting = setting

    def get_secret_value(self) -> str:
        """The value, by the server.

        Raises:
            SecretUnavailable: the server does not give the value, or the setting does not allow it; the
                message names setting and reference.
        """
        try:
            if self._server is None:
                raise UnreadableSecret("no settings name a server")
            value = self._server.read(self.path, self.key)
            self._check(SecretStr(value))
        except UnreadableSecret as error:
            raise SecretUnavailable(self._setting, self.reference, str(error)) from error
        except ValueError as error:
            reason = f"the value there is not allowed: {error}"
            raise SecretUnavailable(self._setting, self.reference, reason) from None
        return value

    def read_again(self) -> bool:
        """Read the value anew, as after a refusal; False if nothing can have changed."""
        return self._server is not None and self._server.read_again(self.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretReference) and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    def _display(self) -> str:
        return self.reference


@dataclass(frozen=True)
class Referable:
    """Annotation of a secret setting: a secret, checked at once, or a reference."""

    check: Callable[[SecretStr, Mapping[str, Any]], object] = lambda secret, others: None
    """Raises ValueError for a forbidden secret; `others` are the earlier fields of the record."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(
            self._checked,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    def _checked(self, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if isinstance(secret, SecretReference):
            return secret
        others = dict(info.data or {})
        if secret.get_secret_value().startswith(SCHEME):
            return SecretReference(secret.get_secret_value(), lambda value: self.check(value, others))
        self.check(secret, others)
        return secret


def reference_text(secret: SecretStr) -> str | None:
    """Text of a reference, None for a secret in the settings."""
    return secret.reference if isinstance(secret, SecretReference) else None


def secrets_of(value: Any, name: str = "") -> Iterator[tuple[str, SecretStr]]:
    """Dotted name and secret of every secret in a record, table or list: `webhooks.monitor.secrets.0`."""
    match value:
        case SecretStr():
            yield name, value
        case BaseModel():
            yield from _members({field: getattr(value, field) for field in type(value).model_fields}, name)
        case Mapping():
            yield from _members(value, name)
        case list() | tuple():
            yield from _members(dict(enumerate(value)), name)


def references_of(value: Any) -> Iterator[tuple[str, SecretReference]]:
    """Dotted name and reference of every secret kept in the server."""
    return ((name, secret) for name, secret in secrets_of(value) if isinstance(secret, SecretReference))


def _members(table: Mapping[Any, Any], above: str) -> Iterator[tuple[str, SecretStr]]:
    for name, each in table.items():
        yield from secrets_of(each, f"{above}.{name}" if above else str(name))
