"""Gate simulation: streams of returns with a known edge, retrained and judged by the gate.

A bar of a stream is a trade; the returns of two retrains on the same trade correlate by
`World.retrain_correlation`. In years without an edge every retrain is another recipe, tested on a window up
to the day of the retrain. A stream with an edge is one recipe, whose record begins with the window of the
first retrain and grows: the trades after a retrain are those of the version registered then, as in a real
record.

The gate receives the same inputs as for a real version: metrics, activity, track record and all trials so
far. There is no production version, hence no comparison with a champion. Every trade is long or short by the
toss of a coin, so that holding the market earns nothing: timing and alpha are judged on the trades' sides and
the moves that they imply.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from clm_core.backtest.metrics import measure
from clm_core.decisions import gate
from clm_core.decisions.cases import BaselineAlpha, Case
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.domain.evaluations import Decision
from clm_core.evidence.exposure_null import timing_probability
from clm_core.evidence.regression import joint_alpha
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.evidence.trials import DAY, TrialCount, bars_to_pass, effective_counts, trial_record
from clm_core.market.bars import Floats
from clm_core.market.splits import Rows

ALIVE = Activity("long", 0.5, 1.0)
SIDES_SEED = 20_251_129
VOLATILITY = 0.01
"""Standard deviation of a trade's return, a fraction; only the drawdown depends on the value."""


@dataclass(frozen=True)
class World:
    """A simulated market: distribution of returns, trading frequency and retrains."""

    shape: Shape = Shape.NORMAL
    annual_sharpe: float = 0.0
    """True annual Sharpe ratio of every retrain."""
    trades_per_year: float = 50 / 90 * 365
    retrains_per_year: int = 52
    retrain_correlation: float = 0.9
    """Correlation between the returns of two retrains on the same trade, 0..1."""
    record_years: float = 1.0
    """Length of the out-of-sample window of a retrain, and of the record at the first retrain of a recipe."""

    @property
    def sharpe(self) -> float:
        """True Sharpe ratio of a trade."""
        return self.annual_sharpe / math.sqrt(self.trades_per_year)


@dataclass(frozen=True)
class Estimate:
    """A share or mean with the Monte-Carlo standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {self.error:.1%}"


@dataclass(frozen=True)
class SimulatedYears:
    """Simulated years of retrains."""

    promoted: Estimate
    """Share of the years with at least one pass."""
    promotions: float
    """Mean number of passing versions a year."""


@dataclass(frozen=True)
class SimulatedWaits:
    """Simulated streams, each the growing record of a recipe, judged at every retrain."""

    promoted: Estimate
    """Share of the streams with a pass before the end."""
    median_years: float
    """Median length of the record at the first pass; inf if less than half of the streams pass."""
    minimum_years: float
    """Minimum track record length: length at which a record of exactly the true Sharpe ratio passes; inf if
    not before the end."""
    in_time: Estimate
    """Share of the streams with a pass within a record of twice `minimum_years`; NaN if the streams are
    shorter."""
    years: tuple[float, ...]
    """Length of the record of each stream at the first pass, ascending; inf without a pass."""


Progress = Callable[[float], None]


def simulate_years(
    world: World, policy: GatePolicy, years: int, rng: np.random.Generator, progress: Progress | None = None
) -> SimulatedYears:
    """Promotions in years of retrains; the count of trials starts anew with each year."""
    passed = np.empty(years)
    for year in range(years):
        passed[year] = sum(decision is Decision.PASS for decision in _year(world, policy, rng))
        if progress:
            progress((year + 1) / years)
    return SimulatedYears(_share(passed > 0), float(passed.mean()))


def simulate_waits(
    world: World,
    policy: GatePolicy,
    streams: int,
    longest_years: float,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> SimulatedWaits:
    """Lengths of record of streams with a true edge, each judged at every retrain until the first pass.

    Args:
        longest_years: years from the first retrain to the end of the streams.
    """
    waited = np.empty(streams)
    needed = np.empty(streams)
    for stream in range(streams):
        waited[stream], needed[stream] = _wait(world, policy, longest_years, rng)
        if progress:
            progress((stream + 1) / streams)
    minimum = float(np.median(needed))
    unknown = Estimate(math.nan, math.nan)
    return SimulatedWaits(
        promoted=_share(np.isfinite(waited)),
        median_years=float(np.median(waited)),
        minimum_years=minimum,
        in_time=(
            _share(waited <= 2.0 * minimum)
            if 2.0 * minimum <= world.record_years + longest_years
            else unknown
        ),
        years=tuple(np.sort(waited).tolist()),
    )


def _year(world: World, policy: GatePolicy, rng: np.random.Generator) -> list[Decision]:
    length = _window_trades(world)
    ends = length + _retrain_trades(world, 1.0)
    returns = _correlated_returns(world, (int(ends[-1]), len(ends)), rng)
    windows = [returns[end - length : end, k] for k, end in enumerate(ends)]
    market = _Market(world, policy, windows, ends - length, np.zeros_like(ends))
    return [market.judge(retrain) for retrain in range(len(ends))]


def _wait(
    world: World, policy: GatePolicy, longest_years: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Years of record at the first pass, and at which a record of exactly the true Sharpe ratio passes; inf
    if never."""
    length = _window_trades(world)
    ends = length + np.append(0, _retrain_trades(world, longest_years))
    returns = _correlated_returns(world, (int(ends[-1]), len(ends)), rng)
    trades = np.arange(len(returns))
    # the window belongs to the first retrain, every later trade to the version registered last
    version = np.maximum(np.searchsorted(ends, trades, side="right") - 1, 0)
    record = returns[trades, version]
    market = _Market(world, policy, [record[:end] for end in ends], np.zeros_like(ends), ends - length)
    retrains = range(len(ends))
    waited = next((k for k in retrains if market.judge(k) is Decision.PASS), math.inf)
    needed = bisect_left(retrains, True, key=market.would_pass)
    return (
        world.record_years + waited / world.retrains_per_year,
        world.record_years + needed / world.retrains_per_year if needed < len(ends) else math.inf,
    )


