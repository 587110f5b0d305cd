"""Places of recipes and decisions in a ledger that holds versions of the revision before."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import records
from alembic import command
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.shadow_decisions import PlaceOutcome, ShadowAction, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.alpha_spending import share
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
WAIT = ShadowDecision(action=ShadowAction.CONTINUE, reasons=("too early",), progress="1 of 60 days")
PROMOTE = ShadowDecision(action=ShadowAction.PROMOTE, reasons=("better",), progress="60 of 60 days")


@pytest.fixture(scope="module")
def upgraded(empty_database: Callable[[], str]) -> Iterator[tuple[Engine, ModelVersion]]:
    """Ledger whose version was recorded before revision 0027."""
    url = empty_database()
    upgrade(url)
    engine = open_engine(url)
    ledger = Ledger(engine)
    job = ledger.create_job(records.a_job(created_at=NOW))
    lease = ledger.start_job(job.id, "tests", NOW, timedelta(minutes=1))
    version = ledger.add_version(records.a_version(job, "v20260304_120000", created_at=NOW), lease)
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), "0026")
    assert upgrade(url)[0] == "0027"
    yield engine, version
    engine.dispose()


@pytest.fixture
def old(upgraded: tuple[Engine, ModelVersion]) -> tuple[Ledger, ModelVersion]:
    engine, version = upgraded
    return Ledger(engine), version


def test_a_version_of_the_revision_before_gets_a_place_and_decisions(
    old: tuple[Ledger, ModelVersion],
) -> None:
    ledger, version = old
    store = ledger.shadow_decisions
    assert store.newest(version.model_id, version.version) is None
    place = store.take_place(version.model_id, version.version, version.created_at)
    assert store.take_place(version.model_id, version.version, NOW + timedelta(days=1)) == place
    assert (place.started_at, place.level, place.closed_at) == (version.created_at, None, None)

    named = (place, version.model_id, version.version, None)
    first = store.record(*named, WAIT, NOW)
    later = WAIT.model_copy(update={"progress": "1 of 60 days, 3 of 100 trades"})
    assert store.record(*named, later, NOW + timedelta(hours=1)) == first, "alike, on the same day"
    tomorrow = store.record(*named, later, NOW + timedelta(days=1))
    promoted = store.record(*named, PROMOTE, NOW + timedelta(days=1, hours=1))
    held = store.record(
        *named, PROMOTE.model_copy(update={"waits_for": "approval"}), NOW + timedelta(days=1, hours=2)
    )
    assert store.history(version.model_id, version.version) == [first, tomorrow, promoted, held]
    assert store.newest(version.model_id, version.version) == held

    store.close_place(place, PlaceOutcome.RETIRED, NOW)
    store.close_place(place, PlaceOutcome.EXPIRED, NOW + timedelta(days=1))
    assert store.newest_of(place) == held
    assert place.id not in [each.id for each in store.open_places()]
    assert store.take_place(version.model_id, version.version, NOW).id != place.id, "a place of its own"


def test_recipes_of_a_year_take_successive_levels_once_each(old: tuple[Ledger, ModelVersion]) -> None:
    store = old[0].shadow_decisions
    places = [store.take_place("model", f"recipe {number}", NOW) for number in range(6)]
    with ThreadPoolExecutor() as threads:
        levels = list(threads.map(lambda place: store.take_level(place, 2026, 0.05), places * 2))
    ranks = sorted(place.rank or 0 for place in levels[:6])
    assert ranks == [1, 2, 3, 4, 5, 6]
    assert levels[:6] == levels[6:]
    assert all(place.level == pytest.approx(0.05 * share(place.rank or 0)) for place in levels)
    next_year = store.take_level(store.take_place("model", "recipe 7", NOW), 2027, 0.05)
    assert (next_year.rank, next_year.level) == (1, pytest.approx(0.05 * share(1)))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE shadow_decisions SET at = now()",
        "DELETE FROM shadow_decisions",
        "DELETE FROM shadow_places",
    ],
)
def test_nobody_rewrites_decisions_or_removes_places(
    change: str, upgraded: tuple[Engine, ModelVersion]
) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), upgraded[0].begin() as connection:
        connection.execute(text(change))


def test_a_level_belongs_to_a_rank_of_a_year(upgraded: tuple[Engine, ModelVersion]) -> None:
    alone = "INSERT INTO shadow_places (model_id, recipe, started_at, level) VALUES ('m', 'r', now(), 0.1)"
    with (
        pytest.raises(IntegrityError, match="ck_shadow_places_budget"),
        upgraded[0].begin() as connection,
    ):
        connection.execute(text(alone))
