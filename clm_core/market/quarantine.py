"""Quarantine: refused input, stored with the reasons for inspection, out of reach of training."""

import hashlib
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from clm_core.domain.errors import InvalidBars
from clm_core.market.storage import write_atomically


def keep(root: Path, name: str, content: bytes, refusal: InvalidBars, now: datetime) -> InvalidBars:
    """Write the input and a report below `root`; returns the refusal with the folder named.

    Equal input is written to the same folder again, with the newest report.
    """
    folder = folder_of(root, content)
    report = {
        "origin": refusal.origin,
        "refused_at": now.isoformat(),
        "findings": [asdict(finding) for finding in refusal.findings],
    }
    write_atomically(folder / name, content)
    write_atomically(folder / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    return type(refusal)(f"{refusal.origin} (kept in {folder})", refusal.findings)


def folder_of(root: Path, content: bytes) -> Path:
    """Folder of the input below `root`."""
    return root / hashlib.sha256(content).hexdigest()[:16]