def _window_trades(world: World) -> int:
    return round(world.record_years * world.trades_per_year)


def _retrain_trades(world: World, years: float) -> Rows:
    """Number of trades made up to each retrain, shape (n_retrains,)."""
    count = round(years * world.retrains_per_year)
    return np.ceil(np.arange(1, count + 1) * world.trades_per_year / world.retrains_per_year).astype(np.int64)


def _correlated_returns(world: World, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Returns of every retrain on every trade, as fractions, shape (n_trades, n_retrains)."""
    common = draw_returns(world.shape, 0.0, (size[0], 1), rng)
    own = draw_returns(world.shape, 0.0, size, rng)
    mixed = math.sqrt(world.retrain_correlation) * common + math.sqrt(1.0 - world.retrain_correlation) * own
    return np.asarray(VOLATILITY * (mixed + world.sharpe))


class _Market:
    """All retrains of a market with returns and records, and the gate's decision on each retrain."""

    def __init__(
        self, world: World, policy: GatePolicy, returns: Sequence[Floats], starts: Rows, forward: Rows
    ) -> None:
        """
        Args:
            returns: returns of the trades that each retrain is judged by.
            starts: number of the first of these trades, shape (n_retrains,).
            forward: number of trades after the first window of the recipe, shape (n_retrains,).
        """
        self._world = world
        self._policy = policy
        self._returns = returns
        self._forward = forward
        longest = max(len(trades) for trades in returns)
        self._sides = np.random.default_rng(SIDES_SEED).choice([-1.0, 1.0], longest)
        self._records = [track_record(trades) for trades in returns]
        self._trials = [
            trial_record((start + np.arange(len(trades))) * DAY, trades, record)
            for start, trades, record in zip(starts, returns, self._records, strict=True)
        ]

    def judge(self, retrain: int) -> Decision:
        # counting trials is costly, and a retrain that fails with the minimum count fails with any other
        lenient = self._decide(retrain, self._counted(retrain, self._min_trials))
        if lenient is not Decision.PASS or self._policy.evidence is None:
            return lenient
        return self._decide(retrain, self._count(retrain))

    def would_pass(self, retrain: int) -> bool:
        """True if a normal, independent record of the same length and the true Sharpe ratio passes."""
        bars = len(self._returns[retrain])
        levels = self._policy.evidence
        if bars < self._policy.criteria.min_trades or levels is None:
            return bars >= self._policy.criteria.min_trades
        ideal = TrackRecord(self._world.sharpe, 0.0, 3.0, bars, float(bars))
        count = replace(self._count(retrain), forward_bars=float(self._forward[retrain]))
        return bars_to_pass(ideal, count, levels.min_deflated_sharpe) <= bars

    @property
    def _min_trials(self) -> float:
        return 1.0 if self._policy.evidence is None else self._policy.evidence.fewest_trials

    def _count(self, retrain: int) -> TrialCount:
        return self._counted(retrain, max(float(self._counts[retrain]), self._min_trials))

    def _counted(self, retrain: int, effective: float) -> TrialCount:
        record = self._records[retrain]
        share = self._forward[retrain] / max(record.bars, 1)
        forward = record.effective_bars * float(share) if record.measured else 0.0
        return TrialCount(retrain + 1, effective, forward_bars=forward)

    @cached_property
    def _counts(self) -> Floats:
        """Effective number of trials at each retrain, shape (n_retrains,)."""
        return effective_counts(self._trials)

    def _decide(self, retrain: int, trials: TrialCount) -> Decision:
        returns = self._returns[retrain]
        empty = np.zeros(0)
        sides = self._sides[: len(returns)]
        yearly = self._world.trades_per_year
        metrics = measure(returns, empty, empty, returns, yearly)
        criteria = self._policy.criteria
        payoff_holds = (
            metrics.win_rate >= criteria.min_win_rate and metrics.profit_factor >= criteria.min_profit_factor
        )
        case = Case(
            metrics=metrics,
            activity=ALIVE,
            record=self._records[retrain],
            trials=trials,
            periods_per_year=yearly,
            comparison=None,
            returns=returns,
            # resampling is costly, and decides nothing where both limits hold
            trade_returns=None if payoff_holds else returns,
            timing=timing_probability([sides], [sides * returns]),
            alpha=BaselineAlpha(joint_alpha(returns, [sides * returns], yearly)),
        )
        return gate.judge(case, self._policy).decision


def _share(hits: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Estimate:
    share = float(np.mean(hits))
    return Estimate(share, math.sqrt(max(share * (1.0 - share), 1e-12) / len(hits)))
