"""Entries of the audit made by changes of the ledger: an entry for each change, none for refused changes."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import records
from jobs import take_over_suspects
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.actors import Actor
from clm_core.domain.errors import AlreadyExists, CLMError, IllegalTransition, LeaseLost, NotFound
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.ledger.audit_log import entries, verify
from clm_core.ledger.hash_chain import Recorded
from clm_core.ledger.store import Ledger

NOW = datetime(2025, 12, 4, 14, 30, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MODEL = "xgboost_btcusd_1h"
LABEL = "v20251204_143022"
FAILED = Verdict(decision=Decision.FAIL, score=40.0, checks=(), reasons=("too little",))


ReadEntries = Callable[[], list[Recorded]]


@pytest.fixture
def read_entries(engine: Engine) -> ReadEntries:
    """Function that returns the entries of the test, oldest first, after verifying the chain."""
    before = verify(engine, []).entries

    def read() -> list[Recorded]:
        report = verify(engine, [])
        assert report.problems == ()
        return entries(engine, limit=report.entries - before)[::-1] if report.entries > before else []

    return read


def a_job() -> TrainingJob:
    return records.a_job(training_params={"max_depth": 5}, seed=2**60)


def judge(ledger: Ledger, version: ModelVersion, lease: Lease | None, sharpe_ratio: float = 0.5) -> None:
    evaluation = records.an_evaluation(version.model_id, version.version, sharpe_ratio=sharpe_ratio)
    count_trial_of(ledger, version, lease)
    ledger.add_evaluation(evaluation, FAILED, GatePolicy(name="strict"), version.bundle_digest, lease)


def actions(read_entries: ReadEntries) -> list[str]:
    return [entry.action for entry in read_entries()]


def started(ledger: Ledger) -> tuple[TrainingJob, Lease]:
    job = ledger.create_job(a_job())
    return job, ledger.start_job(job.id, "trainer-3:4711", NOW, MINUTE)


def test_a_retrain_makes_an_entry_for_each_change(ledger: Ledger, read_entries: ReadEntries) -> None:
    job, lease = started(ledger)
    version = ledger.add_version(records.a_version(job), lease)
    judge(ledger, version, lease, sharpe_ratio=float("nan"))
    ledger.set_version_status(MODEL, LABEL, ModelStatus.FAILED, NOW, lease)
    ledger.complete_job(lease, NOW + MINUTE)
    entries = read_entries()
    assert [(entry.action, entry.subject, entry.actor) for entry in entries] == [
        ("job_created", str(job.id), "ada"),
        ("job_started", str(job.id), "clm"),
        ("version_registered", MODEL, "clm"),
        ("version_judged", MODEL, "clm"),
        ("version_status_changed", MODEL, "clm"),
        ("job_completed", str(job.id), "clm"),
    ]
    requested, ran, registered, judged, moved, done = (entry.details for entry in entries)
    assert requested == {
        "model_id": MODEL,
        "requested_by": "ada",
        "trigger_reason": "manual",
        "dataset_span_days": 365,
        "data_snapshot": "5a" * 32,
        "training_params": {"max_depth": 5},
        "seed": str(2**60),
    }
    assert ran == done == {"model_id": MODEL, "holder": "trainer-3:4711"}
    assert registered == {
        "version": LABEL,
        "training_job_id": str(job.id),
        "parent_version": None,
        "bundle_digest": "b" * 64,
        "package_digest": None,
        "recipe_digest": None,
        "data_hash": "d" * 64,
        "code_version": "0.1.0",
    }
    assert judged == {
        "version": LABEL,
        "evaluation": judged["evaluation"],
        "decision": "fail",
        "score": 40,
        "sharpe_ratio": "nan",
        "bundle_digest": "b" * 64,
        "terms_digest": records.TERMS.digest,
        "policy": "strict",
        "policy_hash": GatePolicy(name="strict").digest,
    }
    assert moved == {"version": LABEL, "from": "training", "to": "failed"}


def test_a_reaped_job_makes_entries_for_the_job_and_its_versions(
    ledger: Ledger, read_entries: ReadEntries
) -> None:
    job, lease = started(ledger)
    for label in (LABEL, "v20251204_143023"):
        ledger.add_version(records.a_version(job, label), lease)
    [taken] = take_over_suspects(ledger, "sweeper:1", NOW + MINUTE)
    ledger.fail_job(taken, "lost its lease", NOW + MINUTE)
    entries = [(entry.action, entry.details) for entry in read_entries()][-3:]
    assert entries[0] == ("job_failed", {"model_id": MODEL, "holder": "sweeper:1", "cause": "lost its lease"})
    assert sorted(details["version"] for _, details in entries[1:]) == [LABEL, "v20251204_143023"]
    assert {(action, details["from"], details["to"]) for action, details in entries[1:]} == {
        ("version_status_changed", "training", "failed")
    }


def test_the_entry_names_the_actor_of_a_status_change(ledger: Ledger, read_entries: ReadEntries) -> None:
    version = ledger.add_version(records.a_version(ledger.create_job(a_job())))
    eve = Actor(name="eve", role=Role.ADMIN)
    ledger.set_version_status(MODEL, version.version, ModelStatus.SHADOW, NOW, by=eve)
    last = read_entries()[-1]
    assert (last.actor, last.role, last.details["to"]) == ("eve", "admin", "shadow")


def test_a_call_without_effect_makes_no_entry(ledger: Ledger, read_entries: ReadEntries) -> None:
    version = ledger.add_version(records.a_version(ledger.create_job(a_job())))
    before = actions(read_entries)
    ledger.set_version_status(MODEL, version.version, ModelStatus.TRAINING, NOW)
    assert actions(read_entries) == before


def test_a_refused_change_makes_no_entry(ledger: Ledger, read_entries: ReadEntries) -> None:
    job, lost = started(ledger)
    version = ledger.add_version(records.a_version(job), lost)
    [lease] = take_over_suspects(ledger, "sweeper:1", NOW + MINUTE)
    before = actions(read_entries)
    refused: list[tuple[type[CLMError], Callable[[], object]]] = [
        (AlreadyExists, lambda: ledger.create_job(job)),
        (IllegalTransition, lambda: ledger.start_job(job.id, "another", NOW, MINUTE)),
        (LeaseLost, lambda: ledger.complete_job(lost, NOW)),
        (LeaseLost, lambda: ledger.fail_job(lost, "cause", NOW)),
        (LeaseLost, lambda: ledger.add_version(records.a_version(job, "v20251204_143023"), lost)),
        (AlreadyExists, lambda: ledger.add_version(version, lease)),
        (NotFound, lambda: ledger.add_version(records.a_version(a_job(), "v1"))),
        (LeaseLost, lambda: judge(ledger, version, lost)),
        (IllegalTransition, lambda: judge(ledger, version, None)),
        (
            IllegalTransition,
            lambda: ledger.set_version_status(MODEL, LABEL, ModelStatus.PRODUCTION, NOW, lease),
        ),
        (NotFound, lambda: ledger.set_version_status(MODEL, "v1", ModelStatus.SHADOW, NOW)),
    ]
    for error, write in refused:
        with pytest.raises(error):
            write()
    assert actions(read_entries) == before


def test_eight_concurrent_job_runners_leave_an_unbroken_chain(
    ledger: Ledger, read_entries: ReadEntries
) -> None:
    together = threading.Barrier(8)

    def run_jobs() -> None:
        together.wait()
        for _ in range(5):
            _, lease = started(ledger)
            ledger.complete_job(lease, NOW)

    threads = [threading.Thread(target=run_jobs) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job_actions = ["job_completed", "job_created", "job_started"]
    assert sorted(actions(read_entries)) == [action for action in job_actions for _ in range(40)]


@pytest.fixture
def closed_audit(engine: Engine) -> Iterator[None]:
    """Takes no entry."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_log ADD CONSTRAINT closed CHECK (false) NOT VALID"))
    yield
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_log DROP CONSTRAINT closed"))


@pytest.mark.usefixtures("closed_audit")
def test_a_change_whose_entry_cannot_be_written_does_not_happen(ledger: Ledger) -> None:
    with pytest.raises(DBAPIError, match="violates check constraint"):
        ledger.create_job(a_job())
    assert ledger.jobs() == []
