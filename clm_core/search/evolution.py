"""An evolution from request to result: candidates are begun, walked forward, counted and recorded."""

import contextlib
import json
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar
from uuid import UUID, uuid5

import numpy as np

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import AlreadyExists, NothingTuned
from clm_core.domain.evolution import Crossover, EvolveRequest, EvolveResult, Generation, Mutation, Selection
from clm_core.domain.searches import Search
from clm_core.domain.trials import TrialSource
from clm_core.domain.tuning import Unseen
from clm_core.evolution.generations import Population, Proposal, Rules, evolve
from clm_core.evolution.genome import Genome, default_genome, params_of
from clm_core.market.bars import Bars, Floats
from clm_core.search.evaluator import Counting, TrialRun
from clm_core.search.folds import FoldPlan, SharedInputs, held_out, seen_folds, unseen_folds
from clm_core.search.tuning import (
    MOST_TRIES,
    PAUSE_SECONDS,
    bars_of,
    contradiction,
    deferred_interrupt,
    definition,
    open_space,
)
from clm_core.search.workers import Failure, Workers, local_workers
from clm_core.services import Services

Key = TypeVar("Key")
NAMESPACE = UUID("0f6d2c9b-7a0e-4a37-8f0d-5f2b8c1e9a44")
COMPARABLE = {
    "name",
    "model_type",
    "plugin",
    "symbol",
    "timeframe",
    "dataset_span_days",
    "data_snapshot",
    "holdout",
    "seed",
    "seeds",
    "plan",
    "costs",
    "execution",
}
"""What a candidate's fitness depends on besides its parameters: of others it is another candidate."""


class Evolution(Search):
    """An evolution as it was asked for."""

    population: int
    generations: int
    selection: Selection
    crossover: Crossover
    mutation: Mutation

    @property
    def rules(self) -> Rules:
        return Rules(
            self.population, self.generations, self.selection, self.crossover, self.mutation, self.seed
        )

    def params(self, genome: Genome) -> dict[str, Any]:
        """Fixed and evolved."""
        return self.fixed | params_of(self.space, genome)

    def differing(self, genome: Genome) -> dict[str, Any]:
        """As `params`, but none that is evolved and has its default."""
        defaults = params_of(self.space, default_genome(self.space))
        evolved = params_of(self.space, genome).items()
        return self.fixed | {name: value for name, value in evolved if value != defaults[name]}

    def id_of(self, genome: Genome) -> UUID:
        """Of the candidate: the same however often it is proposed, and whenever."""
        facts = self.model_dump(mode="json", include=COMPARABLE) | {"params": self.params(genome)}
        return uuid5(NAMESPACE, json.dumps(facts, sort_keys=True))


class Interrupted(Exception):
    """By Ctrl-C: what is recorded stays."""


def open_evolution(services: Services, request: EvolveRequest) -> Evolution:
    """
    Raises:
        NotEnoughBars: too few for the walk-forward of a candidate.
        UnknownSeries: no source has these bars.
    """
    now = services.clock()
    fixed, space = open_space(request, services.settings.costs)
    evolution = Evolution(
        **definition(services, request),
        name=request.name or f"{request.model_id}_{now:%Y%m%d_%H%M%S}",
        fixed=fixed,
        space=space,
        population=request.population,
        generations=request.generations,
        selection=request.selection,
        crossover=request.crossover,
        mutation=request.mutation,
        created_at=now,
    )
    seen_folds(len(bars_of(services, evolution)), evolution)
    return evolution


def search(services: Services, evolution: Evolution, workers: int | None) -> EvolveResult:
    """Generation after generation, until the last one or Ctrl-C.

    Raises:
        NothingTuned: not one candidate could be measured.
    """
    bars = bars_of(services, evolution)
    work = SharedInputs(evolution.kind, evolution.costs, bars)
    with local_workers(workers or os.cpu_count() or 1, work) as processes:
        return search_with(processes, services, evolution, bars)


