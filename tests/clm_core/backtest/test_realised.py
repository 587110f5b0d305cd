import numpy as np
import pytest

from clm_core.backtest.engine import backtest
from clm_core.backtest.realised import BarFills, realised_account
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars
from clm_core.market.carry import holding_rates
from clm_core.market.timeframes import Calendar, Timeframe

rng = np.random.default_rng(2)
CLOSE = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 200)))
OPEN = np.concatenate([[100.0], CLOSE[:-1]])
BARS = Bars(
    "BTCUSD",
    Timeframe.H8,
    Calendar.ALWAYS,
    np.arange(200, dtype=np.int64) * Timeframe.H8.nanoseconds,
    *(OPEN, np.maximum(OPEN, CLOSE), np.minimum(OPEN, CLOSE), CLOSE, np.ones(200)),
)


def fills(*rows: tuple[int, float, float, float]) -> BarFills:
    row, change, price, fee = (np.array(column) for column in zip(*rows, strict=True))
    return BarFills(row.astype(np.int64), change, price, fee)


def test_fills_at_the_prices_of_a_backtest_earn_its_returns() -> None:
    """A long of all the equity, then flat, then short: fills at the engine's prices, fees and holding."""
    positions = np.zeros(200)
    positions[9:49] = 1.0
    positions[99:149] = -1.0
    costs = Costs(fee_bps=5.0, slippage_bps=0.0)
    holding = holding_rates(BARS, HoldingCosts(funding_bps_per_8h=1.0))
    paper = backtest(BARS, positions, costs, Execution(), holding)
    fee = 0.0005
    size = 1.0 / (1.0 + fee)
    equity = np.concatenate([[Execution().initial_cash], paper.equity])

    def sold(bar: int) -> float:
        """Value of the position over the equity at an open, after holding into the bar."""
        units = paper.exposure[bar - 1] * equity[bar] / CLOSE[bar - 1]
        assert holding is not None
        rate = holding.long[bar] if units > 0 else holding.short[bar]
        cash = equity[bar] - units * CLOSE[bar - 1] - abs(units) * OPEN[bar] * rate
        return float(units * OPEN[bar] / (cash + units * OPEN[bar]))

    account = realised_account(
        BARS,
        fills(
            (10, size, OPEN[10], fee),
            (50, -sold(50), OPEN[50], fee),
            (100, -size, OPEN[100], fee),
            (150, -sold(150), OPEN[150], fee),
        ),
        holding,
    )
    assert account.equity == pytest.approx(paper.equity / Execution().initial_cash, rel=1e-12)
    assert account.exposure == pytest.approx(paper.exposure, abs=1e-12)


def test_a_bar_with_two_fills_pays_both_prices_and_fees() -> None:
    account = realised_account(BARS, fills((0, 0.5, 101.0, 0.001), (0, 0.5, 102.0, 0.0)))
    units = 0.5 / 101.0 + 0.5 / 102.0
    assert account.equity == pytest.approx(-0.0005 + units * CLOSE)


def test_a_ruined_account_stays_at_zero() -> None:
    account = realised_account(BARS, fills((3, -2.0, 1.0, 0.0)))
    assert account.equity[:3].tolist() == [1.0] * 3
    assert (account.equity[3:].max(), account.exposure[3:].any()) == (0.0, False)
