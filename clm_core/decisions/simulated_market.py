"""Simulated market: bars of a stated volatility in which the side of every trade is known beforehand.

Trades follow one another: each is held for a random number of bars, geometric with mean `World.held_days`,
and followed by a random number of bars without a position. The *hidden side* of a trade is long or short by
the toss of a coin. With s the standard deviation of a bar's return and n(t) noise of the stated process (mean
0, variance 1), the return of the market is

    r(t) = s (n(t) + edge side)                                  for a payoff that is symmetric
    r(t) = s (n(t) - mean of n + side w x / bars + edge side)    otherwise, within a trade

with x the trade's payoff (`payoffs`), independent of all else, and w the deviation of a sum of noise: the
root of the sum of n(t) ** 2 over the trade, times the `variance_ratio` of the process. So the returns of
trades on the hidden side have the stated win rate, the volatility stays as the process makes it, and the
noise pays no side. Between trades r(t) = s n(t).

Positions are the sides of the trades through the product's sizing at a volatility target (no smoothing: the
sides are held already), and are traded by the product's engine at the stated costs with the rebalancing band
of new versions.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions.payoffs import WIN_RATES, draw_payoffs
from clm_core.decisions.return_streams import Shape, draw_returns, variance_ratio
from clm_core.domain.costs import Costs
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.kind import DEFAULT_SIZING
from clm_core.models.sizing import size_positions
from clm_core.models.strategies.trend import DAY, LOOK_BACK_DAYS

Sides = NDArray[np.float64]
"""Side of each trade, 1.0 long or -1.0 short, shape (n_trades,)."""
Trades = NDArray[np.int64]

DAYS_A_YEAR = 365.0
SHARE_IN_MARKET = 0.8
"""Share of the time with a position, unless the days of a trade are stated."""
MIN_ALIGNMENT = 0.3
"""Least correlation between the sides of a retrain and the hidden sides at which an edge can be planted."""
SIZING = DEFAULT_SIZING.model_copy(update={"smoothing_half_life": 0.0})
"""Sizing of new versions without smoothing, as of ensembles."""
START = 1_577_836_800_000_000_000
"""Open time of the first bar: 2020-01-01 UTC, nanoseconds since 1970-01-01 UTC."""
LARGEST_FALL = 0.9
"""Largest fall of a bar: heavy tails would make a price negative."""
CALIBRATION_YEARS = 30
CALIBRATION_SEED = 20_251_129
"""Length and seed of the series that an edge is calibrated on."""
STEPS = 4
TOLERANCE = 0.002
"""Largest error of a calibrated Sharpe ratio beyond the error of the simulation itself."""


@dataclass(frozen=True)
class World:
    """A simulated market: distribution of returns, trading and retrains."""

    shape: Shape = Shape.NORMAL
    """Process of the returns of a bar."""
    annual_sharpe: float = 0.0
    """True annual Sharpe ratio of every retrain, net of costs and after sizing; at 0 a retrain knows just
    enough to pay the costs."""
    trades_per_year: float = 73.0
    retrains_per_year: int = 52
    retrain_correlation: float = 0.9
    """Correlation between the returns of two retrains on the same bars, 0..1."""
    record_years: float = 2.87
    """Length of the out-of-sample window of a retrain, and of the record at the first retrain of a recipe."""
    volatility: float = 0.35
    """Yearly volatility of the market, a fraction."""
    win_rate: float = WIN_RATES["symmetric"]
    """Share of winning trades without an edge before costs, 0..1; see `payoffs`."""
    held_days: float | None = None
    """Mean days that a position is held; None for `SHARE_IN_MARKET` of the time in the market."""
    cost_bps: float = 7.0
    """Fee and slippage of a side of a trade, basis points of the traded value."""
    timeframe: Timeframe = Timeframe.H4
    """Length of a bar; hourly bars give the same trades and days in four times the time."""

    @property
    def bars_per_day(self) -> float:
        return DAY / self.timeframe.nanoseconds

    @property
    def bars_per_year(self) -> float:
        return DAYS_A_YEAR * self.bars_per_day

    @property
    def mean_held_bars(self) -> float:
        if self.held_days is None:
            return SHARE_IN_MARKET * self.bars_per_year / self.trades_per_year
        return self.held_days * self.bars_per_day

    @property
    def mean_flat_bars(self) -> float:
        return self.bars_per_year / self.trades_per_year - self.mean_held_bars

    @property
    def problem(self) -> str:
        """Reason why the market cannot be simulated; empty without one."""
        if self.mean_held_bars < 1.0 or self.mean_flat_bars < 1.0:
            return (
                f"{self.trades_per_year:g} trades a year of {self.mean_held_bars:.1f} bars leave "
                f"{self.mean_flat_bars:.1f} bars between trades: a trade and the time between trades take at "
                "least a bar each; state fewer trades, fewer days held or shorter bars"
            )
        if self.alignment < MIN_ALIGNMENT and (self.annual_sharpe, self.cost_bps) != (0.0, 0.0):
            return (
                f"retrains with a correlation of {self.retrain_correlation:g} share too little for all of "
                f"them to earn the costs: state a correlation of at least {MIN_ALIGNMENT**2:g}, or no costs"
            )
        return ""

    @property
    def alignment(self) -> float:
        """Correlation between a retrain's sides and the hidden sides."""
        return float(np.sqrt(self.retrain_correlation))


