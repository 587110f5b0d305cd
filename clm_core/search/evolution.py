"""Evolution: generations of candidates, which the evaluator computes and counts."""

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import AlreadyExists, NothingTuned
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.evolution import (
    MAX_RANKED,
    Crossover,
    EvolveRequest,
    EvolveResult,
    Generation,
    Mutation,
    Selection,
)
from clm_core.domain.execution import NEW_VERSIONS, ExecutionRules
from clm_core.domain.progress import Announce
from clm_core.domain.search_space import SearchDimension
from clm_core.domain.searches import HeldOutSharpe, Placement, Search
from clm_core.domain.trials import TrialSource
from clm_core.evolution.generations import Population, Proposal, Rules, evolve
from clm_core.evolution.genome import Genome, default_genome, params_of
from clm_core.ledger.candidates import CandidateStore
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.search.engines import open_workers, require_engine
from clm_core.search.evaluator import Evaluator, Interrupted, RunQueue, open_evaluator
from clm_core.search.folds import SharedInputs, search_folds
from clm_core.search.request import (
    checked_features,
    contradiction,
    parameter_space,
    search_bars,
    search_fields,
)
from clm_core.search.runs import TrialRun
from clm_core.search.workers import Workers
from clm_core.services import Services

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
"""Fields besides the parameters that the fitness depends on; part of a candidate's identity."""

LATER_TERMS = {"holding", "long_only", "adjusted", "funding_hash", "dividends_hash", "series", "own_features"}
"""Terms of trading, own series and features that the fitness depends on, unknown to release 0.1.0."""


class Evolution(Search):
    """An evolution as requested."""

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
        """Fixed and evolved parameters."""
        return self.fixed | params_of(self.space, genome)

    def differing(self, genome: Genome) -> dict[str, Any]:
        """Fixed parameters, and evolved parameters that differ from the defaults.

        A marker is kept at its default, too: parameters without the marker are those of an older release.
        """
        defaults = params_of(self.space, default_genome(self.space))
        markers = catalog.markers(self.model_type, self.plugin)
        evolved = params_of(self.space, genome).items()
        kept = {name: value for name, value in evolved if value != defaults[name] or name in markers}
        return self.fixed | kept

    def id_of(self, genome: Genome) -> UUID:
        """Id of a candidate: the same however often, and whenever, the candidate is proposed."""
        facts = self.model_dump(mode="json", include=COMPARABLE) | {"params": self.params(genome)}
        # left out at the defaults, so that candidates recorded without the fields keep the identity
        facts |= self.model_dump(mode="json", include=LATER_TERMS, exclude_defaults=True)
        return uuid5(NAMESPACE, json.dumps(facts, sort_keys=True))


def check(
    request: EvolveRequest, execution: ExecutionRules = NEW_VERSIONS
) -> tuple[dict[str, Any], dict[str, SearchDimension]]:
    """The fixed and the evolved parameters, after a check of the required libraries; loads no data.

    Raises:
        InvalidTrainingParams: a fixed parameter is unknown or out of range, or every parameter is fixed.
        MissingExtra: Ray, or the model's library, is not installed.
        ModelError: the kind of model has no implementation, or nothing to search.
    """
    fixed, space = parameter_space(request, execution)
    require_engine(request.placement)
    return fixed, space


