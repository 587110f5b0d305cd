"""Promotion, rollback, retirement and reconciliation of versions, with the ledger and MLflow."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import promoting
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import (
    BundleCorrupt,
    CLMError,
    ConflictError,
    IllegalTransition,
    ModelHalted,
    NotAllowed,
    NotFound,
    PromotionRefused,
    RegistryUnavailable,
)
from clm_core.domain.promotions import (
    Promotion,
    PromotionKind,
    PromotionState,
    Rejudgement,
    line_of_champions,
    rollback_target,
)
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.registry.promotion import ChangeRequest
from clm_core.services import Services
from clm_core.serving import load

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
REPORTER, VIEWER, OPERATOR, ADMIN = (
    Actor(name=f"a {role}", role=role) for role in (Role.REPORTER, Role.VIEWER, Role.OPERATOR, Role.ADMIN)
)
MakeVersion = Callable[..., ModelVersion]
Check = Callable[[str], None]


def promote(services: Services, version: ModelVersion, actor: Actor = OPERATOR, **options: Any) -> Promotion:
    return promoting.promote(services, version.model_id, version.version, actor, "tested", NOW, **options)


def rollback(services: Services, model_id: str, actor: Actor = OPERATOR, **options: Any) -> Promotion:
    return services.promotions.rollback(model_id, actor, "tested", NOW, **options)


def status(services: Services, version: ModelVersion) -> ModelStatus:
    return services.ledger.version(version.model_id, version.version).status


def test_a_promotion_moves_the_alias_and_retires_the_version_before(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    first = make_version(model_id)
    second = make_version(model_id)
    assert promote(services, first, expected_champion=None).from_version is None
    check(model_id)
    done = promote(services, second, expected_champion=first.version)
    check(model_id)
    assert (done.from_version, done.to_version) == (first.version, second.version)
    assert (done.state, done.kind, done.expected) == (PromotionState.COMMITTED, PromotionKind.PROMOTION, True)
    assert services.registry.aliased(model_id, "previous") == first.mlflow_version
    assert status(services, first) is ModelStatus.RETIRED
    assert status(services, second) is ModelStatus.PRODUCTION


def test_a_promotion_is_announced_with_versions_digest_actor_and_reason(
    services: Services, make_version: MakeVersion, model_id: str, audited: Callable[[str], list[str]]
) -> None:
    version = make_version(model_id)
    done = promote(services, version)
    with create_engine(services.database.url("ledger")).begin() as connection:
        of_model = text(
            "SELECT type, payload, at FROM outbox "
            "WHERE payload->>'model_id' = :id AND payload ? 'promotion_id'"
        )
        [event] = connection.execute(of_model, {"id": model_id}).all()
    assert (event.type, event.at) == ("clm.model_promoted", NOW)
    assert event.payload == {
        "promotion_id": done.id,
        "model_id": model_id,
        "version": version.version,
        "previous_version": None,
        "model_path": version.model_path,
        "bundle_digest": version.bundle_digest,
        "actor": OPERATOR.name,
        "reason": "tested",
        "forced": False,
    }
    assert audited(model_id) == ["promotion_committed"]


def test_rollbacks_go_back_through_the_earlier_production_versions(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    check: Check,
    audited: Callable[[str], list[str]],
) -> None:
    a, b, c = versions = [make_version(model_id) for _ in range(3)]
    for version in versions:
        promote(services, version)
    assert rollback(services, model_id).to_version == b.version
    assert rollback(services, model_id).to_version == a.version
    check(model_id)
    with pytest.raises(NotFound, match="nothing to roll back to"):
        rollback(services, model_id)
    assert (
        rollback(services, model_id, to=c.version, expected_champion=a.version).kind is PromotionKind.ROLLBACK
    )
    check(model_id)
    assert audited(model_id) == ["promotion_committed"] * 3 + ["rollback_committed"] * 3


def test_a_rollback_leads_to_a_version_that_passed_at_its_promotion_and_not_to_a_forced_one(
    services: Services, make_version: MakeVersion, model_id: str, ledger_engine: Engine
) -> None:
    forced, shadowed, newest = (make_version(model_id, sharpe=each) for each in (0.1, 0.1, 2.0))
    promote(services, forced, ADMIN, force=True)
    in_shadow = text("UPDATE model_versions SET status = 'shadow' WHERE model_id = :m AND version = :v")
    with ledger_engine.begin() as connection:
        connection.execute(in_shadow, {"m": model_id, "v": shadowed.version})
    judge = promoting.judge(services, NOW)

    def passes_now(version: ModelVersion) -> Rejudgement:
        """Judgement after a shadow that completed the evidence."""
        return judge(version).model_copy(update={"refusals": ()})

    promotions = services.promotions
    promotions.promote(model_id, shadowed.version, OPERATOR, "after its shadow", NOW, passes_now)
    promote(services, newest)
    assert promotions.rollback_refusals(services.ledger.version(model_id, shadowed.version)) == ()
    assert rollback(services, model_id).to_version == shadowed.version
    refusals = promotions.rollback_refusals(services.ledger.version(model_id, forced.version))
    assert refusals == ("the version did not pass the gate",)


def test_an_operator_goes_back_from_a_forced_version_to_the_forced_version_before_until_its_expiry(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    first, second = (make_version(model_id, sharpe=0.1) for _ in range(2))
    overridden = promote(services, first, ADMIN, force=True)
    promote(services, second, ADMIN, force=True)
    assert overridden.expires_at is not None
    with pytest.raises(PromotionRefused, match="did not pass the gate"):
        services.promotions.rollback(model_id, OPERATOR, "too late", overridden.expires_at)
    back = rollback(services, model_id)
    assert (back.to_version, back.forced, back.actor) == (first.version, True, OPERATOR.name)
    assert back.expires_at == overridden.expires_at
    assert promote(services, second, ADMIN, force=True).forced
    unexplained = services.promotions.rollback(model_id, OPERATOR, "", NOW)
    assert unexplained.reason == f"back to {first.version}, forced until 2026-03-11 12:00 UTC"
    expired = services.ledger.promotions.expired_forced(overridden.expires_at)
    assert unexplained.id in [change.id for change in expired]
    with pytest.raises(PromotionRefused, match="did not pass the gate"):
        rollback(services, model_id, to=second.version)
    check(model_id)


def test_an_operator_does_not_go_back_from_a_version_that_passed_to_a_forced_one(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    forced = make_version(model_id, sharpe=0.1)
    passed = make_version(model_id)
    promote(services, forced, ADMIN, force=True)
    promote(services, passed)
    with pytest.raises(PromotionRefused, match="did not pass the gate"):
        rollback(services, model_id)


def test_a_rollback_leads_only_to_an_earlier_production_version(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    served = make_version(model_id)
    never_promoted = make_version(model_id)
    promote(services, served)
    with pytest.raises(NotFound, match="was never in production"):
        rollback(services, model_id, to=never_promoted.version)
    with pytest.raises(PromotionRefused, match="in production already"):
        rollback(services, model_id, to=served.version)


@pytest.mark.parametrize(
    ("served", "target"),
    [
        ("", None),
        ("A", None),
        ("AB", "A"),
        ("ABC<", "A"),
        ("AB<", None),
        ("AB<C", "A"),
        ("ABx", "A"),
        ("Ax", None),
        ("ABh", "A"),
        ("Ah", None),
        ("ABh<", None),
        ("ABA", "B"),
    ],
    ids=lambda served: served or "nothing",
)
def test_the_target_of_a_rollback_follows_from_the_recorded_changes(served: str, target: str | None) -> None:
    """Letters are promotions, < is a rollback, x the deletion of the production version, h a halt."""
    history: list[Promotion] = []
    for step in served:
        kinds = {"<": PromotionKind.ROLLBACK, "x": PromotionKind.LOSS, "h": PromotionKind.HALT}
        kind = kinds.get(step, PromotionKind.PROMOTION)
        to = {"<": rollback_target(history), "x": None, "h": None}.get(step, step)
        history.append(committed(kind, to))
    assert rollback_target(history) == target
    assert len(line_of_champions(history)) <= len(served)


def committed(kind: PromotionKind, to: str | None) -> Promotion:
    return Promotion(
        id=1,
        model_id="m",
        kind=kind,
        state=PromotionState.COMMITTED,
        from_version=None,
        to_version=to,
        actor="ada",
        role=Role.ADMIN,
        reason="",
        at=NOW,
        finished_at=NOW,
    )


def test_a_halted_model_serves_nothing_until_a_version_is_put_back(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    check: Check,
    audited: Callable[[str], list[str]],
) -> None:
    version = make_version(model_id)
    promote(services, version)
    with pytest.raises(NotAllowed, match="needs a reason"):
        services.promotions.halt(model_id, OPERATOR, " ", NOW)
    with pytest.raises(NotAllowed, match="viewer"):
        services.promotions.halt(model_id, VIEWER, "tested", NOW)
    frozen = Alert(kind=AlertKind.PROTECTION_FROZEN, subject=model_id, message="decide", at=NOW)
    services.alerts.record(frozen)
    halt = services.promotions.halt(model_id, OPERATOR, "the exchange is down", NOW, version.version)
    check(model_id)
    assert (halt.kind, halt.from_version, halt.to_version) == (PromotionKind.HALT, version.version, None)
    assert status(services, version) is ModelStatus.RETIRED
    with pytest.raises(
        ModelHalted, match=r"halted since 2026-03-04 12:00 UTC .*: the exchange is down\. Hold"
    ):
        load(model_id, registry=services.registry, ledger=services.ledger)
    lasting = [(alert.kind, alert.subject) for alert in services.alerts.lasting()]
    assert (AlertKind.MODEL_HALTED, model_id) in lasting
    assert (AlertKind.PROTECTION_FROZEN, model_id) not in lasting, "the person decided"
    with create_engine(services.database.url("ledger")).begin() as connection:
        newest = text("SELECT type, payload FROM outbox WHERE payload->>'model_id' = :id ORDER BY seq DESC")
        event = connection.execute(newest, {"id": model_id}).first()
    assert event is not None
    assert event.type == "clm.model_halted"
    assert event.payload["previous_version"] == version.version
    with pytest.raises(NotFound, match="nothing to halt"):
        services.promotions.halt(model_id, OPERATOR, "again", NOW)
    assert rollback(services, model_id, to=version.version).to_version == version.version
    check(model_id)
    assert AlertKind.MODEL_HALTED not in [
        alert.kind for alert in services.alerts.lasting() if alert.subject == model_id
    ]
    assert audited(model_id) == ["promotion_committed", "production_halted", "rollback_committed"]


@pytest.mark.parametrize("expected", [None, "v19700101_000000"])
def test_a_promotion_that_expects_another_champion_is_a_conflict(
    expected: str | None, services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    first = make_version(model_id)
    second = make_version(model_id)
    promote(services, first)
    with pytest.raises(ConflictError, match=f"{first.version} serves {model_id} now, not"):
        promote(services, second, expected_champion=expected)
    check(model_id)
    assert status(services, second) is ModelStatus.CANDIDATE


Refused = tuple[dict[str, Any], str]
REFUSED: dict[str, Refused] = {
    "failed its gate": ({"sharpe": 0.2}, "the version did not pass the gate"),
    "never judged": ({"judged": False}, "the version was never judged"),
    "its job goes on": ({"completed": False}, "the training job is in_progress"),
}


@pytest.mark.parametrize(("properties", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_version_without_a_passing_verdict_is_not_promoted(
    properties: dict[str, Any], reason: str, services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id, **properties)
    with pytest.raises(PromotionRefused, match=reason):
        promote(services, version, ADMIN)
    assert services.ledger.promotions.history(model_id) == []


def test_a_verdict_about_another_bundle_does_not_count(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    set_in(services, "evaluations", "bundle_digest = repeat('0', 64)", version)
    with pytest.raises(PromotionRefused, match="the gate judged a different bundle"):
        promote(services, version)


def test_a_version_whose_bytes_changed_is_not_promoted_even_by_force(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    [trees] = Path(services.settings.home, "mlflow").rglob(
        f"*{stored_folder(services, version)}*/**/trees.txt"
    )
    trees.write_bytes(trees.read_bytes() + b"\n")
    for options in ({}, {"force": True}):
        with pytest.raises(BundleCorrupt, match="was changed"):
            promote(services, version, ADMIN, **options)
    assert services.registry.aliased(model_id, "production") is None


def test_a_forced_promotion_needs_an_admin_and_a_reason_and_expires(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    check: Check,
    audited: Callable[[str], list[str]],
) -> None:
    failed = make_version(model_id, sharpe=0.2)
    good = make_version(model_id)
    store = services.ledger.promotions
    with pytest.raises(NotAllowed, match="only an admin may overrule"):
        promote(services, failed, OPERATOR, force=True)
    with pytest.raises(NotAllowed, match="needs a reason"):
        promoting.promote(services, model_id, failed.version, ADMIN, " ", NOW, force=True)
    before = services.ledger.counts()
    forced = promote(services, failed, ADMIN, force=True)
    check(model_id)
    assert forced.expires_at == NOW + timedelta(days=7)
    assert audited(model_id) == ["forced_promotion"]
    assert services.ledger.counts().forced == before.forced + 1
    assert forced not in store.expired_forced(NOW + timedelta(days=6))
    assert forced in store.expired_forced(NOW + timedelta(days=7))
    promote(services, good)
    assert forced not in store.expired_forced(NOW + timedelta(days=7))
    with pytest.raises(PromotionRefused, match="did not pass the gate"):
        rollback(services, model_id)


def test_a_promotion_with_force_counts_as_forced_only_if_a_rule_was_overruled(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    done = promote(services, make_version(model_id), ADMIN, force=True)
    assert (done.forced, done.expires_at) == (False, None)


@pytest.mark.parametrize("change", ["promote", "rollback", "retire", "reconcile"])
def test_a_viewer_or_reporter_changes_nothing(
    change: str, services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    promotions = services.promotions
    changes: dict[str, Callable[[Actor], object]] = {
        "promote": lambda actor: promote(services, version, actor),
        "rollback": lambda actor: rollback(services, model_id, actor),
        "retire": lambda actor: promotions.retire(model_id, version.version, actor, "tested", NOW),
        "reconcile": lambda actor: promotions.reconcile(model_id, actor, NOW),
    }
    for actor in (VIEWER, REPORTER):
        with pytest.raises(NotAllowed, match=f"is a {actor.role} .* ask an operator or an admin"):
            changes[change](actor)


def test_the_production_version_cannot_be_retired_nor_get_another_status(
    services: Services, make_version: MakeVersion, model_id: str, audited: Callable[[str], list[str]]
) -> None:
    serving = make_version(model_id)
    other = make_version(model_id)
    promote(services, serving)
    with pytest.raises(IllegalTransition, match="is production"):
        services.promotions.retire(model_id, serving.version, OPERATOR, "tested", NOW)
    with pytest.raises(IllegalTransition, match="is production"):
        services.ledger.set_version_status(model_id, serving.version, ModelStatus.FAILED, NOW)
    with pytest.raises(IllegalTransition, match="can't become production"):
        services.ledger.set_version_status(model_id, other.version, ModelStatus.PRODUCTION, NOW)
    for _ in range(2):
        retired = services.promotions.retire(model_id, other.version, OPERATOR, "tested", NOW)
        assert retired.status is ModelStatus.RETIRED
    assert audited(model_id) == ["promotion_committed", "version_retired"]
    with pytest.raises(PromotionRefused, match="the status is retired, not candidate or shadow"):
        promote(services, other)


def test_an_alias_moved_by_hand_is_recorded_and_put_back(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    check: Check,
    audited: Callable[[str], list[str]],
) -> None:
    serving = make_version(model_id)
    other = make_version(model_id)
    promote(services, serving)
    services.registry.point(model_id, "production", other.mlflow_version)
    [alias_move] = services.promotions.reconcile(model_id, OPERATOR, NOW)
    assert (alias_move.state, alias_move.from_version, alias_move.to_version) == (
        "alias_moved",
        serving.version,
        other.version,
    )
    check(model_id)
    services.registry.point(model_id, "production", None)
    [alias_move] = services.promotions.reconcile(model_id, OPERATOR, NOW)
    assert alias_move.reason == "the alias production was removed"
    check(model_id)
    assert services.promotions.reconcile(model_id, OPERATOR, NOW) == []
    assert audited(model_id) == ["promotion_committed", *["alias_moved", "alias_move_restored"] * 2]


def test_an_alias_set_by_hand_before_the_first_promotion_is_removed(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    services.registry.point(model_id, "production", make_version(model_id).mlflow_version)
    services.promotions.reconcile(model_id, OPERATOR, NOW)
    assert services.registry.aliased(model_id, "production") is None
    check(model_id)


def test_a_promotion_also_records_an_alias_moved_by_hand(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    serving = make_version(model_id)
    other = make_version(model_id)
    promote(services, serving)
    services.registry.point(model_id, "production", other.mlflow_version)
    assert promote(services, other, expected_champion=serving.version).from_version == serving.version
    kinds = [change.kind for change in services.ledger.promotions.history(model_id)]
    assert kinds == [PromotionKind.PROMOTION, PromotionKind.ALIAS_MOVED, PromotionKind.PROMOTION]
    check(model_id)


def test_an_admin_may_adopt_an_alias_moved_by_hand(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    serving = make_version(model_id)
    failed = make_version(model_id, sharpe=0.2)
    promote(services, serving)
    services.registry.point(model_id, "production", failed.mlflow_version)
    with pytest.raises(NotAllowed, match="only an admin"):
        services.promotions.reconcile(model_id, OPERATOR, NOW, adopt=True, reason="it is fine")
    [adopted] = services.promotions.reconcile(model_id, ADMIN, NOW, adopt=True, reason="it is fine")
    assert (adopted.kind, adopted.to_version, adopted.forced) == ("adoption", failed.version, True)
    check(model_id)
    assert rollback(services, model_id).to_version == serving.version


def test_a_version_missing_from_the_ledger_cannot_be_adopted(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    import mlflow

    serving = make_version(model_id)
    promote(services, serving)
    client = mlflow.MlflowClient(services.database.url("mlflow"), services.database.url("mlflow"))
    source = client.get_model_version(model_id, str(serving.mlflow_version)).source
    stray = client.create_model_version(model_id, source)
    services.registry.point(model_id, "production", int(stray.version))
    with pytest.raises(PromotionRefused, match="the version is not in the ledger"):
        services.promotions.reconcile(model_id, ADMIN, NOW, adopt=True, reason="it is fine")
    services.promotions.reconcile(model_id, ADMIN, NOW)
    check(model_id)


def test_a_production_version_deleted_in_mlflow_is_reported_and_rolled_back_from(
    services: Services,
    make_version: MakeVersion,
    model_id: str,
    check: Check,
    audited: Callable[[str], list[str]],
) -> None:
    import mlflow

    before = make_version(model_id)
    lost = make_version(model_id)
    promote(services, before)
    promote(services, lost)
    client = mlflow.MlflowClient(services.database.url("mlflow"), services.database.url("mlflow"))
    client.delete_model_version(model_id, str(lost.mlflow_version))
    [loss] = services.promotions.reconcile(model_id, OPERATOR, NOW)
    assert (loss.kind, loss.from_version, loss.to_version) == ("loss", lost.version, None)
    assert services.promotions.reconcile(model_id, OPERATOR, NOW) == []
    check(model_id)
    with pytest.raises(RegistryUnavailable, match="could not read"):
        rollback(services, model_id, to=lost.version)
    assert rollback(services, model_id, expected_champion=None).to_version == before.version
    check(model_id)
    assert audited(model_id)[2:] == ["alias_moved", "production_lost", "rollback_committed"]


def test_a_failure_of_mlflow_after_the_intent_leaves_the_production_version(
    services: Services, make_version: MakeVersion, model_id: str, check: Check
) -> None:
    serving = make_version(model_id)
    other = make_version(model_id)
    promote(services, serving)
    refuse = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'disk full'; END$$;
        CREATE TRIGGER refuse BEFORE UPDATE ON registered_model_aliases EXECUTE FUNCTION refuse();
    """
    with create_engine(services.database.url("mlflow")).begin() as connection:
        connection.execute(text(refuse))
    try:
        with pytest.raises(RegistryUnavailable, match="clm reconcile"):
            promote(services, other)
    finally:
        with create_engine(services.database.url("mlflow")).begin() as connection:
            connection.execute(text("DROP FUNCTION refuse CASCADE"))
    [aborted] = services.promotions.reconcile(model_id, OPERATOR, NOW)
    assert (aborted.state, aborted.to_version) == (PromotionState.ABORTED, other.version)
    check(model_id)
    assert status(services, serving) is ModelStatus.PRODUCTION


