"""Gate simulation: retrains with a known edge on a simulated market, judged by the gate.

A retrain has a side for every trade of a `simulated_market`. In years without an edge every retrain is
another recipe, tested on a window up to the day of the retrain; beside them one recipe is refreshed at every
retrain. A stream with an edge is one recipe, whose record begins with the window of the first retrain and
grows, each bar once: the trades after a retrain are those of the version registered then.

The gate receives the same inputs as for a real version, by the functions of the product: positions after
sizing, their backtest after costs under the execution of new versions, metrics, activity, track record, the
returns of the trades, timing, alpha on the three baselines of the simulated market, and all trials so far.
Left out is what no market of returns has: the registered bundle and its skill, a search behind the
parameters, and a production version to be compared with or replaced.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.baselines import run_baselines
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, Metrics
from clm_core.decisions import gate
from clm_core.decisions.cases import BaselineAlpha, Case
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.decisions.simulated_market import (
    Sides,
    SimulatedMarket,
    World,
    baseline_sizes,
    draw_sides,
    look_back,
    planted_edge,
    simulate_market,
)
from clm_core.decisions.timing_evidence import alpha_beyond_baselines, timing_of_positions
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.evidence.regression import JointAlpha
from clm_core.evidence.soundness import activity
from clm_core.evidence.track_record import (
    TrackRecord,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    track_record,
)
from clm_core.evidence.trials import TrialCount, TrialRecord, bars_to_pass, effective_counts, trial_record
from clm_core.market.bars import Floats
from clm_core.market.splits import Rows

YARDSTICKS = 5
"""Streams whose trials are counted for the minimum track record; the counts hardly differ."""
CERTAIN_ALPHA = BaselineAlpha(JointAlpha(1.0, 0.0))


@dataclass(frozen=True)
class Estimate:
    """A share or mean with the Monte-Carlo standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {self.error:.1%}"


UNKNOWN = Estimate(math.nan, math.nan)


@dataclass(frozen=True)
class Realised:
    """Results of the first record of each stream, as traded; means over the streams."""

    sharpe_ratio: Estimate
    """Annual Sharpe ratio, net of costs."""
    volatility: float
    """Yearly volatility, a fraction."""
    win_rate: float
    payoff_ratio: float
    """Mean gain over mean loss of a trade."""
    trades_per_year: float
    turnover: float
    """Traded value over equity per year."""


@dataclass(frozen=True)
class SimulatedYears:
    """Simulated years of retrains, each retrain another recipe."""

    promoted: Estimate
    """Share of the years with at least one pass."""
    promotions: float
    """Mean number of passing versions a year."""
    realised: Realised


@dataclass(frozen=True)
class SimulatedWaits:
    """Simulated streams, each the growing record of a recipe, judged at every retrain."""

    promoted: Estimate
    """Share of the streams with a pass before the end."""
    promoted_at_once: Estimate
    """Share of the streams with a pass at the first retrain."""
    median_years: float
    """Median length of the record at the first pass; inf if less than half of the streams pass."""
    minimum_years: float
    """Minimum track record length: length at which a record of exactly the true Sharpe ratio passes; inf if
    not before the end."""
    textbook_years: float
    """Minimum track record length of Bailey & Lopez de Prado (2012) against zero at the policy's confidence,
    for a single trial; inf without a Sharpe ratio above 0."""
    in_time: Estimate
    """Share of the streams with a pass within a record of twice `minimum_years`; NaN if the streams are
    shorter."""
    years: tuple[float, ...]
    """Length of the record of each stream at the first pass, ascending; inf without a pass."""
    realised: Realised


Progress = Callable[[float], None]