def open_evolution(services: Services, request: EvolveRequest) -> Evolution:
    """The requested evolution; nothing is computed yet.

    Raises:
        InvalidTrainingParams: a fixed parameter is unknown or out of range, or every parameter is fixed.
        MissingExtra: Ray, or the model's library, is not installed.
        NotEnoughBars: too few for the walk-forward of a candidate.
        UnknownSeries: no source has the bars.
    """
    now = services.clock()
    fixed, space = check(request, services.settings.execution.rules)
    evolution = Evolution(
        **search_fields(request, fixed, services),
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
    search_folds(len(search_bars(services.market, evolution)), evolution)
    return evolution


def search(services: Services, evolution: Evolution, placement: Placement) -> EvolveResult:
    """Evaluate generation after generation, until the last generation or Ctrl-C.

    Raises:
        MissingExtra: Ray is requested and not installed.
        NothingTuned: no candidate could be measured.
        ServerUnavailable: Ray is requested and does not answer.
    """
    bars = search_bars(services.market, evolution)
    features = checked_features(evolution, bars)
    shared_inputs = SharedInputs(evolution.kind, evolution.market_costs, bars, features)
    with open_workers(placement, shared_inputs) as workers:
        return search_with(workers, services, evolution, bars)


def search_with(workers: Workers, services: Services, evolution: Evolution, bars: Bars) -> EvolveResult:
    """Same as `search`, on the given workers."""
    populations = list[Population]()
    unseen: HeldOutSharpe | None = None
    interrupted = False
    ledger = services.ledger
    clock = services.clock
    market = services.recorded_terms(evolution.symbol, evolution.terms)
    with open_evaluator(
        workers, evolution, bars, market, TrialSource.EVOLUTION, ledger.trials, clock
    ) as evaluator:
        objective = _Objective(evolution, evaluator, ledger.candidates, clock, services.announce)
        try:
            for population in evolve(evolution.space, evolution.rules, objective):
                populations.append(population)
                objective.note_best(population)
            unseen = objective.look_at_held_out(_require_measured(populations, objective.failures))
        except Interrupted:
            interrupted = True
    return _result(evolution, objective, populations, unseen, interrupted)


class _Objective:
    """Objective of an evolution: measures the proposals of a generation and records them as candidates."""

    def __init__(
        self,
        evolution: Evolution,
        evaluator: Evaluator,
        store: CandidateStore,
        clock: Callable[[], datetime],
        announce: Announce,
    ) -> None:
        self._evolution = evolution
        self._evaluator = evaluator
        self._store = store
        self._clock = clock
        self._announce = announce
        self._best_so_far = ""
        self.candidates = dict[Genome, StrategyCandidate]()
        self.already_recorded = 0
        """Candidates recorded by an earlier command of the same evolution."""
        self.failures = list[str]()
        """Errors of the candidates that could not be measured, and reasons against degenerate candidates."""
        self.degenerate = 0
        """Candidates that were measured and are not ranked."""

    def __call__(self, number: int, proposals: Sequence[Proposal]) -> list[float | None]:
        recorded = self._load_recorded(proposals)
        self._report_progress(number, len(recorded), len(proposals))
        new = [each for each in proposals if each.genome not in recorded and self._is_possible(each)]
        proposed = {self._run(each.genome): each for each in new}
        ended_runs = self._evaluator.evaluate(RunQueue(proposed))
        for done, run in enumerate(ended_runs, len(proposals) - len(new) + 1):
            if run.failure is not None:
                self.failures.append(run.failure)
            fitness = self._fitness(run)
            interval = self._interval(run) if fitness is not None else None
            self._record(proposed[run], fitness, interval)
            self._report_progress(number, done, len(proposals))
        return [self.candidates[each.genome].fitness_score for each in proposals]

    def _fitness(self, run: TrialRun) -> float | None:
        """Sharpe ratio; None for a run that could not be measured or is degenerate."""
        fitness = self._evaluator.completed_sharpe(run)
        degenerate = None if fitness is None else self._evaluator.degeneracy(run)
        if degenerate is None:
            return fitness
        self.degenerate += 1
        self.failures.append(degenerate)
        return None

    def _interval(self, run: TrialRun) -> IntervalEstimate | None:
        return self._evaluator.sharpe_interval(self._evaluator.backtests(run))

    def note_best(self, population: Population) -> None:
        """Add a generation's fitness to the progress reported from now on."""
        generation = summarised(population)
        if generation.best is not None:
            self._best_so_far = f", best {generation.best:.2f}, mean {generation.mean:.2f}"

    def look_at_held_out(self, best: Genome) -> HeldOutSharpe | None:
        """Evaluate the best candidate and the defaults on the held-out bars, counted as trials."""
        if not self._evaluator.held_out_bars:
            return None
        self._announce("Evaluating on the held-out bars", 1.0)
        defaults = default_genome(self._evolution.space)
        return self._evaluator.look_at_held_out(self._held_out_run(best), self._held_out_run(defaults))

    def _load_recorded(self, proposals: Sequence[Proposal]) -> set[Genome]:
        """Genomes recorded already, as measured or as not measurable."""
        genomes = {self._evolution.id_of(each.genome): each.genome for each in proposals}
        recorded = self._store.known(genomes.keys())
        self.candidates |= {genomes[each]: candidate for each, candidate in recorded.items()}
        self.already_recorded += len(recorded)
        return {genomes[each] for each in recorded}

    def _is_possible(self, proposal: Proposal) -> bool:
        """False if the parameters contradict each other: no bar is evaluated, and no trial counted."""
        problem = contradiction(self._evolution, self._evolution.params(proposal.genome))
        if problem is not None:
            self.failures.append(problem)
            self._record(proposal, None)
        return problem is None

    def _run(self, genome: Genome) -> TrialRun:
        return self._evaluator.run(self._evolution.params(genome), self._ids(genome, "seed"))

    def _held_out_run(self, genome: Genome) -> TrialRun:
        return self._evaluator.held_out_run(self._evolution.params(genome), self._ids(genome, "unseen/seed"))

    def _ids(self, genome: Genome, prefix: str) -> tuple[UUID, ...]:
        candidate_id = self._evolution.id_of(genome)
        return tuple(uuid5(candidate_id, f"{prefix}{number}") for number in range(self._evolution.seeds))

    def _record(
        self, proposal: Proposal, fitness: float | None, interval: IntervalEstimate | None = None
    ) -> None:
        evolution = self._evolution
        genome = proposal.genome
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
            fitness_low=None if interval is None else interval.low,
            fitness_high=None if interval is None else interval.high,
            created_at=self._clock(),
        )
        # another command that works on the same evolution has measured the same
        with contextlib.suppress(AlreadyExists):
            self._store.add(candidate)
        self.candidates[genome] = candidate

    def _report_progress(self, number: int, done: int, proposed: int) -> None:
        generations = self._evolution.generations
        share = (number + done / max(1, proposed)) / (generations + 1)
        self._announce(
            f"Generation {number} of {generations}: {done} of {proposed}{self._best_so_far}", share
        )


