"""Upgrades of a ledger with records, from every earlier revision; some of them outside of `make chaos`."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import psycopg
import records
from psycopg.sql import SQL, Identifier
from revisions import move
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.ledger import audit_log
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import HEAD, REVISIONS, upgrade
from clm_core.ledger.schema import examine
from clm_core.ledger.store import Ledger
from clm_core.platform.database import Database

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
VERDICT = Verdict(decision=Decision.FAIL, score=40.0, checks=(), reasons=("no edge",))
FIRST_WITH_AUDIT = "0002"
EVERY = 1 if "CHAOS_REPETITIONS" in os.environ else 15
"""Distance of the revisions tried."""


def test_records_of_every_earlier_revision_are_there_after_an_upgrade(
    database: Database, empty_database: Callable[[], str]
) -> None:
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    lease = ledger.start_job(job.id, "tests", NOW, timedelta(minutes=1))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW), lease)
    count_trial_of(ledger, version, lease)
    evaluation = records.an_evaluation(version.model_id, version.version)
    ledger.add_evaluation(evaluation, VERDICT, GatePolicy(name="strict"), version.bundle_digest, lease)
    ended = ledger.complete_job(lease, NOW)
    written = len(audit_log.entries(engine))
    engine.dispose()
    earlier = REVISIONS[:-1]
    tried = 0
    for number in range(len(earlier) - 1, -1, -1):
        move(url, earlier[number], down=True)
        if number % EVERY == 0:
            entries = written if earlier[number] >= FIRST_WITH_AUDIT else 0
            _require_kept(_copied(database.server, url, f"{tried}"), ended, entries)
            tried += 1
    assert tried == len(range(0, len(earlier), EVERY))


def _copied(server: str, url: str, suffix: str) -> str:
    """URL of a copy of a database that nobody uses."""
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(server, autocommit=True) as connection:
        copy = Identifier(f"{name}_{suffix}")
        original = Identifier(name)
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(copy, original))
    return urlsplit(url)._replace(path=f"/{name}_{suffix}").geturl()


def _require_kept(url: str, job: TrainingJob, written: int) -> None:
    upgrade(url)
    schema = examine(url)
    assert (schema.revision, schema.problems) == (HEAD, ())
    engine = open_engine(url)
    ledger = Ledger(engine)
    assert ledger.job(job.id).status is job.status
    [version] = ledger.versions(model_id=job.model_id)
    evaluation, verdict = ledger.evaluation(job.model_id, version.version)
    assert (version.version, evaluation.trades, verdict.decision) == ("v20260304_120000", 60, Decision.FAIL)
    report = audit_log.verify(engine, [])
    assert (report.entries, report.problems) == (written, ())
    engine.dispose()
