"""Positions of another size get the same verdict, without costs."""

import numpy as np
import pytest
from gate_cases import CERTAIN
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.decisions import gate
from clm_core.decisions.cases import Case
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.costs import Costs
from clm_core.domain.evaluations import Verdict
from clm_core.domain.execution import Execution
from clm_core.evidence.exposure_null import timing_probability
from clm_core.evidence.soundness import activity
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialCount

STRICT = GatePolicy(name="strict")
NO_COSTS = Costs(fee_bps=0, slippage_bps=0)
REBALANCED = Execution(rebalance_band=1e-6)
HELD = 10
"""Bars between two decisions."""


def verdict_of(make_bars, edge: float, size: float, seed: int) -> Verdict:
    """Verdict on positions of a size that know a share of the next ten bars' drift."""
    rng = np.random.default_rng(seed)
    drifts = rng.standard_t(4, 400)
    steps = 0.01 * rng.standard_normal(400 * HELD) + 0.002 * np.repeat(drifts, HELD)
    close = 100 * np.exp(np.cumsum(steps))
    opened = np.concatenate([[100.0], close[:-1]])
    prices = np.column_stack([opened, np.maximum(opened, close), np.minimum(opened, close), close])
    guesses = np.sign(edge * drifts + rng.standard_normal(400))
    # a decision at a close is traded at the next open
    positions = size * np.append(np.repeat(guesses, HELD)[1:], 0.0)
    bars = make_bars(prices)
    result = backtest(bars, positions, NO_COSTS, REBALANCED)
    case = Case(
        metrics=summarise(result, bars.periods_per_year),
        activity=activity(positions),
        record=track_record(result.returns),
        trials=TrialCount(10, 10.0, 0.0),
        periods_per_year=bars.periods_per_year,
        comparison=None,
        returns=result.returns,
        trade_returns=result.trade_returns,
        timing=timing_probability([positions[:-1]], [np.diff(bars.close) / bars.close[:-1]]),
        alpha=CERTAIN,
    )
    return gate.judge(case, STRICT)


@settings(max_examples=20, deadline=None)
@given(edge=st.sampled_from([0.0, 0.3, 2.0]), seed=st.integers(0, 1000))
def test_four_tenths_of_every_position_get_the_same_verdict_without_costs(make_bars, edge, seed) -> None:
    full, small = (verdict_of(make_bars, edge, size, seed) for size in (0.9, 0.36))
    assert full.decision is small.decision
    for before, after in zip(full.checks, small.checks, strict=True):
        if before.name == "position_deviation":
            assert after.value == pytest.approx(before.value)
        if before.name == "track_record_bars":
            continue
        assert after.status is before.status or abs(before.margin) < 0.05 * abs(before.value), before.name


def test_the_planted_edge_passes_at_both_sizes(make_bars) -> None:
    assert [verdict_of(make_bars, 2.0, size, 1).reasons for size in (0.9, 0.36)] == [(), ()]


@pytest.mark.parametrize("size", [0.9, 0.36])
def test_without_an_edge_neither_size_passes(make_bars, size) -> None:
    assert not verdict_of(make_bars, 0.0, size, 1).passed


def test_a_trade_counts_by_the_share_of_the_equity_that_it_earned(make_bars) -> None:
    close = 100.0 * 1.1 ** np.arange(7)
    opened = np.concatenate([[100.0], close[:-1]])
    prices = np.column_stack([opened, np.maximum(opened, close), np.minimum(opened, close), close])
    # a long and a short of another size, each held for two bars
    positions = np.array([1.0, 1.0, 0.0, -0.25, -0.25, 0.0, 0.0])
    result = backtest(make_bars(prices), positions, NO_COSTS, Execution())
    assert result.trades.net_return == pytest.approx([0.21, -0.21])
    assert result.trade_returns == pytest.approx([0.21, -0.0525])
    assert np.prod(1.0 + result.trade_returns) == pytest.approx(result.equity[-1] / 10_000.0)
