"""Evaluation of recorded candidates: counted walk-forward trials, as in an evolution."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from uuid import uuid5

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import (
    FeatureFailed,
    FeatureMismatch,
    InvalidTrainingParams,
    LookAhead,
    NotEnoughBars,
    UnknownSeries,
)
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.recipes import EXECUTION, REGIME
from clm_core.domain.searches import Search
from clm_core.domain.trials import TrialSource
from clm_core.ledger.candidates import CandidateStore
from clm_core.market.bars import Bars
from clm_core.search.evaluator import Evaluator, RunQueue, open_evaluator
from clm_core.search.folds import SharedInputs
from clm_core.search.posted import search_request
from clm_core.search.request import checked_features, contradiction, search_bars, search_fields
from clm_core.search.runs import TrialRun
from clm_core.search.workers import Workers, error_line, local_workers
from clm_core.services import Services

LASTING = (
    FeatureFailed,
    FeatureMismatch,
    InvalidTrainingParams,
    LookAhead,
    NotEnoughBars,
    UnknownSeries,
)
"""Errors of a candidate that a repetition would meet again: they end the evaluation without fitness."""


class QueueUntil(RunQueue):
    """A queue with an end: no run starts from a moment on."""

    def __init__(self, runs: Iterable[TrialRun], stop_at: datetime, clock: Callable[[], datetime]) -> None:
        super().__init__(runs)
        self._stop_at = stop_at
        self._clock = clock

    @property
    def _is_late(self) -> bool:
        return self._clock() >= self._stop_at

    def next(self) -> TrialRun | None:
        return None if self._is_late else super().next()

    def is_exhausted(self) -> bool:
        return self._is_late or super().is_exhausted()


def measured_alike(candidates: Iterable[StrategyCandidate]) -> list[list[StrategyCandidate]]:
    """Groups of candidates with the same kind, market, terms and inputs: a search evaluates a group."""

    def key(candidate: StrategyCandidate) -> str:
        named = [candidate.params.get(name) for name in (EXECUTION, "features", REGIME)]
        return json.dumps([*candidate.kind, candidate.symbol, candidate.timeframe, *named], sort_keys=True)

    return [list(group) for _, group in groupby(sorted(candidates, key=key), key)]


def search_of(services: Services, candidate: StrategyCandidate) -> Search:
    """Search that evaluates a candidate on the newest bars, with the defaults of `clm evolve`.

    Raises:
        UnknownSeries: no source has bars of the market.
    """
    return Search(
        **search_fields(search_request(candidate), candidate.params, services),
        name=str(candidate.id),
        fixed=candidate.params,
        space={},
        created_at=services.clock(),
    )


def evaluate(
    services: Services,
    search: Callable[[], Search],
    candidates: Sequence[StrategyCandidate],
    workers: int | None,
    stop_at: datetime,
) -> None:
    """Evaluate candidates by a search, and record each result at once.

    A killed evaluation is repeated from the start; equal ids keep the trials counted once.

    Args:
        search: opens the definition.
        workers: number of worker processes; None for one per processor.
        stop_at: moment from which on no candidate is begun.
    """
    if services.clock() >= stop_at:
        return
    store = services.ledger.candidates
    try:
        opened = search()
        bars = search_bars(services.market, opened)
        features = checked_features(opened, bars)
        inputs = SharedInputs(opened.kind, opened.market_costs, bars, features)
        with local_workers(workers, inputs) as processes:
            evaluate_with(processes, services, opened, candidates, bars, stop_at)
    except LASTING as error:
        for each in candidates:
            store.evaluated(each.id, None, error_line(error))


def evaluate_with(
    workers: Workers,
    services: Services,
    search: Search,
    candidates: Sequence[StrategyCandidate],
    bars: Bars,
    stop_at: datetime,
) -> None:
    """Same as `evaluate`, on the given workers."""
    store = services.ledger.candidates
    market = services.recorded_terms(search.symbol, search.terms)
    clock = services.clock
    with open_evaluator(
        workers, search, bars, market, TrialSource.EVOLUTION, services.ledger.trials, clock
    ) as evaluator:
        runs = {
            evaluator.run(each.params, tuple(uuid5(each.id, f"seed{n}") for n in range(search.seeds))): each
            for each in _possible(store, search, candidates)
        }
        for done, run in enumerate(evaluator.evaluate(QueueUntil(runs, stop_at, clock)), 1):
            store.evaluated(runs[run].id, *_result(evaluator, run))
            services.announce(f"Candidates of {search.model_id}: {done} of {len(runs)}", done / len(runs))


def _possible(
    store: CandidateStore, search: Search, candidates: Iterable[StrategyCandidate]
) -> Iterator[StrategyCandidate]:
    """Candidates without contradictory parameters; no bar is evaluated for the rest."""
    for each in candidates:
        problem = contradiction(search, each.params)
        if problem is None:
            yield each
        else:
            store.evaluated(each.id, None, problem)


def _result(evaluator: Evaluator, run: TrialRun) -> tuple[IntervalEstimate | float | None, str | None]:
    """Fitness with its interval where measurable, or None and the reason."""
    fitness = evaluator.completed_sharpe(run)
    if fitness is None:
        return None, run.failure or "the Sharpe ratio cannot be measured: the returns never vary"
    degenerate = evaluator.degeneracy(run)
    if degenerate is not None:
        return None, degenerate
    interval = evaluator.sharpe_interval(evaluator.backtests(run))
    return (fitness if interval is None else interval), None