def test_a_lost_lock_is_a_conflict(services: Services, model_id: str) -> None:
    with pytest.raises(ConflictError, match="lost with the database connection"):
        lose_the_lock(services, model_id)


def lose_the_lock(services: Services, model_id: str) -> None:
    kill = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
        "WHERE locktype = 'advisory' AND objid::bigint = hashtext(:id)::bit(32)::bigint"
    )
    with services.ledger.promotions.lock(model_id) as require_lock:
        require_lock()
        with create_engine(services.database.url("ledger")).begin() as connection:
            assert connection.execute(kill, {"id": model_id}).scalars().all() == [True]
        require_lock()


def test_the_statistics_count_promotions_rollbacks_and_the_share_promoted(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    before = services.ledger.counts()
    first = make_version(model_id)
    second = make_version(model_id)
    make_version(model_id)
    promote(services, first)
    promote(services, second)
    rollback(services, model_id)
    after = services.ledger.counts()
    assert after.promotions - before.promotions == 2
    assert after.rollbacks - before.rollbacks == 1
    assert after.promotion_rate is not None
    assert 0 < after.promotion_rate <= 1


def test_a_forced_promotion_counts_as_forced_and_not_in_the_share_promoted(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    failed = make_version(model_id, sharpe=0.1)
    before = services.ledger.counts()
    promote(services, failed, ADMIN, force=True)
    after = services.ledger.counts()
    assert (after.forced - before.forced, after.promotion_rate) == (1, before.promotion_rate)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: promoting.promote(s, "no_model_1h", "v1", OPERATOR, "", NOW), NotFound),
        (lambda s: s.promotions.rollback("no_model_1h", OPERATOR, "", NOW), NotFound),
        (lambda s: s.promotions.retire("no_model_1h", "v1", OPERATOR, "", NOW), NotFound),
    ],
    ids=["promote", "rollback", "retire"],
)
def test_an_unknown_model_is_named(
    change: Callable[[Services], object], error: type[CLMError], services: Services
) -> None:
    with pytest.raises(error, match="no_model_1h"):
        change(services)


