"""Metrics: known answers from the test suite of empyrical-reloaded (tests/test_stats.py, `mixed_returns`)."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backtest import metrics
from clm_core.backtest.engine import backtest
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution

MIXED = np.array([1.0, 10.0, -4.0, 2.0, 3.0, 2.0, 1.0, -10.0]) / 100
DAILY = 252.0
YEARLY = [metrics.cagr, metrics.volatility, metrics.sharpe_ratio, metrics.sortino_ratio, metrics.calmar_ratio]
PLAIN = [metrics.total_return, metrics.max_drawdown, metrics.profit_factor, metrics.win_rate]

# rounded to twelve decimals: the squares of smaller returns vanish, and with the squares the deviation
returns_of_a_strategy = st.lists(
    st.floats(-0.5, 0.5).map(lambda value: round(value, 12)), min_size=2, max_size=60
).map(np.array)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.sharpe_ratio, 1.7238613961706866),
        (metrics.sortino_ratio, 2.605531251673693),
        (metrics.volatility, 0.9136465399704637),
    ],
    ids=["sharpe", "sortino", "volatility"],
)
def test_annualised_metrics_equal_the_published_answers(
    metric: Callable[..., float], expected: float
) -> None:
    assert metric(MIXED, DAILY) == pytest.approx(expected, rel=1e-12)


def test_calmar_equals_the_published_answer_over_nine_bars() -> None:
    """empyrical also annualises over the leading NaN bar: here a ninth bar, with a return of zero."""
    assert metrics.calmar_ratio(np.append(0.0, MIXED), DAILY) == pytest.approx(19.135925373194233, rel=1e-12)


def test_drawdown_profit_factor_and_win_rate_equal_the_published_answers() -> None:
    assert metrics.max_drawdown(MIXED) == pytest.approx(-0.10, rel=1e-12)
    assert metrics.profit_factor(MIXED) == pytest.approx(19 / 14, rel=1e-12)
    assert metrics.win_rate(MIXED) == 0.75


def test_total_return_and_cagr_compound() -> None:
    assert metrics.total_return(np.array([0.5, 0.5])) == pytest.approx(1.25)
    assert metrics.cagr(np.array([0.5, 0.5]), 1.0) == pytest.approx(0.5)


def test_a_loss_in_the_first_bar_is_a_drawdown_from_the_starting_capital() -> None:
    assert metrics.max_drawdown(np.array([-0.2, 0.1])) == pytest.approx(-0.2)


def test_drawdown_is_measured_from_the_running_peak() -> None:
    assert metrics.max_drawdown(np.array([0.5, -0.2, 1.0, -0.5, 0.1])) == pytest.approx(-0.5)


@pytest.mark.parametrize("metric", YEARLY, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("returns", [[], [0.1, math.nan, 0.2]], ids=["empty", "nan"])
def test_an_annualised_metric_of_empty_or_nan_returns_is_nan(
    metric: Callable[..., float], returns: list[float]
) -> None:
    assert math.isnan(metric(np.array(returns, dtype=float), DAILY))


@pytest.mark.parametrize("metric", PLAIN, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("returns", [[], [0.1, math.nan, 0.2], [math.nan]], ids=["empty", "nan", "only nan"])
def test_a_plain_metric_of_empty_or_nan_returns_is_nan(
    metric: Callable[..., float], returns: list[float]
) -> None:
    assert math.isnan(metric(np.array(returns, dtype=float)))


@pytest.mark.parametrize(
    ("metric", "returns", "expected"),
    [
        (metrics.sharpe_ratio, [0.0, 0.0, 0.0], 0.0),
        (metrics.sharpe_ratio, [0.1] * 7, 0.0),
        (metrics.sharpe_ratio, [0.1], math.nan),
        (metrics.volatility, [0.1], math.nan),
        (metrics.sortino_ratio, [0.0, 0.0], 0.0),
        (metrics.sortino_ratio, [0.1, 0.0], math.inf),
        (metrics.calmar_ratio, [0.0, 0.0], 0.0),
        (metrics.calmar_ratio, [0.1, 0.0], math.inf),
        (metrics.cagr, [-1.0, 0.0], -1.0),
    ],
)
def test_edge_cases_of_annualised_metrics_are_as_documented(
    metric: Callable[..., float], returns: list[float], expected: float
) -> None:
    assert metric(np.array(returns), DAILY) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("metric", "trade_returns", "expected"),
    [
        (metrics.profit_factor, [0.1, 0.2], math.inf),
        (metrics.profit_factor, [-0.1], 0.0),
        (metrics.profit_factor, [0.0, 0.0], math.nan),
        (metrics.win_rate, [0.0, 0.1], 0.5),
    ],
)
def test_edge_cases_of_trade_metrics_are_as_documented(
    metric: Callable[..., float], trade_returns: list[float], expected: float
) -> None:
    assert metric(np.array(trade_returns)) == pytest.approx(expected, nan_ok=True)


@given(returns_of_a_strategy)
def test_the_compiled_metrics_agree_with_numpy(returns: np.ndarray) -> None:
    equity = np.cumprod(1 + returns)
    peak = np.maximum.accumulate(np.append(1.0, equity))[1:]
    assert metrics.total_return(returns) == pytest.approx(equity[-1] - 1, abs=1e-12)
    assert metrics.max_drawdown(returns) == pytest.approx(min(0.0, (equity / peak - 1).min()), abs=1e-12)
    assert metrics.volatility(returns, DAILY) == pytest.approx(returns.std(ddof=1) * DAILY**0.5, abs=1e-12)


@given(returns_of_a_strategy, st.floats(0.1, 10))
def test_sharpe_and_sortino_do_not_depend_on_the_size_of_the_bets(returns: np.ndarray, size: float) -> None:
    for ratio in (metrics.sharpe_ratio, metrics.sortino_ratio):
        assert ratio(returns * size, DAILY) == pytest.approx(ratio(returns, DAILY), rel=1e-6, abs=1e-9)


def test_a_summary_holds_each_metric_under_its_own_name(make_bars) -> None:
    bars = make_bars(100 + np.cumsum(np.sin(np.arange(60.0))))
    result = backtest(bars, np.sign(np.cos(np.arange(60.0) / 3)), Costs(), Execution())
    summary = metrics.summarise(result, DAILY)
    for name in ("cagr", "volatility", "sharpe_ratio", "sortino_ratio", "calmar_ratio"):
        assert getattr(summary, name) == getattr(metrics, name)(result.returns, DAILY), name
    assert summary.total_return == metrics.total_return(result.returns)
    assert summary.max_drawdown == metrics.max_drawdown(result.returns)
    assert summary.profit_factor == metrics.profit_factor(result.trades.net_return)
    assert summary.win_rate == metrics.win_rate(result.trades.net_return)
    assert summary.trades == len(result.trades)
    assert summary.exposure == pytest.approx(np.abs(result.exposure).mean())
    assert summary.turnover == pytest.approx(result.turnover.mean() * DAILY)


MEASURED = """
import numpy as np
from clm_core.backtest.metrics import measure
rng = np.random.default_rng(0)
for _ in range(300):
    n = int(rng.integers(2, 300))
    parts = 0.01 * rng.standard_normal(n), rng.random(n), rng.random(n), rng.standard_normal(20)
    print(measure(*parts, 8760.0))
"""


@pytest.mark.chaos
def test_a_process_that_compiles_and_one_that_loads_compiled_code_measure_the_same(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", MEASURED]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbc"))
    assert first == second
