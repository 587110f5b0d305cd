"""Search for rule strategies: start, continuation, verification, and the resulting candidates.

A search started again under the same name computes the recorded generations again, compares each generation
with the counted batch to the last bit, and continues. A verification does the same and records nothing.
"""

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from clm_core.domain.actors import Actor
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import AlreadyExists, InvalidTrainingParams, NotFound
from clm_core.domain.kinds import Kind, model_id
from clm_core.domain.searches import Placement
from clm_core.domain.strategy_search import (
    StrategySearch,
    StrategySearchRequest,
    StrategySearchResult,
    Verification,
)
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.ledger.candidates import CandidateStore
from clm_core.ledger.strategy_searches import StrategySearchStore, TrialBatch
from clm_core.models.strategies.families import RULES
from clm_core.search.engines import open_measures, require_engine
from clm_core.search.evaluator import Interrupted, deferred_interrupt
from clm_core.search.request import market_fields, stored_bars
from clm_core.search.strategy_objectives import MeasureInputs, rows_of, space_of
from clm_core.search.strategy_run import Recorder, StrategyRun
from clm_core.services import Services

FIGURES_DIFFER = 1e-5
"""Largest difference of two figures computed by matrix products, whose last bits depend on the processor;
relative to the figure, and absolute below 1."""


class _Counting:
    """Counts each batch in the ledger."""

    def __init__(self, services: Services, name: str) -> None:
        self._store: StrategySearchStore = services.ledger.strategy_searches
        self._clock = services.clock
        self._name = name

    def record(self, batch: TrialBatch) -> None:
        """
        Raises:
            StudyDiffers: the batch was counted before, with other scores.
        """
        self._store.count(self._name, batch, self._clock())


class _Comparing:
    """Compares each batch with the batch counted."""

    def __init__(self, counted: Iterable[TrialBatch]) -> None:
        self._counted = {each.number: each for each in counted}
        self.differences = list[str]()

    def record(self, batch: TrialBatch) -> None:
        counted = self._counted.get(batch.number)
        if counted is None:
            self.differences.append(f"batch {batch.number} was never counted")
        elif differing := batch.differences(counted):
            self.differences.append(f"batch {batch.number} has other {', '.join(differing)}")


def open_strategy_search(
    services: Services, request: StrategySearchRequest, actor: Actor | None = None
) -> StrategySearch:
    """The requested search, or the stored search of the same name as it began; nothing is computed yet.

    Args:
        actor: actor for the audit; by default the requester.

    Raises:
        InvalidTrainingParams: a fixed parameter is unknown or out of range, or every parameter is fixed.
        MissingExtra: Ray is requested and not installed.
        NotEnoughBars: too few bars for the test sets.
        StudyDiffers: the stored search began with other inputs.
        UnknownSeries: no source has the bars.
    """
    now = services.clock()
    store = services.ledger.strategy_searches
    fixed = check(request)
    fields = {
        "name": request.name or f"{request.subject}_{now:%Y%m%d_%H%M%S}",
        "created_at": now,
        **market_fields(request, fixed, services),
        "fixed": fixed,
    }
    if store.exists(fields["name"]):
        began = store.find(fields["name"])
        # bars that arrived since are no difference: a search keeps the bars of its beginning
        fields |= {"data_snapshot": began.data_snapshot, "created_at": began.created_at}
    own = ("families", "population", "generations", "objectives", "selection", "crossover", "mutation")
    definition = StrategySearch(**fields, **{name: getattr(request, name) for name in own})
    rows_of(definition, len(stored_bars(services.market, definition)))
    actor = actor or Actor(name=request.requested_by, role=Role.OPERATOR)
    return store.open(definition, request.generations, actor, now)


def check(request: StrategySearchRequest) -> dict[str, Any]:
    """The fixed parameters, after a check of the required libraries; loads no data.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range, or every parameter is fixed.
        MissingExtra: Ray is requested and not installed.
    """
    require_engine(request.placement)
    return fixed_params(request)


def fixed_params(request: StrategySearchRequest) -> dict[str, Any]:
    """Fixed parameters with the types of the family, "none" for a limit that is switched off.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range, or every parameter is fixed.
    """
    if not request.training_params:
        return {}
    rule = RULES[request.families[0]]
    parsed = rule.params.parse(request.training_params, kind=rule.family.value).model_dump()
    if not set(rule.params.search_space()) - set(request.training_params):
        raise InvalidTrainingParams(f"every parameter of {rule.family} is fixed: leave one open")
    return {name: "none" if parsed[name] is None else parsed[name] for name in request.training_params}


