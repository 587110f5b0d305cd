"""Prefect's runs of the form of approvals, as files: for processes to be killed, without a server."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from clm_core.platform.prefect_runs import ENDED, FormRun


@dataclass(frozen=True)
class FormFolder:
    """Stands for `platform.prefect_runs.Runs`; as in Prefect, the idempotency key decides what is new."""

    folder: Path

    @contextmanager
    def opened(self, home: Path) -> Iterator["FormFolder"]:
        yield self

    def deployments(self, flow: str) -> dict[str, UUID]:
        return {flow: UUID(int=1)}

    def create(self, deployment: UUID, parameters: Mapping[str, Any], key: str, tags: Sequence[str]) -> UUID:
        run_id = UUID(hashlib.sha256(key.encode()).hexdigest()[:32])
        file = self.folder / str(run_id)
        if not file.exists():
            self._write(run_id, {"parameters": dict(parameters), "state": "PAUSED", "tags": list(tags)})
        return run_id

    def forms(self, deployment: UUID, tag: str | None = None) -> list[FormRun]:
        runs = [(UUID(file.name), json.loads(file.read_text())) for file in sorted(self.folder.iterdir())]
        return [
            FormRun(run_id, run["parameters"], run["state"], datetime.fromisoformat(run["created"]))
            for run_id, run in runs
            if (run["state"] not in ENDED if tag is None else tag in run["tags"])
        ]

    def cancel(self, run_id: UUID, message: str) -> None:
        self._write(run_id, json.loads((self.folder / str(run_id)).read_text()) | {"state": "CANCELLED"})

    def _write(self, run_id: UUID, run: dict[str, Any]) -> None:
        stored = {"created": datetime.now(UTC).isoformat()} | run
        (self.folder / str(run_id)).write_text(json.dumps(stored))
