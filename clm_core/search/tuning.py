"""A tuning from request to result: trials are begun, computed fold by fold, counted, and learnt from."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import timedelta
from importlib.util import find_spec
from typing import Any
from uuid import UUID

import numpy as np

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, MissingExtra
from clm_core.domain.search_space import Tuned
from clm_core.domain.searches import Search, Tuning
from clm_core.domain.trials import TrialSource
from clm_core.domain.tuning import Ended, Engine, SearchRequest, TuneRequest, TuneResult, Unseen
from clm_core.domain.vocabulary import Role
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.search.evaluator import Counting, TrialRun
from clm_core.search.folds import FoldPlan, SharedInputs, held_out, seen_folds, unseen_folds
from clm_core.search.study import HEARTBEAT_SECONDS, Attempt, Study, best, is_tuned, open_study
from clm_core.search.workers import Failure, Workers, open_workers, told
from clm_core.services import Services

MOST_TRIES = 3
"""Workers that may die over one fold; then it is taken to be its own fault."""
PAUSE_SECONDS = 1.0


def check(request: TuneRequest, costs: Costs) -> tuple[dict[str, Any], dict[str, Tuned]]:
    """The parameters that are fixed and those that are searched; loads no data.

    Raises:
        InvalidTrainingParams: a fixed one is unknown or out of range, or nothing is left to search.
        MissingExtra: Optuna, Ray or the model's library is not installed.
        ModelError: this kind of model has no implementation, or nothing to tune.
    """
    fixed, space = open_space(request, costs)
    for library, extra, needed in (
        ("optuna", "evolve", True),
        ("ray", "ray", request.on is Engine.RAY),
    ):
        if needed and find_spec(library) is None:
            raise MissingExtra(library, extra)
    return fixed, space


def open_space(request: SearchRequest, costs: Costs) -> tuple[dict[str, Any], dict[str, Tuned]]:
    """The parameters that are fixed and those that are searched.

    Raises:
        InvalidTrainingParams: a fixed one is unknown or out of range, or nothing is left to search.
        MissingExtra: the model's library is not installed.
        ModelError: this kind of model has no implementation, or nothing to tune.
    """
    described = catalog.recipe(request.model_type, request.training_params, costs, request.plugin).describe()
    fixed = {name: described[name] for name in request.training_params}
    every = catalog.search_space(request.model_type, request.plugin)
    space = {name: tuned for name, tuned in every.items() if name not in fixed}
    if not space:
        raise InvalidTrainingParams(
            f"every parameter of {request.kind} is fixed: leave one of {', '.join(every)} open"
        )
    return fixed, space


def open_tuning(services: Services, request: TuneRequest) -> Tuning:
    """The study that was asked for: a new one, or as it began.

    Raises:
        StudyDiffers: it began with something else.
        NotEnoughBars: too few for the walk-forward of a trial.
        UnknownSeries: no source has these bars, or no longer.
    """
    now, store = services.clock(), services.ledger.tunings
    fixed, space = check(request, services.settings.costs)
    name = request.study or f"{request.model_id}_{now:%Y%m%d_%H%M%S}"
    asked = definition(services, request) | {"name": name, "fixed": fixed, "space": space}
    if store.exists(name):
        # newer bars are no other bars: a study keeps those it began with
        asked["data_snapshot"] = store.find(name).data_snapshot
    tuning = Tuning(**asked, trials=request.trials, created_at=now)
    bars = bars_of(services, tuning)
    seen_folds(len(bars), tuning)
    actor = Actor(name=request.requested_by, role=Role.OPERATOR)
    return store.open(tuning, request.trials, actor, now)


def definition(services: Services, request: SearchRequest) -> dict[str, Any]:
    """What a `Search` has of its request, the settings and the bars there are.

    Raises:
        UnknownSeries: no source has these bars.
    """
    settings = services.settings
    series = services.market.newest(request.symbol, request.timeframe)
    return {
        "model_type": request.model_type,
        "plugin": request.plugin,
        "symbol": series.symbol,
        "timeframe": series.timeframe.value,
        "dataset_span_days": request.dataset_span_days,
        "data_snapshot": series.content_hash,
        "holdout": request.holdout,
        "seed": request.seed,
        "seeds": request.seeds or catalog.find_kind(*request.kind).seeds,
        "plan": settings.walk_forward,
        "costs": settings.costs,
        "execution": settings.execution,
        "requested_by": request.requested_by,
    }


def continued(services: Services, name: str, **changes: Any) -> TuneRequest:
    """A request that goes on with a study as it began.

    Raises:
        NotFound: there is no such study.
    """
    tuning = services.ledger.tunings.find(name)
    asked: dict[str, Any] = {
        "model_type": tuning.model_type,
        "plugin": tuning.plugin,
        "symbol": tuning.symbol,
        "timeframe": tuning.timeframe,
        "dataset_span_days": tuning.dataset_span_days,
        "holdout": tuning.holdout,
        "training_params": tuning.fixed,
        "seed": tuning.seed,
        "seeds": tuning.seeds,
        "study": name,
        "trials": tuning.trials,
    }
    return TuneRequest.model_validate(asked | changes)


def bars_of(services: Services, search: Search) -> Bars:
    """The bars that had closed when the search began, also when it is continued later."""
    return services.market.bars(
        search.symbol,
        search.timeframe,
        search.dataset_span_days,
        search.data_snapshot,
        closed_by=search.created_at,
    )


def contradiction(search: Search, params: Mapping[str, Any]) -> str | None:
    """Why parameters that are each in their range cannot go together; None: they can."""
    try:
        catalog.recipe(search.model_type, params, search.costs, search.plugin)
    except InvalidTrainingParams as error:
        return told(error)
    return None


def search(services: Services, tuning: Tuning, request: TuneRequest) -> TuneResult:
    """Try until there are as many trials as were asked for, or it is told to stop.

    Raises:
        NothingTuned: all trials have ended, and none was completed.
    """
    bars = bars_of(services, tuning)
    with open_workers(request, SharedInputs(tuning.kind, tuning.costs, bars)) as workers:
        return search_with(workers, services, tuning, request, bars)


def search_with(
    workers: Workers, services: Services, tuning: Tuning, request: TuneRequest, bars: Bars
) -> TuneResult:
    """As `search`, by these workers."""
    with open_study(services.database, tuning) as study, deferred_interrupt() as interrupted:
        trials = _Search(services, study, workers, bars, request, interrupted)
        ended = trials.run()
        result = _result(study, ended, trials.look_at_unseen() if ended is Ended.ALL_TRIALS else None)
    services.ledger.tunings.end(tuning, result, services.clock())
    if ended is Ended.ALL_TRIALS:
        best(result.trials)
    return result


def best_params(services: Services, name: str) -> tuple[Tuning, dict[str, Any]]:
    """A study, and the best parameters it has found so far.

    Raises:
        NotFound: there is no such study.
        NothingTuned: none of its trials was completed.
    """
    tuning = services.ledger.tunings.find(name)
    with open_study(services.database, tuning) as study:
        return tuning, best(study.trials()).params


def _result(study: Study, ended: Ended, unseen: Unseen | None) -> TuneResult:
    tuning, trials = study.tuning, study.trials()
    return TuneResult(
        study=tuning.name,
        model_type=tuning.model_type,
        plugin=tuning.plugin,
        symbol=tuning.symbol,
        timeframe=tuning.timeframe,
        dataset_span_days=tuning.dataset_span_days,
        ended=ended,
        trials=trials,
        best=best(trials) if is_tuned(trials) else None,
        unseen=unseen,
    )


class _Search:
    """What one command has under way."""

    def __init__(
        self,
        services: Services,
        study: Study,
        workers: Workers,
        bars: Bars,
        request: TuneRequest,
        interrupted: threading.Event,
    ) -> None:
        self._services, self._study, self._workers, self._bars = services, study, workers, bars
        self._wanted, self._interrupted = request.trials, interrupted
        self._course = seen_folds(len(bars), study.tuning)
        self._counting = Counting(services, study.tuning, bars, TrialSource.TUNING)
        limit = request.timeout_minutes
        self._deadline = None if limit is None else services.clock() + timedelta(minutes=limit)
        self._under_way: dict[Future[Floats], TrialRun] = {}
        self._beat_at = 0.0

    def run(self) -> Ended:
        self._announce()
        while (ended := self._ended()) is None:
            self._begin()
            for walk, outcome in self._outcomes():
                self._advance(walk, outcome)
        for walk in self._under_way.values():
            if walk.attempt is not None and self._study.is_ours(walk.attempt):
                self._study.give_back(walk.attempt)
        return ended

    def look_at_unseen(self) -> Unseen | None:
        """Try the best parameters and the defaults on the bars held out, once, each counted as trials."""
        trials, held = self._study.trials(), held_out(len(self._bars), self._study.tuning)
        if not held or not is_tuned(trials):
            return None
        found = best(trials)
        wanted = {"best": found, "defaults": next(tried for tried in trials if tried.number == 0)}
        measured = self._study.unseen(found.number)
        if measured is None:
            self._services.announce("Looking at the unseen bars", 1.0)
            looked = {tried.number: self._look(tried.number, tried.params) for tried in wanted.values()}
            measured = {name: looked[tried.number] for name, tried in wanted.items()}
            self._study.note_unseen(found.number, measured)
        return Unseen(bars=held, **measured)

    def _ended(self) -> Ended | None:
        if self._interrupted.is_set():
            return Ended.INTERRUPTED
        if self._deadline is not None and self._services.clock() >= self._deadline:
            return Ended.TIME_LIMIT
        idle = not self._under_way
        return Ended.ALL_TRIALS if idle and self._study.is_done(self._wanted) else None

    def _begin(self) -> None:
        """As many trials as there are workers without one."""
        while len(self._under_way) < self._workers.count:
            if (attempt := self._study.next(self._wanted)) is None:
                return
            if (problem := contradiction(self._study.tuning, attempt.params)) is not None:
                # nothing is looked at, so there is nothing to count
                self._study.fail(attempt, problem)
                continue
            walk = self._walk(self._study.ids_of(attempt.number), attempt.params, self._course, attempt)
            self._counting.begin(walk)
            self._submit(walk)

    def _outcomes(self) -> Iterator[tuple[TrialRun, Floats | Failure]]:
        """What is done; waits for it a moment, and gives signs of life."""
        if time.monotonic() - self._beat_at > HEARTBEAT_SECONDS:
            self._beat_at = time.monotonic()
            self._study.beat([walk.attempt for walk in self._under_way.values() if walk.attempt is not None])
        if not self._under_way:
            # the last trials are another command's
            time.sleep(PAUSE_SECONDS)
        done, _ = wait(self._under_way, PAUSE_SECONDS, FIRST_COMPLETED)
        for future in done:
            yield self._under_way.pop(future), self._workers.result(future)

    def _advance(self, walk: TrialRun, outcome: Floats | Failure) -> None:
        attempt = walk.attempt
        assert attempt is not None
        if not self._study.is_ours(attempt):
            return
        if isinstance(outcome, Failure):
            self._try_again(walk, attempt, outcome)
        else:
            walk.add(outcome)
            if walk.has_even:
                self._judge(walk, attempt)
            else:
                self._submit(walk)
        self._announce()

    def _try_again(self, walk: TrialRun, attempt: Attempt, failure: Failure) -> None:
        """If it was its worker that died, and not too often."""
        if failure.lost and walk.tries < MOST_TRIES:
            walk.tries += 1
            self._submit(walk)
        else:
            self._counting.count(walk)
            self._study.fail(attempt, failure.cause)

    def _judge(self, walk: TrialRun, attempt: Attempt) -> None:
        """Go on, give up, or be done."""
        tested = self._counting.tested(walk)
        ratios = self._counting.sharpe_ratios(tested)
        ratio = float(np.mean(ratios))
        hopeless = not walk.is_done and self._study.is_hopeless(attempt, walk.folds, ratio)
        if not walk.is_done and not hopeless:
            self._submit(walk)
            return
        self._counting.count(walk)
        if math.isfinite(ratio):
            self._study.note(attempt, ratios, round(np.mean([len(each.trades) for each in tested])))
        if not math.isfinite(ratio):
            self._study.fail(attempt, "its returns could not be measured")
        elif hopeless:
            self._study.prune(attempt)
        else:
            self._study.complete(attempt, ratio)

    def _look(self, number: int, params: Mapping[str, Any]) -> float | None:
        """Annualised Sharpe ratio on the bars held out; None where it could not be measured."""
        course = unseen_folds(len(self._bars), self._study.tuning)
        walk = self._walk(self._study.ids_of_unseen(number), params, course)
        self._counting.begin(walk)
        while not walk.is_done and walk.tries <= MOST_TRIES:
            self._submit(walk)
            [outcome] = [outcome for _, outcome in self._awaited()]
            if isinstance(outcome, Failure):
                walk.tries = walk.tries + 1 if outcome.lost else MOST_TRIES + 1
            else:
                walk.add(outcome)
        self._counting.count(walk)
        if not walk.is_done:
            return None
        ratio = float(np.mean(self._counting.sharpe_ratios(self._counting.tested(walk))))
        return ratio if math.isfinite(ratio) else None

    def _awaited(self) -> list[tuple[TrialRun, Floats | Failure]]:
        while not (found := list(self._outcomes())):
            if self._interrupted.is_set():
                raise KeyboardInterrupt
        return found

    def _walk(
        self,
        ids: tuple[UUID, ...],
        params: Mapping[str, Any],
        course: FoldPlan,
        attempt: Attempt | None = None,
    ) -> TrialRun:
        return TrialRun(params, course, self._study.tuning.seed, ids, attempt)

    def _submit(self, walk: TrialRun) -> None:
        self._under_way[self._workers.submit(walk.next())] = walk

    def _announce(self) -> None:
        trials = self._study.trials()
        so_far = f", best Sharpe {best(trials).sharpe_ratio:.2f}" if is_tuned(trials) else ""
        done = len(trials) + sum(walk.share for walk in self._under_way.values())
        self._services.announce(
            f"{len(trials)} of {self._wanted} trials{so_far}", min(1.0, done / self._wanted)
        )


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event; a second one interrupts as usual. Only the main thread hears of it."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def tell(number: int, frame: Any) -> None:
        told.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, tell)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, before)
