"""Backtest against a published result: the SMA 10/30 crossover in the test suite of backtesting.py 0.6.6."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe


def goog() -> Bars:
    """Daily Google bars from the `backtesting` wheel, read without importing the package."""
    package = Path(find_spec("backtesting").origin).parent
    frame = pd.read_csv(package / "test" / "GOOG.csv", index_col=0, parse_dates=True)
    columns = [frame[name].to_numpy(dtype=float) for name in ("Open", "High", "Low", "Close", "Volume")]
    time = frame.index.to_numpy().astype("datetime64[ns]").astype(np.int64)
    return Bars("GOOG", Timeframe.D1, Calendar.WEEKDAYS, time, *columns)


def crossovers(close: Floats) -> Floats:
    """1 since the latest crossing of the 10-day mean above the 30-day mean, -1 since the latest below."""
    fast, slow = (pd.Series(close).rolling(window).mean().to_numpy() for window in (10, 30))
    before = np.append(np.nan, (fast - slow)[:-1])
    now = fast - slow
    crossed = np.where((before < 0) & (now > 0), 1.0, np.where((before > 0) & (now < 0), -1.0, np.nan))
    return pd.Series(crossed).ffill().fillna(0.0).to_numpy(copy=True)


@pytest.fixture(scope="module")
def result() -> Backtest:
    bars = goog()
    positions = crossovers(bars.close)
    positions[-2] = 0.0  # closes the last trade at the last bar's open, as the published run does
    free = Costs(fee_bps=0, slippage_bps=0)
    return backtest(bars, positions, free, Execution(initial_cash=10_000, lot_size=1))


def test_equity_equals_the_published_equity(result: Backtest) -> None:
    assert round(result.equity[-1], 2) == 51422.99
    assert round(result.equity.max(), 2) == 75787.44


def test_metrics_equal_the_published_metrics(result: Backtest) -> None:
    metrics = summarise(result, 252.0)
    assert metrics.trades == 66
    assert metrics.max_drawdown * 100 == pytest.approx(-47.98012705, abs=5e-9)
    assert metrics.win_rate * 100 == pytest.approx(46.96969697, abs=5e-9)
    assert metrics.total_return * 100 == pytest.approx(414.2299, abs=5e-5)


def test_first_and_last_trades_equal_the_published_trades(result: Backtest) -> None:
    trades = result.trades
    assert [(trades.entry_bar[i], trades.exit_bar[i]) for i in (0, 1, -1)] == [
        (70, 86),
        (86, 113),
        (2088, 2147),
    ]
    assert trades.pnl[[0, 1, -1]] == pytest.approx([-327.25, 376.38, 6579.20])
    assert trades.direction[[0, 1, -1]].tolist() == [-1, 1, 1]
