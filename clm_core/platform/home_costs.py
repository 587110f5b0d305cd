"""Record of a home's default costs, `costs.json`: homes made by release 0.1.0 keep the costs of 0.1.0."""

import contextlib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from clm_core.platform.home_record import MADE_BY_CLM, HomeRecord

FILE = "costs.json"


class HomeCosts(BaseModel):
    """Default costs of a home."""

    model_config = ConfigDict(frozen=True)

    defaults: Literal["market", "0.1.0"]
    """`market`: by the kind of market; `0.1.0`: 5 bps of fees and 2 bps of slippage everywhere."""
    announced: bool = False
    """True once a person was told that the old costs are kept."""

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The record of a home; None without a readable record."""
        try:
            return cls.model_validate_json((home / FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    @classmethod
    def of(cls, home: Path) -> Self:
        """The record of a home, or the record to make; to be called before the home is opened."""
        record = HomeRecord.read(home)
        if record is None:
            old = any((home / folder).is_dir() for folder in MADE_BY_CLM)
        else:
            old = record.made_by is None
        return cls.read(home) or cls(defaults="0.1.0" if old else "market")

    def write(self, home: Path) -> None:
        """Replace the record; a home on a read-only disk stays without and is examined again."""
        fresh = home / f".{FILE}.new"
        with contextlib.suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            fresh.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            fresh.replace(home / FILE)