def search_with(workers: Workers, services: Services, evolution: Evolution, bars: Bars) -> EvolveResult:
    """As `search`, by these workers."""
    populations, unseen, interrupted = list[Population](), None, False
    with deferred_interrupt() as stopped:
        measuring = _Measuring(services, evolution, workers, bars, stopped)
        try:
            for population in evolve(evolution.space, evolution.rules, measuring):
                populations.append(population)
                measuring.tell(population)
            unseen = measuring.look_at_unseen(_require_measured(populations, measuring.failed))
        except Interrupted:
            interrupted = True
    return _result(evolution, measuring, populations, unseen, interrupted)


class _Measuring:
    """Measures what a generation proposes, counts and records it: the objective of an evolution."""

    def __init__(
        self, services: Services, evolution: Evolution, workers: Workers, bars: Bars, stopped: threading.Event
    ) -> None:
        self._services, self._evolution, self._workers, self._bars = services, evolution, workers, bars
        self._stopped, self._so_far = stopped, ""
        self._counting = Counting(services, evolution, bars, TrialSource.EVOLUTION)
        self._course = seen_folds(len(bars), evolution)
        self.candidates = dict[Genome, StrategyCandidate]()
        self.found = 0
        """Candidates that were recorded already, by the evolution that goes on."""
        self.failed = list[str]()
        """Why candidates could not be measured."""

    def __call__(self, number: int, proposals: Sequence[Proposal]) -> list[float | None]:
        known = self._known(proposals)
        self._announce(number, len(known), len(proposals))
        possible = [each for each in proposals if each.genome not in known and self._is_possible(each)]
        walks = {each: self._walk(each.genome, self._course) for each in possible}
        for done, (proposal, walk) in enumerate(self._walked(walks), len(proposals) - len(walks) + 1):
            self._record(proposal, self._fitness(walk))
            self._announce(number, done, len(proposals))
        return [self.candidates[each.genome].fitness_score for each in proposals]

    def tell(self, population: Population) -> None:
        """With what is announced from now on."""
        told = summarised(population)
        if told.best is not None:
            self._so_far = f", best {told.best:.2f}, mean {told.mean:.2f}"

    def look_at_unseen(self, best: Genome) -> Unseen | None:
        """Try the best candidate and the defaults on the bars held out, once, each counted as trials."""
        if not (held := held_out(len(self._bars), self._evolution)):
            return None
        self._services.announce("Looking at the unseen bars", 1.0)
        course, defaults = (
            unseen_folds(len(self._bars), self._evolution),
            default_genome(self._evolution.space),
        )
        walks = {genome: self._walk(genome, course, "unseen/") for genome in (best, defaults)}
        measured = {genome: self._fitness(walk) for genome, walk in self._walked(walks)}
        return Unseen(bars=held, best=measured[best], defaults=measured[defaults])

    def _known(self, proposals: Sequence[Proposal]) -> set[Genome]:
        """Those that are recorded already, measured or found to be immeasurable."""
        genomes = {self._evolution.id_of(each.genome): each.genome for each in proposals}
        recorded = self._services.ledger.candidates.known(genomes.keys())
        self.candidates |= {genomes[each]: candidate for each, candidate in recorded.items()}
        self.found += len(recorded)
        return {genomes[each] for each in recorded}

    def _is_possible(self, proposal: Proposal) -> bool:
        """False: its parameters contradict each other. Nothing is looked at, so there is nothing to count."""
        problem = contradiction(self._evolution, self._evolution.params(proposal.genome))
        if problem is not None:
            self.failed.append(problem)
            self._record(proposal, None)
        return problem is None

    def _walk(self, genome: Genome, course: FoldPlan, what: str = "") -> TrialRun:
        of = self._evolution.id_of(genome)
        ids = tuple(uuid5(of, f"{what}seed{number}") for number in range(self._evolution.seeds))
        return TrialRun(self._evolution.params(genome), course, self._evolution.seed, ids)

    def _walked(self, walks: Mapping[Key, TrialRun]) -> Iterator[tuple[Key, TrialRun]]:
        """Each as it ends, counted; one that is not done has failed.

        Raises:
            Interrupted: by Ctrl-C.
        """
        waiting, under_way = deque(walks), dict[Future[Floats], Key]()
        while waiting or under_way:
            while waiting and len(under_way) < self._workers.count:
                key = waiting.popleft()
                self._counting.begin(walks[key])
                under_way[self._workers.submit(walks[key].next())] = key
            for future in wait(under_way, PAUSE_SECONDS, FIRST_COMPLETED).done:
                key = under_way.pop(future)
                if self._has_ended(walks[key], self._workers.result(future)):
                    self._counting.count(walks[key])
                    yield key, walks[key]
                else:
                    waiting.appendleft(key)
            if self._stopped.is_set():
                raise Interrupted

    def _has_ended(self, walk: TrialRun, outcome: Floats | Failure) -> bool:
        if not isinstance(outcome, Failure):
            walk.add(outcome)
            return walk.is_done
        walk.tries += 1
        if outcome.lost and walk.tries <= MOST_TRIES:
            return False
        self.failed.append(outcome.cause)
        return True

    def _fitness(self, walk: TrialRun) -> float | None:
        """Annualised Sharpe ratio, the mean of all seeds; None: it could not be measured."""
        if not walk.is_done:
            return None
        ratio = float(np.mean(self._counting.sharpe_ratios(self._counting.tested(walk))))
        return ratio if math.isfinite(ratio) else None

    def _record(self, proposal: Proposal, fitness: float | None) -> None:
        evolution, genome = self._evolution, proposal.genome
        candidate = StrategyCandidate(
            id=evolution.id_of(genome),
            base_strategy=evolution.model_id,
            model_type=evolution.model_type,
            plugin=evolution.plugin,
            symbol=evolution.symbol,
            timeframe=evolution.timeframe,
            params=evolution.differing(genome),
            origin=proposal.origin,
            parents=tuple(map(evolution.id_of, proposal.parents)),
            fitness_score=fitness,
            created_at=self._services.clock(),
        )
        # another command that works on the same evolution has measured the same
        with contextlib.suppress(AlreadyExists):
            self._services.ledger.candidates.add(candidate)
        self.candidates[genome] = candidate

    def _announce(self, number: int, done: int, proposed: int) -> None:
        generations = self._evolution.generations
        share = (number + done / max(1, proposed)) / (generations + 1)
        self._services.announce(
            f"Generation {number} of {generations}: {done} of {proposed}{self._so_far}", share
        )


