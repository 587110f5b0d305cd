"""Time to verify the audit with anchors, against a limit."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.table import Row, faster, timed
from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action, AuditEntry
from clm_core.domain.vocabulary import Role
from clm_core.ledger.audit_log import anchor, append, read_anchors, verify
from clm_core.platform.database import open_database
from clm_core.services import open_ledger

ENTRIES = 10_000
LIMIT_S = 2.0
REPEATS = 5
START = datetime(2025, 12, 4, tzinfo=UTC)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        with open_database(home) as database, open_ledger(database) as engine:
            with engine.begin() as connection:
                for number in range(ENTRIES):
                    append(connection, _entry(number))
            anchor(engine, home, START)

            def verified() -> None:
                report = verify(engine, read_anchors(home))
                assert (report.anchored, report.problems) == (ENTRIES, ())

            taken = timed(verified, REPEATS)
    return [faster(f"verifying {ENTRIES:,} audit entries", taken, "limit", LIMIT_S, 1.0)]


def _entry(number: int) -> AuditEntry:
    return AuditEntry(
        at=START + timedelta(minutes=number),
        actor=Actor(name="ada", role=Role.OPERATOR),
        action=Action.PROMOTION_COMMITTED,
        subject="xgboost_btcusd_1h",
        details={
            "id": number,
            "from_version": "v20251203_143022",
            "to_version": "v20251204_143022",
            "reason": "Sharpe ratio 1.52 against 1.31 over 412 trades",
            "score": 61.0 + number / 7,
            "expires_at": None,
        },
    )
