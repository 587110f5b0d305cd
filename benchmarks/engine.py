"""Backtest engine against vectorbt and backtesting.py: equal results first, then the time of each.

The bars are the bundled hourly BTCUSD bars, forwards and backwards in turn up to the number needed. Both
sides turn the same moving-average parameters, or the same signals, into the same metrics: total and annual
return, volatility, Sharpe, Sortino, Calmar, drawdown, profit factor, win rate and trades. Ours adds exposure
and turnover.
"""

import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import backtesting
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from benchmarks.made_bars import bars_of
from benchmarks.table import Row, faster, side_by_side
from clm_core.backtest.engine import backtest, sma_crossover, sweep
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars, Floats

if TYPE_CHECKING:
    import vectorbt as vbt

N_BARS = 26_000
MANY_BARS = 1_000_000
CHUNK = 100
COSTS = Costs(fee_bps=5, slippage_bps=2)
FREE = Costs(fee_bps=0, slippage_bps=0)
RULES = Execution(initial_cash=10_000)
WHOLE_COINS = Execution(initial_cash=1e8, lot_size=1)
BACKTESTING = f"backtesting.py {backtesting.__version__}"
AGREEMENT = 1e-12

Work = Callable[[], object]


def parameter_sets() -> tuple[list[int], list[int]]:
    """1,000 pairs of windows, 5..44 and 50..146."""
    fast, slow = np.meshgrid(np.arange(5, 45), np.arange(50, 150, 4))
    return fast.ravel().tolist(), slow.ravel().tolist()


def long_or_flat(close: Floats, fast: int, slow: int) -> Floats:
    quick, steady = (pd.Series(close).rolling(window).mean() for window in (fast, slow))
    positions = np.asarray(quick > steady, dtype=np.float64)
    positions[-2:] = 0.0  # both sides close the last trade at the last open
    return positions


def naive(bars: Bars) -> pd.DatetimeIndex:
    """Times without a time zone: converting zoned times takes vectorbt longer than all the rest."""
    return bars.index.tz_localize(None)


def portfolio(bars: Bars, above: Floats, costs: Costs) -> "vbt.Portfolio":
    """Fully long from the open after `above` turns true, flat from the open after `above` turns false."""
    import vectorbt as vbt

    entries = np.zeros(above.shape, dtype=bool)
    entries[1:] = above[:-1] > 0
    return vbt.Portfolio.from_signals(
        pd.Series(bars.close, naive(bars)),
        entries=entries,
        exits=~entries,
        price=pd.Series(bars.open, naive(bars)),
        fees=costs.fee_bps / 1e4,
        slippage=costs.slippage_bps / 1e4,
        init_cash=RULES.initial_cash,
        freq="1h",
    )


def vectorbt_metrics(portfolio: "vbt.Portfolio") -> list[Any]:
    trades = portfolio.trades
    return [
        portfolio.total_return(),
        portfolio.annualized_return(),
        portfolio.annualized_volatility(),
        portfolio.sharpe_ratio(),
        portfolio.sortino_ratio(),
        portfolio.calmar_ratio(),
        portfolio.max_drawdown(),
        trades.profit_factor(),
        trades.win_rate(),
        trades.count(),
    ]


def vectorbt_sweep(bars: Bars, fast: list[int], slow: list[int]) -> Iterator[list[Any]]:
    import vectorbt as vbt

    close = pd.Series(bars.close, naive(bars))
    for first in range(0, len(fast), CHUNK):
        chosen = slice(first, first + CHUNK)
        quick = vbt.MA.run(close, fast[chosen], short_name="fast").ma.to_numpy()
        steady = vbt.MA.run(close, slow[chosen], short_name="slow").ma.to_numpy()
        yield vectorbt_metrics(portfolio(bars, quick > steady, COSTS))


def positions_to_metrics(bars: Bars, positions: Floats) -> object:
    return summarise(backtest(bars, positions, COSTS, RULES), bars.periods_per_year)


def require_equal(name: str, ours: ArrayLike, theirs: ArrayLike, tolerance: float = AGREEMENT) -> None:
    own = np.asarray(ours)
    peers = np.asarray(theirs)
    distance = np.abs(own - peers).max() if len(own) == len(peers) else np.inf
    if not distance <= tolerance:
        raise AssertionError(f"{name}: ours and the peer's differ by {distance:.1e}: timings mean nothing")


def require_same_trades(name: str, ours: Backtest, entry: Floats, exit_: Floats, returns: Floats) -> None:
    require_equal(f"{name}, entry bars", ours.trades.entry_bar, entry, 0)
    require_equal(f"{name}, exit bars", ours.trades.exit_bar, exit_, 0)
    require_equal(f"{name}, trade returns", ours.trades.net_return, returns)


