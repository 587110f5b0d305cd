"""Record of a home folder, `home.json`: identity, and path and database at the last use.

A path in force that differs from the recorded path tells that the home was moved or copied. The record is
read at every start and is cheaper than a question to the database. A missing record is made anew.
"""

import contextlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from clm_core.platform.database import Database

FILE = "home.json"
MADE_BY_CLM = ("audit", "mlflow")
"""Folders that only an opened home has: without a record, a release before the records made the home."""


class HomeRecord(BaseModel):
    """Identity of a home, and where the home was last used."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    id: str
    """Hexadecimal; also a tag of the experiment in MLflow. A move gives a new id, so that a copy that stayed
    behind is told from the moved home."""
    made_by: str | None
    """Release that made the home; None for a home made before homes had a record (0.1.0 and earlier)."""
    path: str
    """Absolute path of the home at the last use."""
    database: str
    """Server at the last use: `embedded` with the identity of the data folder, or `host:port`."""

    @classmethod
    def fresh(cls, home: Path, database: "Database") -> Self:
        """Record of a home without a record."""
        old = any((home / folder).is_dir() for folder in MADE_BY_CLM)
        return cls(
            id=uuid4().hex,
            made_by=None if old else version("continuous-learning-manager"),
            path=str(home),
            database=server_of(home, database),
        )

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The record of a home; None without a readable record."""
        try:
            return cls.model_validate_json((home / FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, home: Path) -> None:
        """Replace the record; a home on a read-only disk keeps the former record and is examined again."""
        fresh = home / f"{FILE}.{os.getpid()}.new"
        with contextlib.suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            fresh.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
            # whoever reads at this moment finds the old or the new one, whole
            fresh.replace(home / FILE)

    def at(self, home: Path, database: "Database") -> Self:
        """The record for a use at this path with this database."""
        return self.model_copy(update={"path": str(home), "database": server_of(home, database)})


def is_settled(home: Path, database: "Database") -> bool:
    """True if the home was last used at this path with this database."""
    record = HomeRecord.read(home)
    return record is not None and record == record.at(home, database)


def server_of(home: Path, database: "Database") -> str:
    """Name of the server without a secret; a restored data folder of the embedded server has another name."""
    if database.embedded:
        return f"embedded {(home / 'postgres').stat().st_ino}"
    parts = urlsplit(database.server)
    options = dict(parse_qsl(parts.query))
    return f"{parts.hostname or options.get('host', '')}:{parts.port or options.get('port', '5432')}"
