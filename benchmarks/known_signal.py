"""Sizing of a known signal: share of the net Sharpe ratio that sized positions keep of unsized positions.

    python -m benchmarks.known_signal [SIZING ...]     by default all of them
    python -m benchmarks.known_signal rl_v2 --set smoothing_half_life=48
    python -m benchmarks.known_signal rl_v2 --volatility 0.08 --cost-bps 0.7

Five years of hourly bars are simulated: volatility moves around 60 % a year (exponential Ornstein-Uhlenbeck,
half-life ten days), shocks have fat tails (Student t, five degrees of freedom), and a signal with a known
half-life predicts the next bar. The strength of the signal is such that the signal itself, traded unsized at
7 bps a side, has a given net Sharpe ratio. Calm markets are those of `--volatility`, cheap ones those of
`--cost-bps`. `kept` is the net Sharpe ratio of the sized positions over that of
the unsized.

The signal of RL v2 is a side: short, flat or long, and flat most of the time. It is the side of a strong
signal with the half-life, held until the signal is weak.
"""

import argparse
from dataclasses import dataclass
from itertools import product

import numpy as np

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Metrics
from clm_core.domain.costs import Costs
from clm_core.domain.execution import REBALANCE_BAND, Execution
from clm_core.domain.sizing import Sizing, sizing_of
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.networks import forecasting
from clm_core.models.policies import rl_v2
from clm_core.models.sizing import size_positions
from clm_core.models.trees import boosting

COSTS = Costs(fee_bps=5.0, slippage_bps=2.0)
BARS = 5 * 8_760
YEARLY_VOLATILITY = 0.6
VOLATILITY_HALF_LIFE = 240
LOG_VOLATILITY_DEVIATION = 0.4
DEGREES_OF_FREEDOM = 5
NET_SHARPES = (1.0, 2.0, 3.0)
HALF_LIVES = (48, 24, 12)
"""Half-lives of the signal, bars: two days, the goal, and faster ones."""
SIZINGS = {
    "default": Sizing(),
    "trees": boosting.SIZING,
    "networks": forecasting.SIZING,
    "rl_v2": rl_v2.SIZING,
}
"""Sizings of the kinds by default."""
OF_SIDES = ("rl_v2",)
"""Sizings of kinds whose signal is a side."""
STRONG = 1.5
"""Size of the underlying signal from which on a side is taken, in standard deviations."""
WEAK = 0.5
"""Size of the underlying signal below which a side is given up."""
SEEDS = 5
GOAL = 0.7
"""Least share of the net Sharpe ratio to keep, for a half-life of two days."""
TURNOVER_GOAL = 60.0


@dataclass(frozen=True)
class Kept:
    """Metrics of one simulated series, unsized and sized."""

    unsized: Metrics
    sized: Metrics

    @property
    def kept(self) -> float:
        """Net Sharpe ratio of the sized positions over that of the unsized."""
        return self.sized.sharpe_ratio / self.unsized.sharpe_ratio


@dataclass(frozen=True, eq=False)
class _World:
    """Everything random of a series."""

    signal: Floats
    noise: Floats
    """Returns of the bars without the signal, in units of their volatility, shape (n_bars,)."""
    volatility: Floats
    """Standard deviation of each bar's return, shape (n_bars,)."""

    def bars(self, strength: float) -> Bars:
        drift = np.zeros(len(self.noise))
        # the signal of the close of bar t - 2 is traded at the open of t - 1 and earns until the open of t
        drift[2:] = strength * self.signal[:-2]
        steps = self.volatility * (self.noise + drift)
        opens = 100.0 * np.exp(np.cumsum(steps))
        closes = np.append(opens[1:], opens[-1])
        high = np.maximum(opens, closes)
        low = np.minimum(opens, closes)
        time = np.arange(len(opens), dtype=np.int64) * Timeframe.H1.nanoseconds
        columns = (opens, high, low, closes, np.ones(len(opens)))
        return Bars("KNOWN", Timeframe.H1, Calendar.ALWAYS, time, *columns)