def search_strategies(
    services: Services, definition: StrategySearch, generations: int, placement: Placement
) -> StrategySearchResult:
    """Evaluate generation after generation, until the last generation or Ctrl-C.

    Returns:
        The result, recorded with the strategies of the front as candidates.

    Args:
        generations: number of generations after generation 0.
        placement: threads of this process, or a Ray cluster; the result does not depend on them.

    Raises:
        MissingExtra: Ray is requested and not installed.
        NothingTuned: no candidate could be measured.
        ServerUnavailable: Ray is requested and does not answer.
        StudyDiffers: a recorded generation computes otherwise now.
    """
    result = _run(services, definition, generations, placement, _Counting(services, definition.name))
    now = services.clock()
    _record_candidates(services.ledger.candidates, definition, result, now)
    services.ledger.strategy_searches.end(definition, result, now)
    return result


def verify(services: Services, name: str, placement: Placement) -> Verification:
    """Compute a recorded search again and compare every candidate and score bit by bit, and the figures of
    the result.

    Raises:
        NotFound: the search does not exist, or has no result yet.
        UnknownSeries: the bars of the search are no longer stored.
    """
    store = services.ledger.strategy_searches
    definition = store.find(name)
    recorded = store.result(name)
    if recorded is None:
        raise NotFound(
            f"The search {name} has no result yet: continue it by the same `clm evolve` with --name {name}."
        )
    last = recorded.generations[-1].number
    comparing = _Comparing(store.batches(name, len(space_of(definition).genes)))
    again = _run(services, definition, last, placement, comparing)
    if again.interrupted:
        raise Interrupted
    return Verification(
        name=name,
        generations=last,
        candidates=again.candidates,
        members=len(recorded.front),
        differences=(*comparing.differences, *_differing(recorded, again)),
    )


def _differing(recorded: StrategySearchResult, again: StrategySearchResult) -> list[str]:
    """Differing fields of two results, without picture and report."""
    then, now = (each.model_dump(mode="json", exclude={"picture", "report"}) for each in (recorded, again))
    return [f"{name} of the result" for name in then if not _same(then[name], now[name])]


def _same(then: Any, now: Any) -> bool:
    """True for equal values; figures may differ as the matrix products of two processors do."""
    if isinstance(then, float) and isinstance(now, float):
        return math.isclose(then, now, rel_tol=FIGURES_DIFFER, abs_tol=FIGURES_DIFFER)
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() == now.keys() and all(_same(then[name], now[name]) for name in then)
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(_same, then, now))
    return bool(then == now)


def _run(
    services: Services, definition: StrategySearch, generations: int, placement: Placement, recorder: Recorder
) -> StrategySearchResult:
    bars = stored_bars(services.market, definition)
    market = services.recorded_terms(definition.symbol, definition.terms)
    searched, _ = rows_of(definition, len(bars))
    threads = placement.threads or os.cpu_count() or 1
    with (
        deferred_interrupt() as interrupted,
        open_measures(placement, MeasureInputs(definition, market, bars, searched), interrupted) as measures,
    ):
        run = StrategyRun(
            definition, bars, market, generations, threads, recorder, services.announce, measures
        )
        return run.run(interrupted)


def _record_candidates(
    store: CandidateStore, definition: StrategySearch, result: StrategySearchResult, now: datetime
) -> None:
    known = store.known([each.candidate for each in result.front])
    for each in result.front:
        if each.candidate in known:
            continue
        kind = Kind(ModelType.OTHER, each.family.value)
        candidate = StrategyCandidate(
            id=each.candidate,
            base_strategy=model_id(kind, definition.symbol, definition.timeframe),
            model_type=kind.model_type,
            plugin=kind.plugin,
            symbol=definition.symbol,
            timeframe=definition.timeframe,
            params=each.params,
            origin=each.origin,
            fitness_score=each.scores[definition.objectives[0]],
            created_at=now,
        )
        # another command that works on the same search has found the same
        with suppress(AlreadyExists):
            store.add(candidate)