def set_in(services: Services, table: str, change: str, version: ModelVersion) -> None:
    statement = f"UPDATE {table} SET {change} WHERE model_id = :id AND version = :version"
    with create_engine(services.database.url("ledger")).begin() as connection:
        connection.execute(text(statement), {"id": version.model_id, "version": version.version})


def stored_folder(services: Services, version: ModelVersion) -> str:
    import mlflow

    client = mlflow.MlflowClient(services.database.url("mlflow"), services.database.url("mlflow"))
    source: str = client.get_model_version(version.model_id, str(version.mlflow_version)).source
    return source.removeprefix("models:/")


def test_a_moved_alias_and_a_deleted_version_raise_alerts(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    import mlflow

    serving = make_version(model_id)
    other = make_version(model_id)
    promote(services, serving)
    services.registry.point(model_id, "production", other.mlflow_version)
    services.promotions.reconcile(model_id, OPERATOR, NOW)
    client = mlflow.MlflowClient(services.database.url("mlflow"), services.database.url("mlflow"))
    client.delete_model_version(model_id, str(serving.mlflow_version))
    services.promotions.reconcile(model_id, OPERATOR, NOW)
    kinds = [alert.kind for alert in services.alerts.newest() if alert.subject == model_id]
    assert kinds == [AlertKind.PRODUCTION_LOST, AlertKind.ALIAS_MOVED, AlertKind.ALIAS_MOVED]


SECOND_VERSION = {
    "ix_model_versions_production": "UPDATE model_versions SET status = 'production' WHERE model_id = :id",
    "ix_promotions_under_way": (
        "INSERT INTO promotions "
        "(model_id, kind, state, to_version, expected, actor, role, reason, forced, at) "
        "SELECT model_id, 'promotion', 'intent', version, false, 'ada', 'operator', '', false, now() "
        "FROM model_versions WHERE model_id = :id"
    ),
}


@pytest.mark.parametrize("attempt", SECOND_VERSION.values(), ids=["in production", "being promoted"])
def test_the_database_refuses_a_second_version_of_a_model(
    attempt: str, ledger_engine: Engine, make_version: MakeVersion, model_id: str
) -> None:
    make_version(model_id)
    make_version(model_id)
    # never committed, so rolled back in any case
    with ledger_engine.connect() as connection, pytest.raises(IntegrityError, match="duplicate key"):
        connection.execute(text(attempt), {"id": model_id})


def test_a_change_that_a_concurrent_reconciliation_committed_is_the_answer(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    store = services.ledger.promotions
    change = ChangeRequest(OPERATOR, "", NOW).change(model_id, PromotionKind.PROMOTION, None, version.version)
    intent = store.intend(change)
    services.registry.point(model_id, "production", version.mlflow_version)
    [ended] = services.promotions.reconcile(model_id, OPERATOR, NOW)
    assert store.commit(intent, NOW, None) == ended
    aborted = store.intend(change)
    store.abort(aborted, "by a test", NOW)
    with pytest.raises(ConflictError, match="ended by a concurrent command"):
        store.commit(aborted, NOW, None)


@pytest.mark.parametrize(("index", "attempt"), SECOND_VERSION.items(), ids=SECOND_VERSION)
def test_a_ledger_without_the_index_accepts_a_second_version(
    index: str, attempt: str, ledger_engine: Engine, make_version: MakeVersion, model_id: str
) -> None:
    refusal = test_the_database_refuses_a_second_version_of_a_model
    with dropped(index, ledger_engine), pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal(attempt, ledger_engine, make_version, model_id)


def test_a_build_that_compares_no_digest_promotes_changed_bytes(
    services: Services, make_version: MakeVersion, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clm_core.models.bundle.verify_bundle", lambda folder, digest: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_a_version_whose_bytes_changed_is_not_promoted_even_by_force(services, make_version, model_id)


@contextlib.contextmanager
def dropped(index: str, engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        definition = connection.scalar(text(f"SELECT pg_get_indexdef('{index}'::regclass)"))
        connection.execute(text(f"DROP INDEX {index}"))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text(str(definition)))
