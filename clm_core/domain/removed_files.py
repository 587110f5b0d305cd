"""Removal of the files of failed versions, whose records stay in the ledger."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class RemovedFiles(BaseModel):
    """Files of a version, removed by `clm prune`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    files: int = Field(ge=0)
    size: int = Field(ge=0)
    """Bytes."""
    by: str
    at: datetime

    @property
    def sentence(self) -> str:
        return (
            f"the files ({self.size / 1e6:.1f} MB) were removed by {self.by} on {self.at:%Y-%m-%d %H:%M} UTC"
        )
