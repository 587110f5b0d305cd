"""Sequential test of the tail: error rates, and time to find losses that have grown."""

import numpy as np
import pytest

from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence.tail_risk import (
    MIN_BARS,
    TailReference,
    reference_of,
    standardised,
    tail_test,
)
from clm_core.market.bars import Floats

QUARTER = 2_184
BARS = 13_000


def streams(shape: Shape, count: int) -> list[tuple[Floats, Floats, TailReference]]:
    """Backtest, returns of a quarter after it, and reference of the backtest, of each stream."""
    drawn = 0.001 * draw_returns(shape, 0.01, (BARS + QUARTER, count), np.random.default_rng(7)).T
    made = []
    for stream in drawn:
        reference = reference_of(stream[:BARS], QUARTER, np.random.default_rng(0))
        assert reference is not None
        made.append((stream[:BARS], stream[BARS:], reference))
    return made


@pytest.mark.parametrize("shape", [Shape.NORMAL, Shape.STUDENT, Shape.GARCH])
def test_an_unchanged_tail_and_a_market_that_moves_twice_as_much_raise_no_alarm(shape: Shape) -> None:
    """The table is in docs/decisions/0065-protection.md; here twelve streams."""
    raised = 0
    for backtest, after, reference in streams(shape, 12):
        wilder = np.where(np.arange(QUARTER) < QUARTER // 2, after, 2 * after)
        for returns in (after, wilder):
            raised += tail_test(standardised(returns, backtest[-200:]), reference).raised_at is not None
    assert raised <= 1


@pytest.mark.parametrize("shape", [Shape.NORMAL, Shape.STUDENT, Shape.GARCH])
def test_a_worst_tenth_twice_as_deep_is_found_within_a_thousand_bars(shape: Shape) -> None:
    alarms = 0
    for backtest, after, reference in streams(shape, 10):
        units = standardised(after, backtest[-200:])
        test = tail_test(np.where(units <= -reference.tail_from, 2 * units, units)[:1_000], reference)
        alarms += test.raised_at is not None
    assert alarms >= 8


def test_bars_without_a_position_and_the_size_of_positions_play_no_part() -> None:
    returns = 0.001 * np.random.default_rng(1).standard_normal(1_000)
    spread = np.zeros(2_000)
    spread[::2] = 3.0 * returns
    np.testing.assert_allclose(standardised(spread), standardised(returns), rtol=1e-12)
    np.testing.assert_allclose(
        standardised(returns[400:], returns[:400]), standardised(returns)[400 - 48 :], rtol=1e-12
    )


def test_a_backtest_without_fifty_bars_in_the_tail_is_no_reference() -> None:
    rng = np.random.default_rng(1)
    assert reference_of(0.001 * rng.standard_normal(MIN_BARS), 100, rng) is None
    assert reference_of(np.zeros(5_000), 100, rng) is None
    assert reference_of(np.full(5_000, 0.001), 100, rng) is None
