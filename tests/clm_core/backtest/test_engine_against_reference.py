"""The compiled engine against a plain bar-by-bar engine, on 1,000 random series."""

from collections import Counter

import numpy as np
import pytest
from reference_engine import HOUR, ReferenceEngine

from clm_core.backtest.engine import backtest, score_threshold, sweep
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, ExitReason
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars
from clm_core.market.carry import Carry, HoldingRates, Payments, holding_rates
from clm_core.market.timeframes import Calendar, Timeframe

SERIES = 1000
DAY = 24 * HOUR
BANDS = (None, 0.02, None, 0.3, 0.01)


def _bars(rng: np.random.Generator) -> Bars:
    """Hourly bars with outages, daily breaks and week-ends, or daily bars with week-ends; wild prices."""
    daily = rng.random() < 0.4
    step = DAY if daily else HOUR
    grid = 1_700_006_400_000_000_000 // DAY * DAY + np.arange(int(rng.integers(30, 120))) * step
    weekday = (grid // DAY + 3) % 7
    hour = grid // HOUR % 24
    kept = np.ones(len(grid), np.bool_)
    if rng.random() < 0.6:
        kept &= weekday < 5
    if not daily and rng.random() < 0.5:
        kept &= (hour < 21) | (hour > 22)
    if rng.random() < 0.5:
        kept &= rng.random(len(grid)) > 0.1
    time = grid[kept]
    n = len(time)
    volatility = rng.choice([0.002, 0.02, 0.15, 0.4])
    close = 100 * np.exp(np.cumsum(rng.standard_normal(n) * volatility))
    before = np.concatenate([[100.0], close[:-1]])
    open_ = before * np.exp(rng.standard_normal(n) * volatility * (rng.random(n) < 0.3))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.standard_normal(n)) * volatility)
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.standard_normal(n)) * volatility)
    timeframe = Timeframe.D1 if daily else Timeframe.H1
    return Bars("X", timeframe, Calendar("24x7"), time, open_, high, low, close, np.ones(n))


def _targets(rng: np.random.Generator, n: int) -> np.ndarray:
    changes = rng.random(n) < rng.choice([0.05, 0.3, 0.9])
    drawn = rng.choice([-1.0, -0.5, -0.37, 0.0, 0.25, 0.8, 1.0], n)
    drawn = drawn if rng.random() < 0.7 else np.where(drawn >= 0, 1.0, -1.0)
    last = np.maximum.accumulate(np.where(changes, np.arange(n), 0))
    return drawn[last]


