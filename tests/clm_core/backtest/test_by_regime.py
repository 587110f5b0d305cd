"""Results by regime add up to the whole."""

import numpy as np
import pytest

from clm_core.backtest.by_regime import results_by_regime, spans_of
from clm_core.backtest.results import Backtest, Trades


def result() -> Backtest:
    returns = np.array([0.1, -0.2, 0.3, 0.0, 0.5])
    rows = np.array([0, 2])
    ones = np.ones(2)
    trades = Trades(rows, rows + 2, rows, ones, ones, np.array([0.4, -0.1]), ones, rows, rows)
    return Backtest(np.cumprod(1 + returns), returns, np.full(5, 0.5), np.full(5, 0.1), 0.0, trades)


def test_each_bar_and_each_trade_counts_in_one_regime() -> None:
    regime = np.array([0, 1, 1, 0, 1], dtype=np.int8)
    calm, turbulent = results_by_regime(result(), regime, 365.0)
    assert (calm.state, turbulent.state) == (0, 1)
    assert (calm.share, turbulent.share) == (0.4, 0.6)
    assert calm.metrics.total_return == pytest.approx(1.1 * 1.0 - 1)
    assert turbulent.metrics.total_return == pytest.approx(0.8 * 1.3 * 1.5 - 1)
    assert turbulent.metrics.max_drawdown == pytest.approx(-0.2)
    assert (calm.metrics.trades, calm.metrics.win_rate) == (1, 1.0)
    assert (turbulent.metrics.trades, turbulent.metrics.win_rate) == (1, 0.0)


def test_spans_are_the_stretches_of_a_state() -> None:
    regime = np.array([1, 1, 0, -1, 1], dtype=np.int8)
    assert list(spans_of(regime, 1)) == [slice(0, 2), slice(4, 5)]
    assert list(spans_of(regime, 0)) == [slice(2, 3)]
