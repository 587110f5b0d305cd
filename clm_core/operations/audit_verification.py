"""Verification of the audit in a home, which an interruption does not begin anew.

The last entry found sound is noted every 20,000 entries, in the file `verification.json` beside the anchors,
which is removed at the end.
"""

import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Engine

from clm_core.domain.progress import Announce
from clm_core.ledger import audit_log
from clm_core.ledger.audit_log import anchor_folder
from clm_core.ledger.hash_chain import Anchor, ChainReport
from clm_core.market.storage import write_atomically

NOTED_EVERY = 20_000
"""Number of entries between two notes."""
SHOWN_EVERY = 1_000
"""Number of entries between two messages of progress."""


def verify(
    engine: Engine,
    home: Path,
    anchors: Sequence[Anchor],
    now: datetime,
    announce: Announce = lambda step, share: None,
    resume: bool = False,
) -> ChainReport:
    """Check every entry, and compare the log with the anchors.

    Args:
        now: moment recorded with the note.
        resume: continue an interrupted verification; without one, or if the log no longer agrees with its
            note, every entry is checked.
    """
    file = note_file(home)
    checked = interrupted(home) if resume else None
    total = max(audit_log.newest_number(engine), 1)

    def note(seq: int, entry_hash: str) -> None:
        if seq % SHOWN_EVERY == 0:
            announce(f"{seq:,} of {total:,} entries", seq / total)
        if seq % NOTED_EVERY == 0:
            last = Anchor(at=now, seq=seq, hash=entry_hash, count=seq)
            write_atomically(file, last.model_dump_json().encode())

    report = audit_log.verify(engine, anchors, checked, note)
    file.unlink(missing_ok=True)
    return report


def interrupted(home: Path) -> Anchor | None:
    """Last entry found sound by an interrupted verification; None without one."""
    with contextlib.suppress(FileNotFoundError, ValidationError):
        return Anchor.model_validate_json(note_file(home).read_bytes())
    return None


def note_file(home: Path) -> Path:
    return anchor_folder(home).parent / "verification.json"