def compare(
    half_life: float,
    net_sharpe: float,
    sizing: Sizing,
    seed: int,
    n_bars: int = BARS,
    *,
    of_sides: bool = False,
    yearly_volatility: float = YEARLY_VOLATILITY,
    costs: Costs = COSTS,
) -> Kept:
    """Unsized and sized positions of a signal with a given half-life and net Sharpe ratio when unsized.

    Args:
        of_sides: True for a signal that is a side, short, flat or long.
        yearly_volatility: volatility of the simulated market.
        costs: costs of trading there.
    """
    world = _world(half_life, n_bars, np.random.default_rng(seed), of_sides, yearly_volatility)
    unsized_rules = Execution()

    def unsized(strength: float) -> Metrics:
        bars = world.bars(strength)
        return summarise(backtest(bars, world.signal, costs, unsized_rules), bars.periods_per_year)

    low = 0.0
    high = 2.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if unsized(middle).sharpe_ratio < net_sharpe else (low, middle)
    bars = world.bars(high)
    positions = size_positions(bars, world.signal, sizing)
    result = backtest(bars, positions, costs, Execution(rebalance_band=REBALANCE_BAND))
    return Kept(unsized(high), summarise(result, bars.periods_per_year))


def _world(
    half_life: float, n_bars: int, rng: np.random.Generator, of_sides: bool, yearly_volatility: float
) -> _World:
    strength = ornstein_uhlenbeck(half_life, n_bars, rng)
    signal = sides(strength) if of_sides else np.clip(0.5 * strength, -1.0, 1.0)
    log_volatility = LOG_VOLATILITY_DEVIATION * ornstein_uhlenbeck(VOLATILITY_HALF_LIFE, n_bars, rng)
    # the mean of the squared volatilities is the square of the yearly volatility
    centred = np.exp(log_volatility - LOG_VOLATILITY_DEVIATION**2)
    deviation = np.sqrt(DEGREES_OF_FREEDOM / (DEGREES_OF_FREEDOM - 2))
    noise = rng.standard_t(DEGREES_OF_FREEDOM, n_bars) / deviation
    return _World(signal, noise, yearly_volatility / np.sqrt(8_760) * centred)


def sides(strength: Floats) -> Floats:
    """Side of a signal, taken from `STRONG` on and given up below `WEAK`, shape (n,)."""
    taken = np.zeros(len(strength))
    side = 0.0
    for row, value in enumerate(strength):
        if abs(value) >= STRONG:
            side = float(np.sign(value))
        elif value * side < WEAK:
            side = 0.0
        taken[row] = side
    return taken


def ornstein_uhlenbeck(half_life: float, n: int, rng: np.random.Generator) -> Floats:
    """Stationary, standard normal, with the given half-life in bars, shape (n,)."""
    from scipy.signal import lfilter

    keep = 0.5 ** (1 / half_life)
    shocks = rng.standard_normal(n) * np.sqrt(1 - keep**2)
    shocks[0] /= np.sqrt(1 - keep**2)
    return np.asarray(lfilter([1.0], [1.0, -keep], shocks))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizings", nargs="*", metavar="SIZING", help=", ".join(SIZINGS))
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="constants in place of the sizing's own"
    )
    parser.add_argument("--volatility", type=float, default=YEARLY_VOLATILITY, help="of a year, a fraction")
    parser.add_argument("--cost-bps", type=float, help="a side, basis points; default: 7")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.sizings if name not in SIZINGS]:
        parser.error(f"no sizing {unknown[0]!r}: choose from {', '.join(SIZINGS)}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    varied = dict(each.split("=", 1) for each in arguments.set)
    cost_bps = arguments.cost_bps
    costs = COSTS if cost_bps is None else Costs(fee_bps=cost_bps, slippage_bps=0.0)
    print("| sizing | half-life, bars | net Sharpe unsized | kept | volatility | turnover | drawdown |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, half_life, net_sharpe in product(arguments.sizings or SIZINGS, HALF_LIVES, NET_SHARPES):
        sizing = sizing_of(varied, SIZINGS[name])
        assert sizing is not None
        results = [
            compare(
                half_life,
                net_sharpe,
                sizing,
                seed,
                of_sides=name in OF_SIDES,
                yearly_volatility=arguments.volatility,
                costs=costs,
            )
            for seed in range(SEEDS)
        ]
        kept = np.mean([each.kept for each in results])
        volatility = np.mean([each.sized.volatility for each in results])
        turnover = np.mean([each.sized.turnover for each in results])
        drawdown = min(each.sized.max_drawdown for each in results)
        figures = f"{kept:.0%} | {volatility:.1%} | {turnover:.0f} | {drawdown:.0%}"
        print(f"| {name} | {half_life} | {net_sharpe:g} | {figures} |")


if __name__ == "__main__":
    main()