def summarised(population: Population) -> Generation:
    fitness = [member.fitness for member in population.members if member.fitness is not None]
    return Generation(
        number=population.number,
        new=population.new,
        best=max(fitness) if fitness else None,
        mean=float(np.mean(fitness)) if fitness else None,
    )


def _require_measured(populations: Sequence[Population], failed: Sequence[str]) -> Genome:
    """The best genome."""
    best = populations[-1].members[0]
    if best.fitness is None:
        tried = sum(population.new for population in populations)
        why = f"the first failed of {failed[0]}" if failed else "their returns could not be measured"
        raise NothingTuned(f"None of {tried} candidates could be measured: {why}")
    return best.genome


def _result(
    evolution: Evolution,
    measuring: _Measuring,
    populations: Sequence[Population],
    unseen: Unseen | None,
    interrupted: bool,
) -> EvolveResult:
    tried, defaults = measuring.candidates, default_genome(evolution.space)
    # the best one is kept from generation to generation
    best = populations[-1].members[0].genome if populations else None
    return EvolveResult(
        name=evolution.name,
        model_type=evolution.model_type,
        plugin=evolution.plugin,
        symbol=evolution.symbol,
        timeframe=evolution.timeframe,
        dataset_span_days=evolution.dataset_span_days,
        interrupted=interrupted,
        generations=tuple(map(summarised, populations)),
        candidates=len(tried),
        unmeasured=sum(each.fitness_score is None for each in tried.values()),
        found=measuring.found,
        best=None if best is None else tried[best],
        best_params={} if best is None else evolution.params(best),
        defaults=tried.get(defaults),
        default_params=evolution.params(defaults),
        unseen=unseen,
    )
