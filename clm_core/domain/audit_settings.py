"""Settings of the audit: places to which the anchors are shipped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from clm_core.domain.secret_references import Referable
from clm_core.domain.webhook_settings import Subscriber


def _no_option(repository: SecretStr, _: Mapping[str, Any]) -> None:
    if repository.get_secret_value().startswith("-"):
        raise ValueError("must be a path or URL as `git clone` takes it")


class AuditSettings(BaseModel):
    """Places outside the home to which the anchors of the audit are shipped; none by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path | None = None
    """Existing folder on another volume, append-only if possible."""
    git: Annotated[SecretStr, Referable(_no_option)] | None = None
    """Git repository, a path or URL that `git push` accepts without a question."""
    git_branch: str = Field(default="clm-anchors", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Branch of the repository, for the anchors alone."""
    webhook: Subscriber | None = None
    """Receiver of every anchor by a signed HTTP request."""
    timestamp_url: str | None = Field(default=None, pattern=r"^https?://[^/]")
    """`https://host/path` of a time-stamp authority (RFC 3161), which signs when an anchor existed."""
    timestamp_certificates: Path | None = None
    """PEM file with the root certificate of the authority, and intermediate certificates if any."""

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        if (self.timestamp_url is None) is not (self.timestamp_certificates is None):
            raise ValueError(
                "timestamp_url and timestamp_certificates belong together: a timestamp that nobody can "
                "verify proves nothing"
            )
        return self
