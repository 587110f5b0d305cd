"""Revision 0025 in ledgers that hold data: evaluations made before have no stored positions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import records
from revisions import move
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.stored_evidence import StoredEvidence
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
VERDICT = Verdict(decision=Decision.FAIL, score=40.0, checks=(), reasons=("no edge",))


def test_revision_0025_keeps_evaluations_and_stores_positions_that_nobody_changes(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    lease = ledger.start_job(job.id, "tests", NOW, timedelta(minutes=1))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW), lease)
    count_trial_of(ledger, version, lease)
    move(url, "0024", down=True)
    with create_engine(url).begin() as connection:
        assert connection.scalar(text("SELECT to_regclass('market_costs')")) is None
    move(url, "0025")
    before = records.an_evaluation(version.model_id, version.version)
    ledger.add_evaluation(before, VERDICT, GatePolicy(name="strict"), version.bundle_digest, lease)
    assert ledger.stored_evidence(before.id) is None
    after = records.an_evaluation(version.model_id, version.version)
    evidence = StoredEvidence(b"positions", "d" * 64, "c" * 64)
    ledger.add_evaluation(after, VERDICT, GatePolicy(name="strict"), version.bundle_digest, lease, evidence)
    assert ledger.stored_evidence(after.id) == evidence
    [judged] = [
        dict(entry.details)
        for entry in ledger.audit_after(0, 100)
        if entry.action == "version_judged" and entry.details["evaluation"] == str(after.id)
    ]
    assert judged["evidence_digest"] == evidence.digest
    assert (judged["data_hash"], judged["code_digest"]) == (evidence.data_hash, evidence.code_digest)
    for change in ("UPDATE evaluation_evidence SET digest = ''", "DELETE FROM market_costs"):
        with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as connection:
            connection.execute(text(change))
    # revision 0046 takes the decision of earlier verdicts into a column of its own
    move(url, "head")
    with engine.begin() as connection:
        assert connection.scalars(text("SELECT decision FROM evaluations")).all() == ["fail", "fail"]
    assert ledger.metrics.read(NOW).verdicts == {("fail",): 2}
    engine.dispose()
