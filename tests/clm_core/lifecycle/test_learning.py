"""Value of continuous learning and pages of the paper record, by recorded positions of a real ledger."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from shadow_worlds import ADA, MakeVersion, World
from sqlalchemy import Engine

from clm_core.domain.errors import InvalidCursor, NotFound
from clm_core.domain.paper import LearningValue, PaperQuery
from clm_core.domain.versions import ModelVersion
from clm_core.lifecycle.learning import learning_value
from clm_core.lifecycle.paper import paper_record
from clm_core.market.bars import Floats
from clm_core.services import Services

LAST = 260
"""Day of the comparison."""


@pytest.fixture
def world(
    services: Services, model_id: str, make_version: MakeVersion, tmp_path: Path, ledger_engine: Engine
) -> World:
    return World(services, model_id, make_version, tmp_path, ledger_engine)


def learned(world: World, day: float = LAST) -> LearningValue:
    value = learning_value(world.services(day), world.model_id)
    assert value is not None
    return value


def serve(world: World, day: int, positions: Floats, until: int = LAST, late: bool = False) -> ModelVersion:
    """A version followed since the day before and promoted on the day."""
    version = world.register(day - 1)
    world.follow(version, positions, until, late)
    world.promote(version, day)
    return version


def total_return(world: World, version: ModelVersion, positions: Floats, first: int) -> float:
    """Total return from the bar of a day to the last, traded from flat."""
    bars = world.bars[first:LAST]
    terms = world.services(LAST).version_terms(version, bars.calendar)
    return float(np.prod(1.0 + terms.backtest(bars, positions[first:LAST]).returns) - 1.0)


def test_production_is_compared_with_the_first_champion_over_two_promotions(world: World) -> None:
    poor = -world.foresight
    good = world.foresight
    assert learning_value(world.services(5), world.model_id) is None
    first = serve(world, 10, poor)
    alone = learned(world, 50)
    assert (alone.frozen, alone.since, alone.bars) == (first.version, None, 0)
    assert "the first champion" in alone.sentence
    assert "has served all along" in alone.sentence

    serve(world, 60, 0.5 * good)
    third = serve(world, 140, good)
    value = learned(world)
    assert (value.frozen, value.production) == (first.version, third.version)
    assert value.since == world.when(60)
    # the position after the first bar earns the second
    assert value.bars == LAST - 60 - 1
    assert value.until == world.when(LAST - 1)
    served = np.where(np.arange(len(good)) < 140, 0.5 * good, good)
    assert value.production_return == pytest.approx(total_return(world, third, served, 60))
    assert value.frozen_return == pytest.approx(total_return(world, first, poor, 60))
    assert value.sharpe_difference is not None
    assert value.return_difference is not None
    assert 0.0 < value.sharpe_difference.low < value.sharpe_difference.value < value.sharpe_difference.high
    assert 0.0 < value.return_difference.low < value.return_difference.value
    assert value.return_difference.value == pytest.approx(
        (value.production_return or 0.0) - (value.frozen_return or 0.0)
    )
    assert value.reason is None
    assert f"the first champion {first.version} frozen since" in value.sentence


def test_bars_recorded_late_on_either_side_are_no_evidence(world: World) -> None:
    first = serve(world, 10, -world.foresight, late=True)
    serve(world, 60, world.foresight)
    value = learned(world)
    assert (value.bars, value.sharpe_difference, value.return_difference) == (0, None, None)
    assert value.reason is not None
    assert value.reason.startswith("no bar counts yet")
    assert first.version in value.reason


def test_production_is_flat_while_the_model_is_halted(world: World) -> None:
    first = serve(world, 10, world.foresight)
    clm = world.services(60)
    clm.promotions.halt(world.model_id, ADA, "tested", clm.clock())
    value = learned(world)
    assert (value.production, value.production_return) == (None, 0.0)
    assert value.frozen_return == pytest.approx(total_return(world, first, world.foresight, 60))
    assert value.sentence.startswith("continuous learning: no version in production, ")


def test_a_page_of_the_record_has_position_net_return_and_cost_of_each_bar(world: World) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 20)
    clm = world.services(20)
    bars = world.bars[10:20]
    terms = clm.version_terms(version, bars.calendar)
    result = terms.backtest(bars, world.foresight[10:20])

    record = paper_record(clm, version, PaperQuery(descending=False))
    assert (record.bars, record.late, record.next, record.symbol) == (10, 0, None, version.symbol)
    assert [each.time for each in record.items] == [world.when(day) for day in range(10, 20)]
    assert [each.position for each in record.items] == world.foresight[10:20].tolist()
    assert [each.net_return for each in record.items] == result.returns.tolist()
    assert [each.evidence for each in record.items] == [False, *[True] * 9]
    equity = np.concatenate([[terms.terms.execution.initial_cash], result.equity[:-1]])
    paid = sum(each.cost * before for each, before in zip(record.items, equity, strict=True))
    assert paid == pytest.approx(result.costs_paid, rel=1e-3)
    assert "bps of fees" in record.costs


def test_the_pages_of_a_record_follow_one_another_newest_first(world: World) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 15)
    world.follow(world.register(9), world.foresight, 15)
    clm = world.services(15)
    first = paper_record(clm, version, PaperQuery(limit=2))
    assert [each.time for each in first.items] == [world.when(14), world.when(13)]
    second = paper_record(clm, version, PaperQuery(limit=3, after=first.next))
    assert [each.time for each in second.items] == [world.when(12), world.when(11), world.when(10)]
    assert second.next is None
    span = PaperQuery(since=world.when(11), until=world.when(13))
    assert [each.time for each in paper_record(clm, version, span).items] == [world.when(12), world.when(11)]
    with pytest.raises(InvalidCursor, match="is no cursor of this list"):
        paper_record(clm, version, span.model_copy(update={"after": first.next}))
    with pytest.raises(NotFound, match="has no market DOGEUSD; its markets: "):
        paper_record(clm, version, PaperQuery(symbol="doge/usd"))
    with pytest.raises(ValidationError):
        PaperQuery(limit=1001)


def test_late_positions_are_marked_and_the_bar_after_is_no_evidence(world: World) -> None:
    version = world.register(10)
    world.follow(version, world.foresight, 13, late=True)
    record = paper_record(world.services(13), version, PaperQuery())
    assert (record.late, [each.late for each in record.items]) == (3, [True] * 3)
    assert not any(each.evidence for each in record.items)


def test_a_version_without_a_closed_bar_has_an_empty_record(world: World) -> None:
    version = world.register(10)
    record = paper_record(world.services(10.5), version, PaperQuery())
    assert (record.items, record.bars, record.next) == ((), 0, None)
