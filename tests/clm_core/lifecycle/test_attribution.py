"""Attribution of recorded positions, by a real ledger."""

import json
from pathlib import Path

import numpy as np
import pytest
from shadow_worlds import ADA, MakeVersion, World
from sqlalchemy import Engine

from clm_core.domain.errors import NotFound
from clm_core.domain.explanations import Section
from clm_core.domain.promotions import PromotionKind
from clm_core.lifecycle.attribution import attribute_all, attribute_model, attribute_version, write_page
from clm_core.services import Services


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: MakeVersion, tmp_path: Path, ledger_engine: Engine
) -> World:
    return World(services, model_id, make_version, tmp_path, ledger_engine)


def assert_adds_up(section: Section) -> None:
    values = section.values
    tables = {name: table for name, table in values.items() if isinstance(table, dict)}
    assert len(tables) > 8
    for name, table in tables.items():
        profit = sum(row["profit"] for row in table["rows"])
        assert profit == pytest.approx(values["total"], abs=1e-9), name


def test_a_models_life_in_production_adds_up_over_versions_and_a_halt(world: World) -> None:
    half = 0.5 * world.foresight
    first = world.register(9)
    world.follow(first, half, 60)
    world.promote(first, 10)
    second = world.register(29)
    world.follow(second, -world.foresight, 60)
    world.promote(second, 30)
    clm = world.services(40)
    clm.promotions.halt(world.model_id, ADA, "tested", clm.clock())
    clm = world.services(60)

    section = attribute_model(clm, world.model_id)
    assert_adds_up(section)
    held = np.zeros(60)
    held[10:30] = half[10:30]
    held[30:40] = -world.foresight[30:40]
    terms = clm.version_terms(second, world.bars.calendar)
    whole = terms.backtest(world.bars[10:60], held[10:])
    assert section.values["total"] == pytest.approx(float(np.prod(1.0 + whole.returns)) - 1.0, abs=1e-12)
    by_version = {row["name"]: row["profit"] for row in section.values["version"]["rows"]}
    assert by_version[first.version] > 0.0 > by_version[second.version]
    assert section.sentences[-1] == (
        f"{world.model_id} in production, 2024-01-11 00:00 to 2024-03-01 00:00 UTC: 30 recorded positions, 0 "
        "of them late."
    )
    history = clm.ledger.promotions.committed(world.model_id)
    assert history[-1].kind is PromotionKind.HALT

    together = attribute_all(clm)
    assert_adds_up(together)
    assert any(each.startswith(f"{world.model_id}, 2024-01-11") for each in together.sentences)


def test_a_version_in_shadow_is_attributed_from_its_registration(world: World) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 40, late=True)
    clm = world.services(45)
    section = attribute_version(clm, version)
    assert_adds_up(section)
    assert section.sentences[0].startswith("Longs earned ")
    assert section.sentences[-1].endswith(
        "30 recorded positions, 30 of them late, 5 bars without one traded flat."
    )
    page = write_page(clm, f"{world.model_id}@{version.version}", section)
    assert "Attribution of the result" in page.read_text(encoding="utf-8")
    json.dumps(section.model_dump(mode="json"), allow_nan=False)


def test_a_model_never_in_production_has_nothing_to_attribute(world: World) -> None:
    version = world.register(10)
    with pytest.raises(NotFound, match="was ever in production"):
        attribute_model(world.services(20), world.model_id)
    with pytest.raises(NotFound, match="no bar has closed since 2024-01-11"):
        attribute_version(world.services(10), version)