def _payments(rng: np.random.Generator, bars: Bars, interval: int, scale: float) -> list[tuple[int, float]]:
    first = (int(bars.time[0]) // interval - 2) * interval
    moments = np.arange(first, int(bars.time[-1]) + 3 * interval, interval)
    kept = moments[rng.random(len(moments)) < 0.8]
    return [(int(moment), float(rng.standard_normal() * scale)) for moment in kept]


def _carry(funding: list[tuple[int, float]], dividends: list[tuple[int, float]]) -> Carry:
    def payments(pairs: list[tuple[int, float]]) -> Payments | None:
        return Payments(np.array([t for t, _ in pairs]), np.array([v for _, v in pairs])) if pairs else None

    return Carry(payments(funding), payments(dividends))


def _case(seed: int) -> tuple[Backtest, ReferenceEngine, Bars]:
    rng = np.random.default_rng(seed)
    bars = _bars(rng)
    costs = Costs(fee_bps=rng.choice([0.0, 5.0, 40.0]), slippage_bps=rng.choice([0.0, 2.0, 30.0]))
    execution = Execution(
        initial_cash=10_000.0,
        stop_loss=rng.choice([0.01, 0.05, 0.3]) if rng.random() < 0.5 else None,
        take_profit=rng.choice([0.01, 0.05, 0.5]) if rng.random() < 0.5 else None,
        lot_size=rng.choice([0.01, 1.0, 7.0]) if rng.random() < 0.3 else None,
        rebalance_band=BANDS[seed % len(BANDS)],
    )
    holding = HoldingCosts(
        funding_bps_per_8h=rng.choice([0.0, 1.0, -3.0, 400.0]),
        borrow_bps_per_year=rng.choice([0.0, 300.0, 20_000.0]),
    )
    size = rng.choice([1e-4, 3e-2])
    funding = _payments(rng, bars, int(rng.choice([4, 8])) * HOUR, size) if rng.random() < 0.4 else []
    dividends = [
        (moment, abs(amount)) for moment, amount in _payments(rng, bars, 5 * DAY, 1.0) if rng.random() < 0.5
    ]
    targets = _targets(rng, len(bars))
    reference = ReferenceEngine(bars, costs, execution, holding, funding, dividends)
    reference.run(targets)
    rates = holding_rates(bars, holding, _carry(funding, dividends))
    return backtest(bars, targets, costs, execution, rates), reference, bars


def test_the_engine_equals_a_plain_bar_by_bar_engine_on_1000_random_series() -> None:
    reasons = Counter[str]()
    for seed in range(SERIES):
        result, expected, _ = _case(seed)
        scale = 10_000.0
        close = {"rtol": 1e-12, "atol": 1e-12 * scale, "err_msg": f"seed {seed}"}
        np.testing.assert_allclose(result.equity, expected.equity, **close)
        np.testing.assert_allclose(result.costs_paid, expected.paid, **close)
        np.testing.assert_allclose(result.holding_costs, expected.held, **close)
        trades = result.trades
        names = [ExitReason(reason).name for reason in trades.reason]
        assert names == [trade.reason for trade in expected.trades], seed
        assert trades.entry_bar.tolist() == [trade.entry_bar for trade in expected.trades]
        assert trades.exit_bar.tolist() == [trade.exit_bar for trade in expected.trades]
        assert trades.direction.tolist() == [trade.side for trade in expected.trades]
        np.testing.assert_allclose(trades.pnl, [trade.pnl for trade in expected.trades], **close)
        net = [trade.pnl / trade.basis for trade in expected.trades]
        np.testing.assert_allclose(trades.net_return, net, rtol=1e-12, atol=1e-11, err_msg=f"seed {seed}")
        reasons.update(f"{name} {side:+d}" for name, side in zip(names, trades.direction, strict=True))
    # the series reach every kind of exit on both sides
    assert {reason: count for reason, count in reasons.items() if count < 5} == {}
    assert len(reasons) == 2 * len(ExitReason)


def test_bars_on_which_nothing_can_happen_give_the_same_bits_as_a_walk_over_every_bar() -> None:
    """Rates of holding make the engine visit every bar of a position; rates of 0.0 cost nothing."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        bars = _bars(rng)
        costs = Costs(fee_bps=rng.choice([0.0, 5.0]), slippage_bps=2.0)
        stops = {name: rng.choice([None, 0.01, 0.1]) for name in ("stop_loss", "take_profit")}
        execution = Execution(**stops, lot_size=rng.choice([None, 7.0]))
        targets = _targets(rng, len(bars))
        skipping = backtest(bars, targets, costs, execution)
        free = HoldingRates(np.zeros(len(bars)), np.zeros(len(bars)))
        visiting = backtest(bars, targets, costs, execution, free)
        for name in ("equity", "returns", "exposure", "turnover"):
            assert getattr(skipping, name).tobytes() == getattr(visiting, name).tobytes(), (seed, name)
        assert skipping.trades.pnl.tobytes() == visiting.trades.pnl.tobytes()
        assert skipping.trades.exit_bar.tolist() == visiting.trades.exit_bar.tolist()


def test_the_trades_and_the_costs_of_holding_explain_the_final_equity() -> None:
    for seed in range(100):
        result, _, _ = _case(seed)
        assert result.equity[-1] == pytest.approx(10_000 + result.trades.pnl.sum(), abs=1e-7)


def test_a_sweep_pays_the_same_costs_of_holding_as_separate_backtests() -> None:
    rng = np.random.default_rng(5)
    bars = _bars(rng)
    score = rng.standard_normal(len(bars))
    rates = holding_rates(bars, HoldingCosts(funding_bps_per_8h=10.0, borrow_bps_per_year=900.0))
    executions = [Execution(), Execution(rebalance_band=0.05)]
    swept = sweep(score_threshold(bars, score, [0.3, 0.8], -0.5), Costs(), executions, holding=rates)
    for above, execution, metrics in zip([0.3, 0.8], executions, swept, strict=True):
        targets = np.where(score > above, 1.0, np.where(score < -0.5, -1.0, 0.0))
        separate = summarise(backtest(bars, targets, Costs(), execution, rates), bars.periods_per_year)
        assert metrics == separate
