"""Interrupted verification of the audit, continued."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from clm_core.domain.actors import SYSTEM
from clm_core.domain.audit import Action, AuditEntry
from clm_core.ledger.audit_log import append
from clm_core.operations import audit_verification
from clm_core.operations.audit_verification import interrupted, verify

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_verification_goes_on_where_it_was_interrupted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        for number in range(9):
            entry = AuditEntry(at=NOW, actor=SYSTEM, action=Action.VERSION_RETIRED, subject=str(number))
            newest = append(connection, entry)
    monkeypatch.setattr(audit_verification, "NOTED_EVERY", 1)
    monkeypatch.setattr(audit_verification, "SHOWN_EVERY", 1)
    interrupted_at = f"{newest - 2:,} of {newest:,} entries"

    def interrupt(step: str, share: float) -> None:
        if step == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(engine, tmp_path, [], NOW, interrupt)
    checked = interrupted(tmp_path)
    assert checked is not None
    assert checked.seq == newest - 3
    shares = dict[str, float]()
    report = verify(engine, tmp_path, [], NOW, shares.__setitem__, resume=True)
    assert (report.entries, report.anchors, report.problems) == (newest, 0, ())
    assert next(iter(shares)) == interrupted_at
    assert [*shares.values()][-1] == 1.0
    assert interrupted(tmp_path) is None
