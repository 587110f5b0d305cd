"""Revision 0015 in ledgers that hold data: renamed kinds, states and the verdict's former key."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import records
from alembic import command
from sqlalchemy import Connection, create_engine, text
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.actors import SYSTEM
from clm_core.domain.alerts import AlertKind
from clm_core.domain.audit import Action, AuditEntry
from clm_core.domain.evaluations import Check, Decision, Verdict
from clm_core.domain.promotions import PromotionKind, PromotionState
from clm_core.domain.versions import ModelVersion
from clm_core.ledger import audit_log
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.receivers import ReceiverStore
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
PROMOTION = text("""
INSERT INTO promotions (model_id, kind, state, from_version, to_version, expected, actor, role, reason,
                        forced, at, finished_at)
VALUES (:model_id, :kind, :state, :from_version, :to_version, false, 'clm', 'operator', 'kept', false,
        :at, :finished_at)
""")
ALERT = text("""
INSERT INTO alerts (kind, subject, message, at, ended_at) VALUES (:kind, :subject, 'look', :at, :ended_at)
""")
DEAD_LETTER = text("""
INSERT INTO dead_letters (receiver, seq, about, happened_at, attempts, error, given_up_at, retry_asked)
VALUES (:receiver, :seq, :about, :at, 5, 'timed out', :at, false)
""")
FORMER_VERDICT = text("""
UPDATE evaluations SET verdict = verdict - 'checks' || jsonb_build_object('legs', verdict -> 'checks')
""")
RECEIVER = text("INSERT INTO receivers (name, stream, position, failures) VALUES (:name, :stream, 9, 0)")


def at_revision(url: str, revision: str) -> None:
    with create_engine(url).begin() as connection:
        command.upgrade(alembic_config(connection), revision)


def back_to_revision(url: str, revision: str) -> None:
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), revision)


def insert_version(url: str) -> ModelVersion:
    """A version with a counted trial, recorded by the stores of this release."""
    ledger = Ledger(create_engine(url))
    job = ledger.create_job(records.a_job(created_at=NOW))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW))
    count_trial_of(ledger, version)
    return version


def promotion(version: ModelVersion, kind: str, state: str, **changes: Any) -> dict[str, Any]:
    row = {
        "model_id": version.model_id,
        "kind": kind,
        "state": state,
        "from_version": None,
        "to_version": version.version,
        "at": NOW,
        "finished_at": NOW,
    }
    return row | changes


def alert(kind: str, subject: str, ended_at: datetime | None = None) -> dict[str, Any]:
    return {"kind": kind, "subject": subject, "at": NOW, "ended_at": ended_at}


def insert_deliveries(connection: Connection) -> None:
    connection.execute(
        RECEIVER, [{"name": "alerts pager", "stream": "alerts"}, {"name": "trader", "stream": "events"}]
    )
    letters = [
        ("alerts pager", 1, "drift_detected a_model"),
        ("alerts pager", 2, "upkeep_failing verify"),
        ("alerts pager", 3, "job_failed drift_detected"),
        ("trader", 4, "drift_detected a_model"),
    ]
    rows = [{"receiver": name, "seq": seq, "about": about, "at": NOW} for name, seq, about in letters]
    connection.execute(DEAD_LETTER, rows)


def test_promotions_and_alerts_of_revision_0014_are_read_under_the_new_names(
    empty_database: Callable[[], str],
) -> None:
    url = empty_database()
    upgrade(url)
    version = insert_version(url)
    back_to_revision(url, "0014")
    engine = create_engine(url)
    with engine.begin() as connection:
        rows = [
            promotion(version, "promotion", "committed"),
            promotion(version, "drift", "drift", from_version=version.version),
            promotion(version, "loss", "committed", from_version=version.version, to_version=None),
            promotion(version, "rollback", "aborted"),
            promotion(version, "adoption", "committed"),
            promotion(version, "drift", "drift", from_version=version.version, to_version=None)
            | {"finished_at": None},
        ]
        connection.execute(PROMOTION, rows)
        kinds = ["job_failed", "drift_detected", "upkeep_failing", "audit_broken", "upkeep_failing"]
        connection.execute(
            ALERT,
            [
                alert(kind, f"subject {number}", NOW if kind in {"job_failed", "drift_detected"} else None)
                for number, kind in enumerate(kinds)
            ],
        )
        insert_deliveries(connection)

    assert "0015" in upgrade(url)

    promotions = Ledger(engine).promotions
    assert [(change.kind, change.state) for change in promotions.history(version.model_id)] == [
        (PromotionKind.PROMOTION, PromotionState.COMMITTED),
        (PromotionKind.ALIAS_MOVED, PromotionState.ALIAS_MOVED),
        (PromotionKind.LOSS, PromotionState.COMMITTED),
        (PromotionKind.ROLLBACK, PromotionState.ABORTED),
        (PromotionKind.ADOPTION, PromotionState.COMMITTED),
        (PromotionKind.ALIAS_MOVED, PromotionState.ALIAS_MOVED),
    ]
    under_way = promotions.under_way(version.model_id)
    assert under_way is not None
    assert under_way.kind is PromotionKind.ALIAS_MOVED
    assert promotions.restore(under_way, NOW).state is PromotionState.ALIAS_MOVED
    alerts = AlertStore(engine)
    assert [alert.kind for alert in reversed(alerts.newest())] == [
        AlertKind.JOB_FAILED,
        AlertKind.ALIAS_MOVED,
        AlertKind.MAINTENANCE_FAILING,
        AlertKind.AUDIT_BROKEN,
        AlertKind.MAINTENANCE_FAILING,
    ]
    assert alerts.end(AlertKind.MAINTENANCE_FAILING, "subject 2", NOW)
    assert [letter.about for letter in ReceiverStore(engine).dead()] == [
        "alias_moved a_model",
        "maintenance_failing verify",
        "job_failed drift_detected",
        "drift_detected a_model",
    ]


def test_a_downgrade_brings_the_former_names_back(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    version = insert_version(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(PROMOTION, promotion(version, "alias_moved", "alias_moved"))
        connection.execute(
            ALERT, [alert("alias_moved", "a_model", NOW), alert("maintenance_failing", "feed")]
        )
        command.downgrade(alembic_config(connection), "0014")
        kinds = connection.execute(text("SELECT kind, state FROM promotions")).all()
        assert [tuple(row) for row in kinds] == [("drift", "drift")]
        assert list(connection.scalars(text("SELECT kind FROM alerts ORDER BY seq"))) == [
            "drift_detected",
            "upkeep_failing",
        ]


def test_audit_entries_with_the_former_actions_still_verify_and_parse(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database()
    at_revision(url, "0014")
    engine = create_engine(url)
    former = ["drift_detected", "drift_restored", "drift_adopted"]
    with engine.begin() as connection:
        for action in former:
            entry = AuditEntry(at=NOW, actor=SYSTEM, action=Action.ALIAS_MOVED, subject="a_model")
            audit_log.append(connection, entry.model_copy(update={"action": action}))

    upgrade(url)

    entries = audit_log.entries(engine)
    assert audit_log.verify(engine, []).problems == ()
    assert [entry.action for entry in reversed(entries)] == former, "an append-only log keeps the old words"
    assert [Action(entry.action) for entry in reversed(entries)] == [
        Action.ALIAS_MOVED,
        Action.ALIAS_MOVE_RESTORED,
        Action.ALIAS_MOVE_ADOPTED,
    ]


@pytest.mark.parametrize(
    ("former", "expected"),
    [
        (lambda: PromotionKind("drift"), PromotionKind.ALIAS_MOVED),
        (lambda: PromotionState("drift"), PromotionState.ALIAS_MOVED),
        (lambda: AlertKind("drift_detected"), AlertKind.ALIAS_MOVED),
        (lambda: AlertKind("upkeep_failing"), AlertKind.MAINTENANCE_FAILING),
    ],
    ids=["promotion-kind", "promotion-state", "alias-moved-alert", "maintenance-alert"],
)
def test_former_values_are_accepted(former: Callable[[], object], expected: object) -> None:
    assert former() is expected


@pytest.mark.parametrize(
    "vocabulary", [PromotionKind, PromotionState, AlertKind, Action], ids=lambda it: it.__name__
)
def test_unknown_values_are_still_refused(vocabulary: Callable[[object], object]) -> None:
    for unknown in ("unheard_of", None):
        with pytest.raises(ValueError, match="is not a valid"):
            vocabulary(unknown)


def test_a_verdict_stored_with_legs_is_read_as_checks(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    version = insert_version(url)
    engine = create_engine(url)
    ledger = Ledger(engine)
    check = Check(name="trades", value=60, limit=50, comparison=">=", passed=True, margin=10)
    verdict = Verdict(decision=Decision.PASS, score=80, checks=(check,), reasons=())
    result = records.an_evaluation(version.model_id, version.version, created_at=NOW, passed=True)
    ledger.add_evaluation(result, verdict, GatePolicy(name="strict"), version.bundle_digest)
    with engine.begin() as connection:
        connection.execute(FORMER_VERDICT)
        [stored] = connection.scalars(text("SELECT verdict FROM evaluations"))
    assert "legs" in stored
    assert "checks" not in stored
    assert ledger.evaluation(version.model_id, version.version) == (result, verdict)


def test_a_verdict_shows_checks_and_for_one_release_legs() -> None:
    check = Check(name="trades", value=60, limit=50, comparison=">=", passed=True, margin=10)
    verdict = Verdict(decision=Decision.PASS, score=80, checks=(check,), reasons=())
    dumped = verdict.model_dump(mode="json")
    assert dumped["checks"] == dumped["legs"] == [check.model_dump(mode="json")]
    assert Verdict.model_validate(dumped) == verdict
    properties = Verdict.model_json_schema(mode="serialization")["properties"]
    assert properties["legs"]["deprecated"] is True
    assert "deprecated" not in properties["checks"]


def test_a_verdict_is_stored_with_checks_alone(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    version = insert_version(url)
    engine = create_engine(url)
    verdict = Verdict(decision=Decision.FAIL, score=1, checks=(), reasons=("Sharpe ratio below 1",))
    result = records.an_evaluation(version.model_id, version.version, created_at=NOW, id=uuid.uuid4())
    Ledger(engine).add_evaluation(result, verdict, GatePolicy(name="strict"), version.bundle_digest)
    with engine.begin() as connection:
        [stored] = connection.scalars(text("SELECT verdict FROM evaluations"))
    assert "checks" in stored
    assert "legs" not in stored
