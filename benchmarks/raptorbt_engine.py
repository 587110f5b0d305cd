"""Backtest engine against raptorbt: equal trades and metrics first, then the time of each.

python -m benchmarks.run raptorbt_engine      under a minute

Both turn the same signals into fills at the next open, with the same fee and slippage on either side, all
capital in each trade. raptorbt states returns and drawdowns in percent, and ours as fractions. Its sweep is
one call for all sets, on all threads; `RAYON_NUM_THREADS=1` keeps it to one, as ours is.
"""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine import COSTS, RULES, long_or_flat, positions_to_metrics, require_equal
from benchmarks.made_bars import bars_of
from benchmarks.table import PROCESSOR, Row, faster, side_by_side
from clm_core.backtest.engine import backtest, sma_crossover, sweep
from clm_core.backtest.metrics import summarise
from clm_core.market.bars import Bars, Floats

if TYPE_CHECKING:
    import raptorbt

# read at the first sweep
os.environ.setdefault("RAYON_NUM_THREADS", "1")
N_BARS = 26_000
MANY_BARS = 1_000_000
AGREEMENT = 1e-9
ONE = 8.0
MANY = 5.0
SWEEP = 6.0
"""Minimum ratios of processor time: one candidate, one on many bars, and the sweep."""


def parameter_sets() -> tuple[list[int], list[int]]:
    """184 pairs of windows, 5..40 and 50..160."""
    fast, slow = np.meshgrid(np.arange(5, 45, 5), np.arange(50, 165, 5))
    return fast.ravel().tolist(), slow.ravel().tolist()


def config(bars: Bars) -> "raptorbt.BacktestConfig":
    import raptorbt

    return raptorbt.BacktestConfig(
        initial_capital=RULES.initial_cash,
        fees=COSTS.fee_bps / 1e4,
        slippage=COSTS.slippage_bps / 1e4,
        fill_timing="next_bar_open",
        periods_per_year=bars.periods_per_year,
    )


def signals(above: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Entries and exits at the closes at which the position changes."""
    is_long = above > 0
    before = np.concatenate([[False], is_long[:-1]])
    return is_long & ~before, ~is_long & before


def prices(bars: Bars) -> tuple[NDArray[np.float64] | NDArray[np.int64], ...]:
    return bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume


def one_run(bars: Bars, above: Floats) -> "raptorbt.BacktestResult":
    import raptorbt

    entries, exits = signals(above)
    return raptorbt.run_single_backtest(
        *prices(bars), entries, exits, direction=1, weight=1.0, symbol="BTCUSD", config=config(bars)
    )


def means(close: Floats, window: int) -> Floats:
    """Mean of the trailing window; NaN in the first `window - 1` rows."""
    sums = np.concatenate([[0.0], np.cumsum(close - close[0])])
    mean = np.full(len(close), np.nan)
    mean[window - 1 :] = close[0] + (sums[window:] - sums[:-window]) / window
    return mean


def many_runs(bars: Bars, fast: list[int], slow: list[int]) -> "list[tuple[str, raptorbt.BacktestResult]]":
    """Sweep, with every mean computed once."""
    import raptorbt

    by_window = {window: means(bars.close, window) for window in {*fast, *slow}}
    settings = config(bars)
    items = [
        raptorbt.BatchSingleItem(
            f"{quick} {steady}",
            *signals((by_window[quick] > by_window[steady]).astype(float)),
            1,
            1.0,
            "BTCUSD",
            settings,
        )
        for quick, steady in zip(fast, slow, strict=True)
    ]
    return list(raptorbt.batch_single_backtest(*prices(bars), items, settings))


def check(bars: Bars, above: Floats) -> None:
    """Refuse to time results that differ, in trades, units or metrics."""
    ours = backtest(bars, above, COSTS, RULES)
    metrics = summarise(ours, bars.periods_per_year)
    theirs = one_run(bars, above)
    trades = theirs.trades()
    require_equal("entry bars", ours.trades.entry_bar, np.array([each.entry_idx for each in trades]), 0)
    require_equal("exit bars", ours.trades.exit_bar, np.array([each.exit_idx for each in trades]), 0)
    ratio = theirs.metrics.total_return_pct / 100 / metrics.total_return
    require_equal("total return, theirs over ours", np.array([ratio]), np.ones(1), AGREEMENT)


def rows() -> list[Row]:
    peer = f"raptorbt {version('raptorbt')}"
    bars = bars_of(N_BARS)
    many = bars_of(MANY_BARS)
    positions, long_positions = (long_or_flat(part.close, 10, 50) for part in (bars, many))
    check(bars, positions)
    fast, slow = parameter_sets()

    def row(part: Bars, above: Floats, target: float, rounds: int) -> Row:
        ours, peers = side_by_side(
            lambda: positions_to_metrics(part, above), lambda: one_run(part, above), rounds
        )
        name = f"one candidate, {len(part):,} bars, signals to metrics"
        return faster(name, ours, peer, peers, target, by=PROCESSOR)

    ours, peers = side_by_side(
        lambda: sweep(sma_crossover(bars, fast, slow), COSTS, RULES),
        lambda: many_runs(bars, fast, slow),
        5,
    )
    name = f"{len(fast):,} parameter sets x {len(bars):,} bars, parameters to metrics, 1 thread"
    return [
        row(bars, positions, ONE, 31),
        row(many, long_positions, MANY, 7),
        faster(name, ours, f"{peer}, 1 thread", peers, SWEEP, by=PROCESSOR),
    ]
