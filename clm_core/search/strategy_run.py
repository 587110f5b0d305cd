"""Run of a search for strategies: generations, trials, the front and the look at held-out bars."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.terms import MarketTerms
from clm_core.domain.errors import NothingTuned
from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.progress import Announce
from clm_core.domain.strategy_search import (
    ELITE_SHARE,
    MAX_MEMBERS,
    FoundStrategy,
    GenerationSummary,
    PeriodResult,
    StrategySearch,
    StrategySearchResult,
)
from clm_core.evidence.overfitting import SelectionRisk, selection_risk, shares_below_median
from clm_core.evidence.trials import TrialSketch
from clm_core.evolution.diversity import decorrelated
from clm_core.evolution.nsga2 import ORIGINS, Objectives, SearchGeneration, SearchRules, search
from clm_core.evolution.pareto import Ints, is_measured, standings
from clm_core.evolution.variation import (
    cross_at_single_point,
    cross_by_average,
    cross_uniformly,
    mutate_normally,
    mutate_uniformly,
    select_by_roulette,
    select_by_tournament,
)
from clm_core.ledger.strategy_searches import TrialBatch
from clm_core.market.bars import Bars, Floats
from clm_core.search.evaluator import Interrupted
from clm_core.search.strategy_front import (
    candidate_id,
    deflated_sharpe,
    finite,
    on_front,
    period_result,
    shrinkage,
)
from clm_core.search.strategy_objectives import Measures, StrategyObjectives, rows_of, space_of

SELECTIONS = {Selection.TOURNAMENT: select_by_tournament, Selection.ROULETTE: select_by_roulette}
CROSSOVERS = {
    Crossover.UNIFORM: cross_uniformly,
    Crossover.SINGLE_POINT: cross_at_single_point,
    Crossover.AVERAGE: cross_by_average,
}
MUTATIONS = {Mutation.GAUSSIAN: mutate_normally, Mutation.UNIFORM: mutate_uniformly}
BLOCKS = 12
"""Stretches of the test for overfitting: 924 halves, of which thousands of candidates are ranked in each."""


class Recorder(Protocol):
    """Receives each batch of trials before a score of the batch is used."""

    def record(self, batch: TrialBatch) -> None: ...


@dataclass(frozen=True)
class _FirstSeen:
    """First evaluation of a candidate."""

    generation: int
    origin: int
    place: int
    """Place in the order of all candidates."""


class StrategyRun:
    """A search from generation 0 to the result."""

    def __init__(
        self,
        definition: StrategySearch,
        bars: Bars,
        market: MarketTerms,
        generations: int,
        threads: int,
        recorder: Recorder,
        announce: Announce = lambda step, share: None,
        measures: Measures | None = None,
    ) -> None:
        """
        Args:
            generations: number of generations after generation 0.
            threads: number of threads of this process.
            measures: what measures the new candidates of a generation; None for the threads.

        Raises:
            NotEnoughBars: too few bars for the test sets.
        """
        self._definition = definition
        self._generations = generations
        self._recorder = recorder
        self._announce = announce
        self._periods_per_year = bars.periods_per_year
        self._space = space_of(definition)
        self._searched, self._held_out = rows_of(definition, len(bars))
        self._measures: Callable[..., StrategyObjectives] = lambda rows, **sets: StrategyObjectives(
            definition, market, bars, rows, threads, **sets
        )
        self._objectives = self._measures(self._searched)
        self._new = measures or self._objectives
        self._sketch: TrialSketch | None = None
        self._daily = list[NDArray[np.float32]]()
        self._scores = list[Floats]()
        self._first_seen = dict[bytes, _FirstSeen]()
        self._summaries = list[GenerationSummary]()

    def run(self, interrupted: threading.Event) -> StrategySearchResult:
        """Run to the last generation, or until interrupted.

        Raises:
            NothingTuned: no candidate could be measured.
        """
        founders = self._space.rows(self._space.defaults)
        last: SearchGeneration | None = None
        try:
            for last in search(self._space.genes, self._rules, self._until(interrupted), founders):
                self._note(last)
        except Interrupted:
            return self._result(interrupted=True)
        assert last is not None
        self._announce("Deflating the front", 1.0)
        members = self._leaders(last)
        if not len(members):
            raise NothingTuned(
                f"None of {self._candidates} candidates could be measured: too few trades, or none in "
                "more than a quarter of the test sets. Give more days of bars"
            )
        front, defaults = self._measured_strategies(last.number, last.genes[members], founders)
        return self._result(front, defaults, self._risk(), self._diverse(front, last.genes[members]))

    @cached_property
    def _rules(self) -> SearchRules:
        definition = self._definition
        return SearchRules(
            definition.population,
            self._generations,
            definition.seed,
            select=SELECTIONS[definition.selection],
            cross=CROSSOVERS[definition.crossover],
            mutate=MUTATIONS[definition.mutation],
            elite_share=ELITE_SHARE if len(definition.objectives) == 1 else None,
        )

    def _until(self, interrupted: threading.Event) -> Objectives:
        def objectives(values: Floats) -> Floats:
            if interrupted.is_set():
                raise Interrupted
            return self._count(values)

        return objectives

    def _count(self, values: Floats) -> Floats:
        """Scores of the new candidates of a generation, after the trials were counted."""
        number = len(self._summaries)
        best = self._summaries[-1].best[0] if self._summaries else None
        so_far = "" if best is None else f", best {self._definition.objectives[0].value} {best:.3g}"
        self._announce(
            f"Generation {number} of {self._generations}{so_far}", number / (self._generations + 1)
        )
        measured = self._new.measure(self._space.strategies(values))
        scores = self._objectives.scores(measured, self._definition.objectives)
        sketch = TrialSketch.of(self._objectives.days, measured.daily)
        self._recorder.record(TrialBatch(number, values, scores, sketch))
        self._sketch = sketch if self._sketch is None else TrialSketch.merged([self._sketch, sketch])
        self._daily.append(measured.daily)
        self._scores.append(scores)
        return scores

    def _note(self, generation: SearchGeneration) -> None:
        """Keep the summary of a generation, and the origins of the candidates."""
        for row, origin in zip(generation.new_genes, generation.new_origins, strict=True):
            place = len(self._first_seen)
            self._first_seen[row.tobytes()] = _FirstSeen(generation.number, int(origin), place)
        measured = generation.scores[is_measured(generation.scores)]
        best = measured.max(axis=0).tolist() if len(measured) else [None] * len(self._definition.objectives)
        assert self._sketch is not None
        self._summaries.append(
            GenerationSummary(
                number=generation.number,
                new=len(generation.new_genes),
                front=len(self._leaders(generation)),
                hypervolume=generation.hypervolume,
                best=tuple(best),
                effective_trials=self._sketch.effective,
            )
        )

    def _leaders(self, generation: SearchGeneration) -> Ints:
        """Members of the front by falling first objective; of a single objective, the elite."""
        members = generation.front
        if len(self._definition.objectives) == 1:
            order = np.argsort(-standings(generation.ranks, generation.crowding), kind="stable")
            members = order[: self._rules.elite]
            members = members[is_measured(generation.scores[members])]
        return members[np.argsort(-generation.scores[members, 0], kind="stable")]

    def _measured_strategies(
        self, generation: int, front: Floats, defaults: Floats
    ) -> tuple[tuple[FoundStrategy, ...], tuple[FoundStrategy, ...]]:
        """Results of the front and of the defaults, which are looked at on the held-out bars together.

        Args:
            front, defaults: genes, shape (n, n_genes).
        """
        rows = np.concatenate([front, defaults])
        held_out = self._look_at_held_out(generation, rows)
        leads = on_front(held_out[: len(front)], self._definition.objectives) if held_out else []
        places = self._places(rows)
        scores = np.concatenate(self._scores)[places]
        overfitting = self._overfitting(places)
        strategies = tuple(
            self._described(
                rows[place],
                scores[place],
                overfitting[place],
                held_out[place] if held_out else None,
                leads[place] if place < len(leads) else None,
            )
            for place in range(len(rows))
        )
        return strategies[: len(front)], strategies[len(front) :]

    def _look_at_held_out(self, generation: int, rows: Floats) -> list[PeriodResult]:
        """Results on the held-out bars, after the trials were counted; empty without held-out bars."""
        if self._held_out.stop - self._held_out.start < 2:
            return []
        objectives = self._measures(self._held_out, groups=1, tested=1)
        strategies = self._space.strategies(rows)
        measured = objectives.measure(strategies)
        sketch = TrialSketch.of(objectives.days, measured.daily)
        self._recorder.record(TrialBatch(-generation - 1, rows, measured.metrics[:, 0], sketch))
        return [
            period_result(objectives.backtest(each), self._periods_per_year, is_unseen=True)
            for each in strategies
        ]

    def _described(
        self,
        row: Floats,
        scores: Floats,
        overfitting: float | None,
        held_out: PeriodResult | None,
        leads: bool | None,
    ) -> FoundStrategy:
        [strategy] = self._space.strategies(row[None, :])
        known = self._first_seen[row.tobytes()]
        result = self._objectives.backtest(strategy)
        assert self._sketch is not None
        return FoundStrategy(
            candidate=candidate_id(self._definition, strategy),
            family=strategy.family,
            params=self._definition.fixed | dict(strategy.params),
            origin=ORIGINS[known.origin],
            generation=known.generation,
            scores=dict(zip(self._definition.objectives, map(finite, scores), strict=True)),
            searched=period_result(result, self._periods_per_year),
            deflated_sharpe=deflated_sharpe(result, self._sketch),
            overfitting=overfitting,
            held_out=held_out,
            on_held_out_front=leads,
        )

    def _diverse(self, front: Sequence[FoundStrategy], rows: Floats) -> list[UUID]:
        """Candidates of the front with different returns on the bars of the search."""
        daily = np.concatenate(self._daily)[self._places(rows)]
        merits = [each.deflated_sharpe or 0.0 for each in front]
        return [front[place].candidate for place in decorrelated(daily, merits, MAX_MEMBERS)]

    @property
    def _candidates(self) -> int:
        return sum(map(len, self._daily))

    def _risk(self) -> SelectionRisk:
        """Risk of the choice among all measured candidates of the search."""
        days, candidates = self._returns.shape
        if candidates < 2:
            return SelectionRisk(candidates, days, math.nan, math.nan)
        return selection_risk(self._returns, BLOCKS)

    def _places(self, rows: Floats) -> Ints:
        """Places of evaluated candidates in the order of all candidates, shape (n,)."""
        return np.array([self._first_seen[row.tobytes()].place for row in rows])

    def _overfitting(self, places: Ints) -> list[float | None]:
        """Probability of overfitting of each candidate as the choice; None for candidates not measured."""
        if self._returns.shape[1] < 2:
            return [None] * len(places)
        columns = (np.cumsum(self._measured) - 1)[places]
        shares = shares_below_median(self._returns, columns, BLOCKS)
        return [finite(share) for share in np.where(self._measured[places], shares, np.nan)]

    @property
    def _measured(self) -> NDArray[np.bool_]:
        """True for candidates with scores, shape (n_candidates,)."""
        return is_measured(np.concatenate(self._scores))

    @cached_property
    def _returns(self) -> Floats:
        """Daily returns of the measured candidates, shape (n_days, n_candidates)."""
        return np.asarray(np.concatenate(self._daily)[self._measured].T, np.float64)

    def _result(
        self,
        front: Sequence[FoundStrategy] = (),
        defaults: Sequence[FoundStrategy] = (),
        risk: SelectionRisk | None = None,
        diverse: Sequence[UUID] = (),
        interrupted: bool = False,
    ) -> StrategySearchResult:
        definition = self._definition
        return StrategySearchResult(
            name=definition.name,
            families=definition.families,
            symbol=definition.symbol,
            timeframe=definition.timeframe,
            dataset_span_days=definition.dataset_span_days,
            objectives=definition.objectives,
            interrupted=interrupted,
            generations=tuple(self._summaries),
            candidates=self._candidates,
            unmeasured=sum(int(np.sum(~is_measured(each))) for each in self._scores),
            effective_trials=0.0 if self._sketch is None else self._sketch.effective,
            overfitting=None if risk is None else finite(risk.overfitting),
            loss=None if risk is None else finite(risk.loss),
            selection_days=0 if risk is None else risk.days,
            searched_bars=self._searched.stop - self._searched.start,
            held_out_bars=self._held_out.stop - self._held_out.start,
            front=tuple(front),
            defaults=tuple(defaults),
            diverse=tuple(diverse),
            shrinkage=shrinkage(front),
        )
