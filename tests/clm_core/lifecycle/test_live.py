"""Cone of a version with its paper records on top, and its fate."""

from pathlib import Path

import numpy as np
import pytest
from shadow_worlds import ADA, MakeVersion, World
from sqlalchemy import Engine

from clm_core.domain.versions import ModelVersion
from clm_core.lifecycle import live
from clm_core.retraining import judged_backtest
from clm_core.services import Services


@pytest.fixture
def world(
    services: Services,
    model_id: str,
    make_version: MakeVersion,
    tmp_path: Path,
    ledger_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Versions that were judged by the first 120 days, with foresight."""
    world = World(services, model_id, make_version, tmp_path, ledger_engine)

    def judged(clm: Services, version: ModelVersion, bars: object, _: object) -> object:
        terms = clm.version_terms(version, world.bars.calendar)
        return world.bars[:120], terms.backtest(world.bars[:120], 0.2 * world.foresight[:120])

    monkeypatch.setattr(judged_backtest, "out_of_sample_backtest", judged)
    return world


def test_a_rolled_back_version_shows_shadow_and_production_and_the_probability_of_bad_luck(
    world: World,
) -> None:
    good = world.register(120)
    world.follow(good, world.foresight, 200)
    world.promote(good, 130)
    poor = world.register(139)
    world.follow(poor, np.where(np.arange(400) < 150, 0.2, -0.2) * world.foresight, 200)
    world.promote(poor, 150)
    clm = world.services(190)
    clm.promotions.rollback(world.model_id, ADA, "it loses", clm.clock())
    clm = world.services(200)

    section = live.live_section(clm, poor)
    shadow, production = section.values["parts"]
    assert (shadow["name"], shadow["since"][:10], shadow["days"]) == ("shadow", "2024-05-19", 11.0)
    assert (production["name"], production["days"]) == ("production", 40.0)
    assert shadow["equity"] > 1.0 > production["equity"]
    assert production["equity"] < production["low"]
    assert section.values["luck"]["chance"] < 1e-3
    assert section.values["luck"]["bars"] == 39
    assert section.sentences[0].startswith(
        f"Rolled back {world.when(190):%Y-%m-%d %H:%M} UTC (it loses): a version as good as its backtest "
    )
    assert "below the 90 % cone of the backtest" in section.sentences[2]

    serving = live.live_section(clm, good)
    assert serving.sentences[0].startswith("In production: ")
    # before the other version, and again since
    assert [part["days"] for part in serving.values["parts"]] == [10.0, 20.0, 10.0]


def test_a_version_in_shadow_has_no_fate_before_its_first_bar(world: World) -> None:
    version = world.register(120)
    assert live.live_section(world.services(120), version).sentences[0] == "No bar has been earned live yet."


def test_a_version_without_stored_evidence_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.register(120)
    monkeypatch.setattr(judged_backtest, "out_of_sample_backtest", lambda *_: None)
    [sentence] = live.live_section(world.services(130), version).sentences
    assert sentence.startswith("No cone: the out-of-sample positions")