@dataclass(frozen=True, eq=False)
class HiddenTrades:
    """Trades of a simulated market, each with a hidden side."""

    trade: Trades
    """Number of the trade whose position is decided after each bar, -1 for none, shape (n_bars,)."""
    sides: Sides
    """Hidden side of each trade."""

    def signal(self, sides: Sides) -> Floats:
        """Signal after each bar, for sides of one's own, shape (n_bars,)."""
        return np.where(self.trade >= 0, sides[self.trade], 0.0)

    @cached_property
    def earning(self) -> Floats:
        """Hidden side of the position that earns each bar, shape (n_bars,): decided a bar before."""
        return np.append(0.0, self.signal(self.sides)[:-1])


@dataclass(frozen=True, eq=False)
class SimulatedMarket:
    """Bars with hidden trades, and the size of a position on either side."""

    bars: Bars
    hidden: HiddenTrades
    sizes: Floats
    """Size of the position after each bar, 0..1, shape (n_bars,)."""
    terms: MarketTerms

    def positions(self, sides: Sides, rows: slice) -> Floats:
        """Positions of trades with the sides. Sizing treats both sides alike and starts anew after a bar
        without a position, so one sizing serves all sides."""
        trade = self.hidden.trade[rows]
        return np.where(trade >= 0, sides[trade], 0.0) * self.sizes[rows] + 0.0


def simulate_market(world: World, bars: int, edge: float, rng: np.random.Generator) -> SimulatedMarket:
    """A market with a drift of a bar along the hidden sides.

    Args:
        bars: number of bars.
        edge: drift of a bar along the hidden side, in standard deviations of a bar.

    Raises:
        ValueError: the trades do not fit into the bars, see `World.problem`.
    """
    if world.problem:
        raise ValueError(world.problem)
    hidden = _draw_trades(world, bars, rng)
    noise = _with_payoffs(world, draw_returns(world.shape, 0.0, (bars, 1), rng)[:, 0], hidden, rng)
    return _traded(world, hidden, noise, edge)


def _traded(world: World, hidden: HiddenTrades, noise: Floats, edge: float) -> SimulatedMarket:
    bars = _bars(world, noise + edge * hidden.earning)
    sizes = size_positions(bars, (hidden.trade >= 0).astype(np.float64), SIZING)
    return SimulatedMarket(bars, hidden, sizes, terms_of(world))


def terms_of(world: World) -> MarketTerms:
    """Terms of trading: the costs, and the execution of new versions."""
    costs = Costs(fee_bps=world.cost_bps, slippage_bps=0.0)
    return MarketTerms(TradingTerms(costs=costs)).under(NEW_VERSIONS)


def baseline_sizes(bars: Bars, signal: Floats) -> Floats:
    """Positions of a baseline, sized like the simulated versions."""
    return size_positions(bars, signal, SIZING)


def look_back(world: World) -> int:
    """Bars before a record: the longest look-back of the baselines, and the memory of the sizing."""
    return max(round(max(LOOK_BACK_DAYS) * world.bars_per_day) + 1, SIZING.bars_needed(1))


def draw_sides(world: World, hidden: Sides, retrains: int, rng: np.random.Generator) -> Floats:
    """Sides of each retrain, shape (retrains, n_trades): the hidden side, or the toss of a coin, so that the
    returns of two retrains have the world's correlation."""
    shape = (retrains, len(hidden))
    tossed = rng.choice(np.array([-1.0, 1.0]), shape)
    return np.where(rng.random(shape) < world.alignment, hidden, tossed)


def planted_edge(world: World) -> float:
    """Drift of a bar along the hidden side, in standard deviations, at which retrains have the world's true
    Sharpe ratio.

    Positions on the hidden side have a Sharpe ratio found by simulation over `CALIBRATION_YEARS`; the part of
    the returns from noise has a mean of 0 and is taken out, which leaves an error of a few hundredths. A
    retrain on a share of the sides, `World.alignment`, needs so much more drift.
    """
    same = replace(world, retrains_per_year=1, retrain_correlation=1.0, record_years=1.0)
    if (world.annual_sharpe, world.cost_bps) == (0.0, 0.0):
        return 0.0
    return _edge_of_hidden_sides(same) / max(world.alignment, MIN_ALIGNMENT)