def check_vectorbt(bars: Bars, positions: Floats) -> None:
    for costs in (FREE, COSTS):
        ours = backtest(bars, positions, costs, RULES)
        theirs = portfolio(bars, positions, costs)
        records = theirs.trades.records
        require_equal(f"returns at {costs}", ours.returns, theirs.returns().to_numpy())
        require_same_trades(
            f"trades at {costs}",
            ours,
            records["entry_idx"].to_numpy(),
            records["exit_idx"].to_numpy(),
            records["return"].to_numpy(),
        )


def check_sweep(bars: Bars, fast: list[int], slow: list[int]) -> None:
    """First chunk of the sweep. Ours closes a trade open at the end, at a cost of 7 bp; vectorbt does not."""
    ours = sweep(sma_crossover(bars, fast[:CHUNK], slow[:CHUNK]), COSTS, RULES)
    theirs = next(vectorbt_sweep(bars, fast[:CHUNK], slow[:CHUNK]))
    require_equal("Sharpe ratios", [metrics.sharpe_ratio for metrics in ours], theirs[3], 1e-3)
    require_equal("numbers of trades", [metrics.trades for metrics in ours], theirs[9], 0)


class Candidate(backtesting.Strategy):
    """Strategy of backtesting.py that follows given positions."""

    positions: Floats

    def init(self) -> None:
        self.signal = self.I(lambda: self.positions)

    def next(self) -> None:
        if self.signal[-1] == self.signal[-2]:
            return
        self.position.close()
        if self.signal[-1] > 0:
            self.buy()
        elif self.signal[-1] < 0:
            self.sell()


def backtesting_run(bars: Bars, positions: Floats) -> pd.Series:
    frame = bars.to_frame().rename(columns=str.capitalize).set_index(naive(bars))
    strategy = type("Targets", (Candidate,), {"positions": positions})
    test = backtesting.Backtest(frame, strategy, cash=WHOLE_COINS.initial_cash, finalize_trades=True)
    return test.run()


def check_backtesting(bars: Bars, positions: Floats) -> None:
    ours = backtest(bars, positions, FREE, WHOLE_COINS)
    theirs = backtesting_run(bars, positions)
    trades = theirs["_trades"]
    equity = theirs["_equity_curve"]["Equity"].to_numpy()
    require_equal("equity", ours.equity / equity, np.ones(len(equity)))
    require_same_trades(
        "backtesting.py's trades",
        ours,
        trades["EntryBar"].to_numpy(),
        trades["ExitBar"].to_numpy(),
        trades["ReturnPct"].to_numpy(),
    )


def rows() -> list[Row]:
    warnings.filterwarnings("ignore", module=r"vectorbt|backtesting")
    vectorbt = f"vectorbt {version('vectorbt')}"
    bars = bars_of(N_BARS)
    many = bars_of(MANY_BARS)
    fast, slow = parameter_sets()
    positions, long_positions = (long_or_flat(part.close, 10, 50) for part in (bars, many))
    check_vectorbt(bars, positions)
    long_or_short = 2 * positions - 1
    long_or_short[:50] = long_or_short[-2:] = 0.0
    check_backtesting(bars, long_or_short)
    check_sweep(bars, fast, slow)

    def swept(threads: int) -> object:
        return sweep(sma_crossover(bars, fast, slow), COSTS, RULES, threads)

    def row(name: str, ours: Work, peer: str, theirs: Work, target: float, rounds: int) -> Row:
        ours_timing, peers = side_by_side(ours, theirs, rounds)
        return faster(name, ours_timing, peer, peers, target)

    grid = f"{len(fast):,} parameter sets x {N_BARS:,} bars, parameters to metrics"
    one = f"one candidate, {N_BARS:,} bars"
    return [
        row(
            f"{grid}, 1 thread",
            lambda: swept(1),
            f"{vectorbt}, {CHUNK} columns at a time",
            lambda: list(vectorbt_sweep(bars, fast, slow)),
            target=40,
            rounds=5,
        ),
        row(
            f"{grid}, 2 threads", lambda: swept(2), "ours, 1 thread", lambda: swept(1), target=1.8, rounds=11
        ),
        row(
            f"{one}, signals to metrics",
            lambda: positions_to_metrics(bars, positions),
            vectorbt,
            lambda: vectorbt_metrics(portfolio(bars, positions, COSTS)),
            target=60,
            rounds=31,
        ),
        row(
            f"{one}, long or short, signals to metrics",
            lambda: positions_to_metrics(bars, long_or_short),
            BACKTESTING,
            lambda: backtesting_run(bars, long_or_short),
            target=500,
            rounds=7,
        ),
        row(
            f"one candidate, {MANY_BARS:,} bars, signals to metrics",
            lambda: positions_to_metrics(many, long_positions),
            vectorbt,
            lambda: vectorbt_metrics(portfolio(many, long_positions, COSTS)),
            target=10,
            rounds=7,
        ),
    ]
