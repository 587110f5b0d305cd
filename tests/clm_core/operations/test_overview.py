"""Overview of all models, and the time line of one."""

from collections.abc import Callable
from datetime import datetime, timedelta

import promoting
import pytest
from sqlalchemy import Engine, event, text

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import NotFound
from clm_core.domain.overviews import ModelOverview, ServingState, TimelineKind
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.standings import ProductionStanding
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.lifecycle import allocation
from clm_core.operations import overview
from clm_core.operations.overview import read_history, read_overview
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]
ADA = Actor(name="ada", role=Role.OPERATOR)


def decided(
    services: Services, version: ModelVersion, action: ShadowAction, at: datetime, waits_for: str = ""
) -> None:
    decision = ShadowDecision(action=action, reasons=(), progress="5 of 60 days", waits_for=waits_for)
    label = version.version
    services.ledger.shadow_decisions.record(None, version.model_id, label, None, decision, at)


def overview_of(services: Services, model_id: str) -> ModelOverview:
    models = read_overview(services, model_id).shown
    return next(each for each in models if each.model_id == model_id)


def promote(services: Services, version: ModelVersion, reason: str = "") -> None:
    now = services.clock()
    promoting.promote(services, version.model_id, version.version, ADA, reason, now)


def test_the_state_follows_the_newest_change_of_production(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    states = [overview_of(services, model_id).state]
    promote(services, version)
    states.append(overview_of(services, model_id).state)
    services.promotions.halt(model_id, ADA, "exchange down", services.clock())
    states.append(overview_of(services, model_id).state)
    assert states == [ServingState.NOTHING, ServingState.SERVING, ServingState.HALTED]
    change = overview_of(services, model_id).change
    assert change is not None
    assert change.reason == "exchange down"


def test_a_promotion_that_waits_comes_first_with_its_obstacle(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    before = read_overview(services)
    decided(services, version, ShadowAction.PROMOTE, services.clock(), "promotion = approval in the policy")
    after = read_overview(services)
    [challenger] = overview_of(services, model_id).challengers
    assert challenger.waits_for == "promotion = approval in the policy"
    assert after.waiting == before.waiting + 1
    names = [each.model_id for each in after.models]
    calm = [each.model_id for each in after.models if each.state is ServingState.SERVING]
    assert all(names.index(model_id) < names.index(each) for each in calm)


def test_a_standing_is_shown_until_production_changes_again(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    first, second = (make_version(model_id) for _ in range(2))
    promote(services, first)
    [change] = services.ledger.promotions.committed(model_id)
    measured = ProductionStanding(
        model_id=model_id,
        version=first.version,
        since=change.at,
        at=services.clock(),
        bars=0,
        trades=0,
        drawdown=None,
        hard_stop=0.2,
        equity=(),
        band=(),
        expected=None,
        sentences=("no new bars",),
    )
    older = measured.model_copy(update={"at": change.at, "sentences": ()})
    for each in (measured, older):
        services.ledger.standings.record(each)
    assert overview_of(services, model_id).standing == measured
    promote(services, second)
    assert overview_of(services, model_id).standing is None
    services.promotions.rollback(model_id, ADA, "worse", services.clock())
    assert overview_of(services, model_id).standing is None


def test_the_newest_weights_of_a_running_allocation_are_shown(
    services: Services, make_version: MakeVersion, model_id: str, ledger_engine: Engine
) -> None:
    first, second, refresh = (make_version(model_id) for _ in range(3))
    with ledger_engine.begin() as connection:
        change = text("UPDATE model_versions SET recipe_digest = :r WHERE model_id = :m AND version <> :v")
        connection.execute(change, {"r": "a" * 64, "m": model_id, "v": second.version})
    promote(services, first)
    allocation.start(services, model_id, [second.version], ADA, "tested")
    weights = overview_of(services, model_id).weights
    assert weights is not None
    assert {arm.version: arm.weight for arm in weights.arms} == {first.version: 0.7, second.version: 0.3}
    promote(services, refresh)
    weights = overview_of(services, model_id).weights
    assert weights is not None
    assert {arm.version: arm.weight for arm in weights.arms} == {refresh.version: 0.7, second.version: 0.3}
    # the next pass ends the allocation of a former production version
    promote(services, second)
    assert overview_of(services, model_id).weights is None
    allocation.stop(services, model_id, ADA, "tested")
    assert overview_of(services, model_id).weights is None


def test_the_time_line_is_newest_first_and_repeats_no_decision(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    began = services.clock()
    for days in range(3):
        decided(services, version, ShadowAction.CONTINUE, began + timedelta(days=days))
    second = make_version(model_id)
    promote(services, version, "proved")
    services.promotions.retire(model_id, second.version, ADA, "older data", services.clock())
    history = read_history(services, model_id)
    kinds = [each.kind for each in history.timeline if each.version == version.version]
    assert kinds.count(TimelineKind.SHADOW) == 1
    assert set(kinds) == {
        TimelineKind.TRAINED,
        TimelineKind.JUDGED,
        TimelineKind.SHADOW,
        TimelineKind.PROMOTED,
    }
    moments = [each.at for each in history.timeline]
    assert moments == sorted(moments, reverse=True)
    assert [(each.by, each.text) for each in history.timeline if each.kind is TimelineKind.RETIRED] == [
        ("ada", "older data")
    ]
    assert len(history.versions) == 2
    assert history.judged is not None


def test_the_time_line_tells_of_the_start_and_the_end_of_an_allocation(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    first, second = (make_version(model_id) for _ in range(2))
    promote(services, first)
    allocation.start(services, model_id, [second.version], ADA, "to compare")
    started = read_history(services, model_id).timeline[0]
    assert (started.kind, started.by) == (TimelineKind.ALLOCATION_STARTED, "ada")
    assert started.text == (
        f"{first.version} in production shares the capital with {second.version}: to compare"
    )
    allocation.stop(services, model_id, ADA, "costs too much")
    ended, before, *_ = read_history(services, model_id).timeline
    assert (ended.kind, ended.by) == (TimelineKind.ALLOCATION_ENDED, "ada")
    assert ended.text == "stopped: costs too much"
    assert before == started


def test_a_history_has_the_alerts_about_the_model_and_its_versions_alone(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id)
    subjects = [model_id, f"{model_id}@{version.version}", f"{model_id}x"]
    for subject in subjects:
        now = services.clock()
        services.alerts.record(Alert(kind=AlertKind.STALE_BARS, subject=subject, message="old", at=now))
    assert [each.subject for each in read_history(services, model_id).alerts] == subjects[1::-1]
    for subject in subjects:
        services.alerts.end(AlertKind.STALE_BARS, subject, services.clock())
    with pytest.raises(NotFound, match="There is no model nothing_1h"):
        read_history(services, "nothing_1h")


def test_more_models_take_no_more_queries(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    def queries() -> int:
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        event.listen(Engine, "before_cursor_execute", counted)
        read_overview(services)
        event.remove(Engine, "before_cursor_execute", counted)
        return count

    before = queries()
    for letter in "abc":
        version = make_version(model_id.replace("usd_", f"usd{letter}_"))
        decided(services, version, ShadowAction.CONTINUE, services.clock())
    assert queries() == before < 20


def test_models_are_shown_page_by_page_with_verdicts_and_found_by_name(
    services: Services, make_version: MakeVersion, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [model_id.replace("usd_", f"usdpage{letter}_") for letter in "abc"]
    for each in ids:
        make_version(each)
    monkeypatch.setattr(overview, "MODELS_SHOWN", 2)
    first, last = (read_overview(services, " USDpage", page) for page in (1, 9))
    assert [model.model_id for page in (first, last) for model in page.shown] == ids
    assert [(page.page, page.pages, page.matching) for page in (first, last)] == [(1, 2, 3), (2, 2, 3)]
    assert len(first.models) > 3
    assert read_overview(services, "no such model").shown == ()
