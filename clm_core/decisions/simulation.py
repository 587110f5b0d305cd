"""What a policy lets through: streams with a known edge, retrained and judged by the gate itself.

A bar of a stream is a trade. Every retrain of a market is tested on the trades up to its day; what two
retrains make of the same trade correlates by `kinship`. The gate sees of each what it would see of a real
one: metrics, positions, the track record and all trials so far. Nothing serves, so there is no champion to
compare with.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clm_core.backtest.metrics import measure
from clm_core.decisions import gate
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.decisions.return_streams import Shape, draw
from clm_core.domain.evaluations import Decision
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.evidence.trials import DAY, TrialCount, bars_to_pass, count_trials, trial_record
from clm_core.market.bars import Floats
from clm_core.market.splits import Rows

ALIVE = Activity("long", 0.5, 1.0)
VOLATILITY = 0.01
"""Of a trade's return, as a fraction; only the drawdown depends on it."""


@dataclass(frozen=True)
class World:
    """How a market is traded and its model retrained."""

    shape: Shape = Shape.NORMAL
    annual_sharpe: float = 0.0
    """True one of every retrain."""
    trades_per_year: float = 50 / 90 * 365
    retrains_per_year: int = 52
    kinship: float = 0.9
    """Correlation of what two retrains make of the same trade, 0..1."""
    record_years: float = 1.0
    """Out-of-sample track record that every retrain is judged by."""

    @property
    def sharpe(self) -> float:
        """Of a trade."""
        return self.annual_sharpe / math.sqrt(self.trades_per_year)


@dataclass(frozen=True)
class Estimate:
    """A share or mean with its Monte-Carlo standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {self.error:.1%}"


@dataclass(frozen=True)
class Year:
    """Simulated years of retrains."""

    promoted: Estimate
    """Share of the years in which anything passed."""
    promotions: float
    """Mean number of versions a year that passed."""


@dataclass(frozen=True)
class Wait:
    """Simulated streams, judged at every retrain from their first trade on."""

    promoted: Estimate
    """Share that passed before the end."""
    median_years: float
    """Until the first pass; inf where less than half of them did."""
    minimum_years: float
    """Minimum track record length: when a record of exactly the true Sharpe ratio would pass; inf: not before
    the end."""
    in_time: Estimate
    """Share that passed within twice that; NaN where the streams end sooner."""
    years: tuple[float, ...]
    """Each stream's wait, ascending; inf: it never passed."""


Progress = Callable[[float], None]


def simulate_years(
    world: World, policy: GatePolicy, years: int, rng: np.random.Generator, progress: Progress | None = None
) -> Year:
    """How often a year of retrains lets something through; counting of trials starts with each year."""
    passed = np.empty(years)
    for year in range(years):
        passed[year] = sum(decision is Decision.PASS for decision in _year(world, policy, rng))
        if progress:
            progress((year + 1) / years)
    return Year(_share(passed > 0), float(passed.mean()))


