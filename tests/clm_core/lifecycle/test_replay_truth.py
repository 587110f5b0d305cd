"""What a world knows about versions in production: false promotions, and false rollbacks and halts."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from clm_core.backtest.terms import MarketTerms
from clm_core.domain.promotions import Promotion, PromotionKind, PromotionState
from clm_core.domain.replays import KnownCourse
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import KnownWorld, Role
from clm_core.lifecycle.replay_truth import KnownReplay
from clm_core.market.bars import Floats
from clm_core.market.worlds import known_market

START = datetime(2020, 1, 1, tzinfo=UTC)
CHANGE = START + timedelta(days=100)
DAYS = 200


def promotion(day: float, version: str | None, kind: PromotionKind) -> Promotion:
    return Promotion(
        id=1,
        model_id="m",
        kind=kind,
        from_version=None,
        to_version=version,
        actor="a",
        role=Role.OPERATOR,
        reason="r",
        at=START + timedelta(days=day),
        state=PromotionState.COMMITTED,
        finished_at=None,
    )


def course(world: KnownWorld, changes: list[tuple[float, str | None, PromotionKind]]) -> KnownCourse:
    """Course of versions that hold the side of the expected return before the change."""
    market = known_market(world, 1, START, DAYS * 24, CHANGE)
    first = known_market(KnownWorld.PLANTED, 1, START, DAYS * 24, CHANGE).expected

    def positions(version: str, since: datetime, until: datetime) -> Floats:
        rows = slice(market.bars.row_closed_after(since), market.bars.row_closed_after(until))
        held = np.zeros(len(market.bars))
        # the daily mean, so that costs do not decide
        held[rows] = np.sign(np.repeat(first.reshape(-1, 24).mean(axis=1), 24))[rows]
        return held

    known = KnownReplay(
        world=market,
        terms=MarketTerms(TradingTerms()),
        committed=[promotion(*each) for each in changes],
        trained_at=lambda version: START,
        positions=positions,
        days=[START + timedelta(days=day + 1) for day in range(DAYS)],
        change=CHANGE if world.changes else None,
    )
    production = known.terms.backtest(market.bars, positions("", START, known.end))
    return known.course(production, 0)


PROMOTED = PromotionKind.PROMOTION
HALTED = PromotionKind.HALT
ROLLED_BACK = PromotionKind.ROLLBACK


@pytest.mark.parametrize(
    ("world", "changes", "false_promotions", "false_endings", "outlived"),
    [
        (KnownWorld.PLANTED, [(10, "a", PROMOTED)], 0, 0, 0),
        (KnownWorld.NONE, [(10, "a", PROMOTED), (60, "b", PROMOTED)], 2, 0, 0),
        (KnownWorld.DYING, [(10, "a", PROMOTED), (130, None, HALTED)], 0, 0, 30),
        (KnownWorld.DYING, [(10, "a", PROMOTED), (60, None, HALTED)], 0, 1, 0),
        (KnownWorld.DYING, [(120, "a", PROMOTED), (150, None, HALTED)], 1, 0, 30),
        (KnownWorld.MOVING, [(10, "a", PROMOTED), (20, "b", PROMOTED), (110, "a", ROLLED_BACK)], 0, 0, 100),
    ],
    ids=[
        "living",
        "no edge",
        "taken back",
        "taken back too soon",
        "promoted dead",
        "put back is no promotion",
    ],
)
def test_a_world_counts_promotions_without_a_gain_and_endings_that_forgo_one(
    world: KnownWorld,
    changes: list[tuple[float, str | None, PromotionKind]],
    false_promotions: int,
    false_endings: int,
    outlived: float,
) -> None:
    known = course(world, changes)
    assert (known.false_promotions, known.false_endings) == (false_promotions, false_endings)
    assert known.outlived_days == outlived


def test_a_course_has_position_strength_and_drift_of_each_day() -> None:
    known = course(KnownWorld.MOVING, [(10, "a", PromotionKind.PROMOTION)])
    assert {len(known.positions), len(known.edge), len(known.drift)} == {DAYS}
    assert (known.edge[99], known.edge[100]) == (1.0, -1.0)
    # held on the side of the drift before the change, and against the drift after
    held = np.array(known.positions) * np.array(known.drift)
    assert (held[1:100] > 0).mean() > 0.8
    assert (held[101:] < 0).mean() > 0.8


def test_a_time_in_production_of_some_days_is_judged_over_four_weeks() -> None:
    known = course(KnownWorld.DYING, [(98, "a", PROMOTED), (101, "b", PROMOTED)])
    short, long = known.services
    assert (short.until - short.since).days == 3
    assert short.is_false_promotion
    assert long.is_false_promotion
    assert short.expected_after is None
