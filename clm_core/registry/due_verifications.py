"""Times of the last full verification of each production version, so that not every pass reads every file.

The times are kept in a file of the home folder. Without the file, every version is verified again.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from clm_core.domain.versions import ModelVersion


class Verified(BaseModel):
    """Last verification of a model's production version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    """Label of the version."""
    at: AwareDatetime


_TIMES = TypeAdapter(dict[str, Verified])


@dataclass(frozen=True)
class DueVerifications:
    file: Path
    every: timedelta
    """Length of a round; each model is due once a round, at a moment of its own."""

    def due(self, versions: Iterable[ModelVersion], now: datetime) -> set[str]:
        """Models whose version itself, not an earlier version, was not verified in the present round."""
        times = self._read()
        return {each.model_id for each in versions if self._is_due(each, times.get(each.model_id), now)}

    def note(self, version: ModelVersion, now: datetime) -> None:
        """Record a verification of the version."""
        times = self._read() | {version.model_id: Verified(version=version.version, at=now)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new_file = self.file.with_suffix(".new")
        new_file.write_bytes(_TIMES.dump_json(times))
        # replaced in one step, so that a concurrent reader finds a complete file
        new_file.replace(self.file)

    def _is_due(self, version: ModelVersion, last: Verified | None, now: datetime) -> bool:
        if last is None or last.version != version.version or not self.every:
            return True
        return self._round(version.model_id, now) != self._round(version.model_id, last.at)

    def _read(self) -> dict[str, Verified]:
        try:
            return _TIMES.validate_json(self.file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return {}

    def _round(self, model_id: str, moment: datetime) -> int:
        """Number of the round; the offset is derived from the model id, so that models are not all due in one
        pass."""
        digest = int.from_bytes(hashlib.sha256(model_id.encode()).digest()[:4])
        return int((moment.timestamp() + digest % self.every.total_seconds()) // self.every.total_seconds())