def simulate_waits(
    world: World,
    policy: GatePolicy,
    streams: int,
    longest_years: float,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Wait:
    """How long a true edge waits: each stream is judged at every retrain until one passes."""
    waited = np.empty(streams)
    needed = np.empty(streams)
    for stream in range(streams):
        waited[stream], needed[stream] = _wait(world, policy, longest_years, rng)
        if progress:
            progress((stream + 1) / streams)
    minimum = float(np.median(needed))
    unknown = Estimate(math.nan, math.nan)
    return Wait(
        promoted=_share(np.isfinite(waited)),
        median_years=float(np.median(waited)),
        minimum_years=minimum,
        in_time=_share(waited <= 2.0 * minimum) if 2.0 * minimum <= longest_years else unknown,
        years=tuple(np.sort(waited).tolist()),
    )


def _year(world: World, policy: GatePolicy, rng: np.random.Generator) -> list[Decision]:
    length = round(world.record_years * world.trades_per_year)
    ends = length + _retrain_trades(world, 1.0)
    market = _Market(world, policy, ends - length, ends, rng)
    return [market.judge(retrain) for retrain in range(len(ends))]


def _wait(
    world: World, policy: GatePolicy, longest_years: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Years until the first pass, and until a record of exactly the true Sharpe ratio passes; inf: never."""
    ends = _retrain_trades(world, longest_years)
    market = _Market(world, policy, np.zeros_like(ends), ends, rng)
    retrains = range(len(ends))
    waited = next((k for k in retrains if market.judge(k) is Decision.PASS), math.inf)
    needed = bisect_left(retrains, True, key=market.would_pass)
    return (
        (waited + 1) / world.retrains_per_year,
        (needed + 1) / world.retrains_per_year if needed < len(ends) else math.inf,
    )


def _retrain_trades(world: World, years: float) -> Rows:
    """Trades that were made by each retrain."""
    count = round(years * world.retrains_per_year)
    return np.ceil(np.arange(1, count + 1) * world.trades_per_year / world.retrains_per_year).astype(np.int64)


def _kin(world: World, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Returns of every retrain, shape (n_trades, n_retrains)."""
    common = draw(world.shape, 0.0, (size[0], 1), rng)
    own = draw(world.shape, 0.0, size, rng)
    mixed = math.sqrt(world.kinship) * common + math.sqrt(1.0 - world.kinship) * own
    return np.asarray(VOLATILITY * (mixed + world.sharpe))


class _Market:
    """Everything a market's retrains make of their trades, and the gate's word on each."""

    def __init__(
        self, world: World, policy: GatePolicy, starts: Rows, ends: Rows, rng: np.random.Generator
    ) -> None:
        """Retrain k is judged by its trades from starts[k] to ends[k], exclusive."""
        self._world, self._policy = world, policy
        returns = _kin(world, (int(ends[-1]), len(ends)), rng)
        self._returns = [
            returns[start:end, k] for k, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
        self._records = [track_record(trades) for trades in self._returns]
        self._trials = [
            trial_record((start + np.arange(len(trades))) * DAY, trades, record)
            for start, trades, record in zip(starts, self._returns, self._records, strict=True)
        ]

    def judge(self, retrain: int) -> Decision:
        # the count of trials is dear, and who does not pass with the fewest does not with more
        least = self._decide(retrain, TrialCount(retrain + 1, self._fewest, 0.0))
        if least is not Decision.PASS or self._policy.evidence is None:
            return least
        return self._decide(retrain, self._count(retrain))

    def would_pass(self, retrain: int) -> bool:
        """Whether a record as long, of exactly the true Sharpe ratio, normal and independent, passes."""
        bars, levels = len(self._returns[retrain]), self._policy.evidence
        if bars < self._policy.criteria.min_trades or levels is None:
            return bars >= self._policy.criteria.min_trades
        ideal = TrackRecord(self._world.sharpe, 0.0, 3.0, bars, float(bars))
        return bars_to_pass(ideal, self._count(retrain), levels.min_deflated_sharpe) <= bars

    @property
    def _fewest(self) -> float:
        return 1.0 if self._policy.evidence is None else self._policy.evidence.fewest_trials

    def _count(self, retrain: int) -> TrialCount:
        return count_trials(self._trials[: retrain + 1], self._fewest)

    def _decide(self, retrain: int, trials: TrialCount) -> Decision:
        returns, nothing, yearly = self._returns[retrain], np.zeros(0), self._world.trades_per_year
        case = gate.Case(
            metrics=measure(returns, nothing, nothing, returns, yearly),
            activity=ALIVE,
            record=self._records[retrain],
            trials=trials,
            periods_per_year=yearly,
            against=None,
        )
        return gate.judge(case, self._policy).decision


def _share(hits: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Estimate:
    share = float(np.mean(hits))
    return Estimate(share, math.sqrt(max(share * (1.0 - share), 1e-12) / len(hits)))