def simulate_years(
    world: World, policy: GatePolicy, years: int, rng: np.random.Generator, progress: Progress | None = None
) -> SimulatedYears:
    """Promotions in years of retrains; the count of trials starts anew with each year."""
    passed = np.empty(years)
    first = []
    for year in range(years):
        retrains = other_recipes(world, policy, rng)
        passed[year] = sum(retrains.passes(number) for number in range(len(retrains)))
        first.append(retrains.metrics(0))
        if progress:
            progress((year + 1) / years)
    return SimulatedYears(_share(passed > 0), float(passed.mean()), _realised(first, world))


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
        longest_years: years from the first retrain to the end of the streams; at 0 only the first retrain is
            judged.
    """
    waited = np.empty(streams)
    needed = []
    first = []
    for stream in range(streams):
        retrains = one_recipe(world, policy, longest_years, rng)
        numbers = range(len(retrains))
        passing = next((number for number in numbers if retrains.passes(number)), math.inf)
        waited[stream] = _years(world, passing)
        first.append(retrains.metrics(0))
        if stream < YARDSTICKS:
            # most records are long enough at the first retrain, where no trial has to be counted
            number = (
                0 if retrains.would_pass(0) else bisect_left(numbers, True, lo=1, key=retrains.would_pass)
            )
            needed.append(_years(world, number) if number < len(retrains) else math.inf)
        if progress:
            progress((stream + 1) / streams)
    minimum = float(np.median(needed))
    is_covered = 2.0 * minimum <= world.record_years + longest_years
    return SimulatedWaits(
        promoted=_share(np.isfinite(waited)),
        promoted_at_once=_share(waited <= world.record_years),
        median_years=float(np.median(waited)),
        minimum_years=minimum,
        textbook_years=textbook_years(world, policy),
        in_time=_share(waited <= 2.0 * minimum) if is_covered else UNKNOWN,
        years=tuple(np.sort(waited).tolist()),
        realised=_realised(first, world),
    )


def textbook_years(world: World, policy: GatePolicy) -> float:
    """Minimum track record length against zero for one trial, normal and independent returns; NaN without
    evidence."""
    if policy.evidence is None:
        return math.nan
    level = policy.evidence.min_deflated_sharpe
    return minimum_track_record_length(_ideal(world, 10**6), level) / world.bars_per_year


def _ideal(world: World, bars: int) -> TrackRecord:
    """Record of normal, independent returns with exactly the true Sharpe ratio."""
    sharpe = world.annual_sharpe / math.sqrt(world.bars_per_year)
    return TrackRecord(sharpe, 0.0, 3.0, bars, float(bars))


def _years(world: World, retrain: float) -> float:
    """Length of the record at a retrain, from 0; inf for no retrain."""
    return world.record_years + retrain / world.retrains_per_year


def other_recipes(world: World, policy: GatePolicy, rng: np.random.Generator) -> "Retrains":
    """A year of retrains, each another recipe on a window of its own."""
    length = round(world.record_years * world.bars_per_year)
    ends = look_back(world) + length + _retrain_bars(world, 1.0)
    market = simulate_market(world, int(ends[-1]), planted_edge(world), rng)
    sides = draw_sides(world, market.hidden.sides, len(ends), rng)
    return Retrains(world, policy, market, sides, ends - length, ends, np.zeros_like(ends))


def one_recipe(world: World, policy: GatePolicy, years: float, rng: np.random.Generator) -> "Retrains":
    """A recipe on the hidden sides, refreshed at every retrain, with one growing record."""
    same = replace(world, retrain_correlation=1.0)
    first = look_back(world)
    length = round(world.record_years * world.bars_per_year)
    ends = first + length + np.append(0, _retrain_bars(world, years))
    market = simulate_market(same, int(ends[-1]), planted_edge(same), rng)
    starts = np.full_like(ends, first)
    return Retrains(world, policy, market, market.hidden.sides[None], starts, ends, ends - first - length)


def _retrain_bars(world: World, years: float) -> Rows:
    """Number of bars up to each retrain, shape (n_retrains,)."""
    count = round(years * world.retrains_per_year)
    return np.ceil(np.arange(1, count + 1) * world.bars_per_year / world.retrains_per_year).astype(np.int64)


class Retrains:
    """All retrains of a simulated market, and the gate's decision on each."""

    def __init__(
        self,
        world: World,
        policy: GatePolicy,
        market: SimulatedMarket,
        sides: Sides,
        starts: Rows,
        ends: Rows,
        forward: Rows,
    ) -> None:
        """
        Args:
            sides: sides of each retrain, shape (n_retrains, n_trades), or (1, n_trades) of one recipe.
            starts, ends: first row that each retrain is judged by, and the row after the last, shape
                (n_retrains,).
            forward: number of bars after the first window of the recipe, shape (n_retrains,).
        """
        self._world = world
        self._policy = policy
        self._market = market
        self._sides = sides
        self._starts = starts
        self._ends = ends
        self._forward = forward
        self._trials: list[TrialRecord] = []
        self._counts = np.empty(0)

    def __len__(self) -> int:
        return len(self._ends)

    def metrics(self, retrain: int) -> Metrics:
        return self._measured(self._backtest(retrain))

    def verdict(self, retrain: int) -> Verdict:
        """The gate's verdict on a retrain, with every input measured."""
        result = self._backtest(retrain)
        record = track_record(result.returns)
        case = self._case(retrain, result, self._measured(result), record)
        case = replace(case, trade_returns=result.trade_returns)
        return gate.judge(self._completed(case, retrain, result), self._policy)

    def passes(self, retrain: int) -> bool:
        """True if the verdict is PASS.

        The cheap inputs come first. Each step leaves out a case that fails with any values of the inputs to
        come, and what is left after the last step is judged by the gate with every input measured.
        """
        result = self._backtest(retrain)
        metrics = self._measured(result)
        if not self._may_pass(retrain, metrics, len(result.returns)):
            return False
        record = track_record(result.returns)
        if not self._is_shown(retrain, record):
            return False
        # timing and alpha presumed at their best
        case = self._case(retrain, result, metrics, record)
        presumed = gate.judge(case, self._policy).decision
        if presumed is not Decision.PASS or self._policy.evidence is None:
            return presumed is Decision.PASS
        complete = self._completed(case, retrain, result)
        return gate.judge(complete, self._policy).decision is Decision.PASS

    def _completed(self, case: Case, retrain: int, result: Backtest) -> Case:
        """The case with timing, alpha and the number of trials measured."""
        return replace(
            case,
            timing=self._timing(retrain),
            alpha=self._alpha(retrain, result),
            trials=self._count(retrain, case.record),
        )

    def _may_pass(self, retrain: int, metrics: Metrics, bars: int) -> bool:
        """False for a Sharpe ratio that refuses whatever the rest: below the threshold, or below what the
        most favourable moments show."""
        # Written as `not (>=)` so that a NaN refuses.
        if not metrics.sharpe_ratio >= self._policy.criteria.min_sharpe_ratio:
            return False
        # independent bars of the least kurtosis show a Sharpe ratio most surely; the factor is for rounding
        sharpe = (1.0 + 1e-9) * metrics.sharpe_ratio / math.sqrt(self._world.bars_per_year)
        return self._is_shown(retrain, TrackRecord(sharpe, 0.0, 1.0, bars, float(bars)))

    def _is_shown(self, retrain: int, record: TrackRecord) -> bool:
        """True if the record reaches the policy's deflated Sharpe ratio with the fewest trials possible."""
        levels = self._policy.evidence
        if levels is None:
            return True
        trials = self._counted(retrain, record, self._policy.fewest_trials)
        luck = trials.expected_maximum(record.effective_bars)
        return probabilistic_sharpe_ratio(record, luck) >= levels.min_deflated_sharpe

    def would_pass(self, retrain: int) -> bool:
        """True if a normal, independent record of the same length and the true Sharpe ratio passes."""
        bars = int(self._ends[retrain] - self._starts[retrain])
        levels = self._policy.evidence
        trades = bars / self._world.bars_per_year * self._world.trades_per_year
        if trades < self._policy.criteria.min_trades or levels is None:
            return trades >= self._policy.criteria.min_trades
        ideal = _ideal(self._world, bars)
        min_trials = self._counted(retrain, ideal, self._policy.fewest_trials)
        if bars_to_pass(ideal, min_trials, levels.min_deflated_sharpe) > bars:
            return False
        return bars_to_pass(ideal, self._count(retrain, ideal), levels.min_deflated_sharpe) <= bars

    def _rows(self, retrain: int) -> slice:
        return slice(int(self._starts[retrain]), int(self._ends[retrain]))

    def _positions(self, retrain: int) -> Floats:
        return self._market.positions(self._sides[min(retrain, len(self._sides) - 1)], self._rows(retrain))

    def _backtest(self, retrain: int) -> Backtest:
        bars = self._market.bars[self._rows(retrain)]
        return self._market.terms.backtest(bars, self._positions(retrain))

    def _measured(self, result: Backtest) -> Metrics:
        return summarise(result, self._world.bars_per_year)

    def _case(self, retrain: int, result: Backtest, metrics: Metrics, record: TrackRecord) -> Case:
        """Case with timing, alpha and the number of trials presumed at their best."""
        criteria = self._policy.criteria
        payoff_holds = (
            metrics.win_rate >= criteria.min_win_rate and metrics.profit_factor >= criteria.min_profit_factor
        )
        return Case(
            metrics=metrics,
            activity=activity(self._positions(retrain)),
            record=record,
            trials=self._counted(retrain, record, self._policy.fewest_trials),
            periods_per_year=self._world.bars_per_year,
            comparison=None,
            returns=result.returns,
            # resampling is costly, and decides nothing where both limits hold
            trade_returns=None if payoff_holds else result.trade_returns,
            timing=1.0,
            alpha=CERTAIN_ALPHA,
        )

    def _timing(self, retrain: int) -> float:
        bars = self._market.bars[self._rows(retrain)]
        return timing_of_positions(bars.time, [(self._market.terms, bars, self._positions(retrain))])

    def _alpha(self, retrain: int, result: Backtest) -> BaselineAlpha:
        rows = self._rows(retrain)
        known = self._market.bars[: rows.stop]
        baselines = run_baselines(self._market.terms, known, rows, baseline_sizes)
        return alpha_beyond_baselines(known.time[rows], result.returns, baselines)

    def _count(self, retrain: int, record: TrackRecord) -> TrialCount:
        """Count of the trials up to a retrain."""
        # as many trials count at most
        if retrain + 1 <= self._policy.fewest_trials:
            return self._counted(retrain, record, self._policy.fewest_trials)
        for earlier in range(len(self._trials), retrain + 1):
            self._trials.append(self._trial(earlier))
        if len(self._counts) <= retrain:
            self._counts = effective_counts(self._trials)
        return self._counted(retrain, record, max(float(self._counts[retrain]), self._policy.fewest_trials))

    def _trial(self, retrain: int) -> TrialRecord:
        returns = self._backtest(retrain).returns
        return trial_record(self._market.bars.time[self._rows(retrain)], returns, track_record(returns))

    def _counted(self, retrain: int, record: TrackRecord, effective: float) -> TrialCount:
        share = self._forward[retrain] / (self._ends[retrain] - self._starts[retrain])
        forward = record.effective_bars * float(share) if record.measured else 0.0
        return TrialCount(retrain + 1, effective, forward_bars=forward)


def _realised(streams: Sequence[Metrics], world: World) -> Realised:
    sharpes = np.array([each.sharpe_ratio for each in streams])
    win_rate = float(np.mean([each.win_rate for each in streams]))
    factor = float(np.mean([each.profit_factor for each in streams]))
    trades = float(np.mean([each.trades for each in streams]))
    deviation = float(sharpes.std(ddof=1)) if len(sharpes) > 1 else math.nan
    return Realised(
        sharpe_ratio=Estimate(float(sharpes.mean()), deviation / math.sqrt(len(sharpes))),
        volatility=float(np.mean([each.volatility for each in streams])),
        win_rate=win_rate,
        payoff_ratio=factor * (1.0 - win_rate) / win_rate,
        trades_per_year=trades / world.record_years,
        turnover=float(np.mean([each.turnover for each in streams])),
    )


def _share(hits: NDArray[np.bool_]) -> Estimate:
    share = float(np.mean(hits))
    return Estimate(share, math.sqrt(max(share * (1.0 - share), 1e-12) / len(hits)))