def summarised(population: Population) -> Generation:
    fitness = [member.fitness for member in population.members if member.fitness is not None]
    return Generation(
        number=population.number,
        new=population.new,
        best=max(fitness) if fitness else None,
        mean=float(np.mean(fitness)) if fitness else None,
    )


def _with_interval(population: Population, candidates: Mapping[Genome, StrategyCandidate]) -> Generation:
    best = max(population.members, key=lambda member: -math.inf if member.fitness is None else member.fitness)
    return summarised(population).model_copy(
        update={"best_interval": candidates[best.genome].fitness_interval}
    )


def _require_measured(populations: Sequence[Population], failures: Sequence[str]) -> Genome:
    """The best genome.

    Raises:
        NothingTuned: no candidate could be measured.
    """
    best = populations[-1].members[0]
    if best.fitness is None:
        count = sum(population.new for population in populations)
        why = f"the first failed of {failures[0]}" if failures else "the returns could not be measured"
        raise NothingTuned(f"None of {count} candidates could be measured: {why}")
    return best.genome


def _result(
    evolution: Evolution,
    objective: _Objective,
    populations: Sequence[Population],
    unseen: HeldOutSharpe | None,
    interrupted: bool,
) -> EvolveResult:
    candidates = objective.candidates
    defaults = default_genome(evolution.space)
    measured = [each for each in candidates.values() if each.fitness_score is not None]
    ranked = sorted(measured, key=lambda each: -(each.fitness_score or 0.0))
    # the elite keeps the best genome from generation to generation
    best = populations[-1].members[0].genome if populations else None
    return EvolveResult(
        name=evolution.name,
        model_type=evolution.model_type,
        plugin=evolution.plugin,
        symbol=evolution.symbol,
        timeframe=evolution.timeframe,
        dataset_span_days=evolution.dataset_span_days,
        interrupted=interrupted,
        generations=tuple(_with_interval(each, candidates) for each in populations),
        candidates=len(candidates),
        unmeasured=sum(each.fitness_score is None for each in candidates.values()) - objective.degenerate,
        degenerate=objective.degenerate,
        found=objective.already_recorded,
        best=None if best is None else candidates[best],
        best_params={} if best is None else evolution.params(best),
        defaults=candidates.get(defaults),
        default_params=evolution.params(defaults),
        unseen=unseen,
        ranked=tuple(ranked[:MAX_RANKED]),
    )
