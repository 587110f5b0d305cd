"""Settings of the running stack, `stack/settings.json`: which file, and a digest of each setting.

A command compares its own settings with the record. The digests are keyed by the password of the home's
Prefect server, so that the record alone does not betray a short secret.
"""

import hashlib
import hmac
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from clm_core.platform import stack_state

FILE = "settings.json"


class StackSettingsRecord(BaseModel):
    """Settings with which `clm up` was started."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    file: str | None
    """Absolute path of the settings file; None for defaults and variables alone."""
    variables: tuple[str, ...]
    """Names of the variables that set a value."""
    work_pool: str
    digests: dict[str, str]
    """Keyed digest of each setting by dotted name, hexadecimal."""

    @classmethod
    def of(
        cls,
        home: Path,
        texts: Mapping[str, str],
        file: Path | None,
        variables: Collection[str],
        work_pool: str,
        at: datetime,
    ) -> Self:
        """Record of the settings.

        Args:
            texts: each setting as text by dotted name, secrets included.
        """
        return cls(
            at=at,
            file=None if file is None else str(file),
            variables=tuple(variables),
            work_pool=work_pool,
            digests=_digests(home, texts),
        )

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """Record of the running stack; None while no stack runs, or one of a release without records."""
        if stack_state.running(home) is None:
            return None
        try:
            return cls.model_validate_json((stack_state.folder(home) / FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, home: Path) -> None:
        fresh = stack_state.folder(home) / f"{FILE}.new"
        fresh.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        fresh.replace(stack_state.folder(home) / FILE)

    def differing(self, home: Path, texts: Mapping[str, str]) -> list[str]:
        """Names of the settings with another value than the stack's; a setting unknown to either is none."""
        digests = _digests(home, texts)
        shared = [name for name in digests if name in self.digests]
        return [name for name in shared if not hmac.compare_digest(digests[name], self.digests[name])]


def _digests(home: Path, texts: Mapping[str, str]) -> dict[str, str]:
    key = stack_state.prefect_auth(home).encode()
    return {
        name: hmac.new(key, f"{name}={text}".encode(), hashlib.sha256).hexdigest()
        for name, text in texts.items()
    }