@lru_cache(maxsize=512)
def _edge_of_hidden_sides(world: World) -> float:
    rng = np.random.default_rng(CALIBRATION_SEED)
    count = round(CALIBRATION_YEARS * world.bars_per_year)
    hidden = _draw_trades(world, count, rng)
    noise = _with_payoffs(world, draw_returns(world.shape, 0.0, (count, 1), rng)[:, 0], hidden, rng)

    def excess(edge: float) -> float:
        market = _traded(world, hidden, noise, edge)
        rows = slice(look_back(world), count)
        result = market.terms.backtest(market.bars[rows], market.positions(hidden.sides, rows))
        return _true_sharpe(market, result, noise[rows], world) - world.annual_sharpe

    slope = np.sqrt(world.bars_per_year * world.mean_held_bars * world.trades_per_year / world.bars_per_year)
    older = 0.0
    newer = (world.annual_sharpe + 0.5) / slope
    value = excess(older)
    for _ in range(STEPS):
        following = excess(newer)
        if abs(following) < TOLERANCE or following == value:
            break
        older, newer, value = newer, newer - following * (newer - older) / (following - value), following
    return float(newer)


def _true_sharpe(market: SimulatedMarket, result: Backtest, noise: Floats, world: World) -> float:
    """Annual Sharpe ratio of a backtest, without the part of the mean that the noise happened to pay."""
    equity = result.equity
    metrics = summarise(result, world.bars_per_year)
    closes = market.bars.close[-len(equity) :]
    opens = market.bars.open[-len(equity) :]
    before = np.append(market.terms.terms.execution.initial_cash, equity[:-1])
    # the exposure at the close less the bar's own move
    held = result.exposure * equity * opens / closes / before
    lucky = float(np.mean(held * noise)) * world.volatility / np.sqrt(world.bars_per_year)
    mean = float(result.returns.mean()) - lucky
    return float(mean * world.bars_per_year / metrics.volatility)


def _draw_trades(world: World, bars: int, rng: np.random.Generator) -> HiddenTrades:
    expected = bars / (world.mean_held_bars + world.mean_flat_bars)
    # more trades than bars for all but impossible luck
    count = int(expected + 10.0 * np.sqrt(expected) + 20.0)
    lengths = np.empty(2 * count, np.int64)
    lengths[0::2] = rng.geometric(1.0 / world.mean_flat_bars, count)
    lengths[1::2] = rng.geometric(1.0 / world.mean_held_bars, count)
    numbers = np.full(2 * count, -1)
    numbers[1::2] = np.arange(count)
    trade = np.repeat(numbers, lengths)[:bars]
    trade = np.append(trade, np.full(bars - len(trade), -1))
    return HiddenTrades(trade, rng.choice(np.array([-1.0, 1.0]), count))


def _with_payoffs(world: World, noise: Floats, hidden: HiddenTrades, rng: np.random.Generator) -> Floats:
    """Noise in which trades on the hidden side have the world's win rate, shape (n_bars,)."""
    if world.win_rate == WIN_RATES["symmetric"]:
        return noise
    earned_by = np.append(-1, hidden.trade[:-1])
    inside = earned_by >= 0
    numbers = earned_by[inside]
    count = len(hidden.sides)
    lengths = np.bincount(numbers, minlength=count)
    sums = np.bincount(numbers, noise[inside], count)
    squares = np.bincount(numbers, noise[inside] ** 2, count)
    bars = np.maximum(lengths, 1)
    width = np.sqrt(squares * variance_ratio(world.shape, bars))
    moves = hidden.sides * width * draw_payoffs(world.win_rate, count, rng)
    changed = noise.copy()
    changed[inside] += ((moves - sums) / bars)[numbers]
    return changed


def _bars(world: World, moves: Floats) -> Bars:
    deviation = world.volatility / np.sqrt(world.bars_per_year)
    closes = 100.0 * np.cumprod(1.0 + np.maximum(deviation * moves, -LARGEST_FALL))
    opens = np.append(100.0, closes[:-1])
    time = START + np.arange(len(moves), dtype=np.int64) * world.timeframe.nanoseconds
    high = np.maximum(opens, closes)
    low = np.minimum(opens, closes)
    columns = (opens, high, low, closes, np.ones(len(moves)))
    return Bars("SIMULATED", world.timeframe, Calendar.ALWAYS, time, *columns)
