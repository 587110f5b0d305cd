"""A tuning from request to result: trials are begun, computed fold by fold, counted, and learnt from."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from typing import Any
from uuid import UUID

import numpy as np

from clm_core.backtest.metrics import sharpe_ratio
from clm_core.backtest.results import Backtest
from clm_core.backtest.search import (
    Course,
    Tuning,
    Work,
    held_out,
    results,
    seen_course,
    unseen_course,
)
from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, MissingExtra
from clm_core.domain.trials import Trial, TrialSource
from clm_core.domain.tuning import Ended, Engine, TuneRequest, TuneResult, Unseen
from clm_core.domain.vocabulary import Role
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.params import Tuned
from clm_core.promotion.evidence import TrackRecord, track_record
from clm_core.promotion.trials import DAY, TrialRecord, trial_record
from clm_core.services import Services
from clm_core.tuning.study import HEARTBEAT_SECONDS, Attempt, Study, best, is_tuned, open_study
from clm_core.tuning.workers import Failure, Workers, open_workers

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
    described = catalog.recipe(request.model_type, request.training_params, costs, request.plugin).describe()
    fixed = {name: described[name] for name in request.training_params}
    every = catalog.search_space(request.model_type, request.plugin)
    space = {name: tuned for name, tuned in every.items() if name not in fixed}
    if not space:
        raise InvalidTrainingParams(
            f"every parameter of {request.kind} is fixed: leave one of {', '.join(every)} open"
        )
    for library, extra, needed in (
        ("optuna", "evolve", True),
        ("ray", "ray", request.on is Engine.RAY),
    ):
        if needed and find_spec(library) is None:
            raise MissingExtra(library, extra)
    return fixed, space


def open_tuning(services: Services, request: TuneRequest) -> Tuning:
    """The study that was asked for: a new one, or as it began.

    Raises:
        StudyDiffers: it began with something else.
        NotEnoughBars: too few for the walk-forward of a trial.
        UnknownSeries: no source has these bars, or no longer.
    """
    now, settings = services.clock(), services.settings
    fixed, space = check(request, settings.costs)
    name = request.study or f"{request.model_id}_{now:%Y%m%d_%H%M%S}"
    series = services.market.bars(request.symbol, request.timeframe)
    book = services.ledger.tunings
    tuning = Tuning(
        name=name,
        model_type=request.model_type,
        plugin=request.plugin,
        symbol=series.symbol,
        timeframe=series.timeframe.value,
        dataset_span_days=request.dataset_span_days,
        # newer bars are no other bars: a study keeps those it began with
        data_snapshot=book.find(name).data_snapshot if book.exists(name) else series.content_hash,
        holdout=request.holdout,
        fixed=fixed,
        space=space,
        seed=request.seed,
        plan=settings.walk_forward,
        costs=settings.costs,
        execution=settings.execution,
        trials=request.trials,
        requested_by=request.requested_by,
        created_at=now,
    )
    bars = bars_of(services, tuning)
    seen_course(len(bars), tuning)
    actor = Actor(name=request.requested_by, role=Role.OPERATOR)
    return book.open(tuning, request.trials, actor, now)


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
        "study": name,
        "trials": tuning.trials,
    }
    return TuneRequest.model_validate(asked | changes)


def bars_of(services: Services, tuning: Tuning) -> Bars:
    return services.market.bars(
        tuning.symbol, tuning.timeframe, tuning.dataset_span_days, tuning.data_snapshot
    )


def search(services: Services, tuning: Tuning, request: TuneRequest) -> TuneResult:
    """Try until there are as many trials as were asked for, or it is told to stop.

    Raises:
        NothingTuned: all trials have ended, and none was completed.
    """
    bars = bars_of(services, tuning)
    with open_workers(request, Work(tuning.kind, tuning.costs, tuning.seed, bars)) as workers:
        return search_with(workers, services, tuning, request, bars)


def search_with(
    workers: Workers, services: Services, tuning: Tuning, request: TuneRequest, bars: Bars
) -> TuneResult:
    """As `search`, by these workers."""
    with open_study(services.database, tuning) as study, _patient() as interrupted:
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


@dataclass
class _Walk:
    """A set of parameters on its way through a course."""

    params: Mapping[str, Any]
    attempt: Attempt | None = None
    """None: it is not a trial of the study, but a look at the bars held out."""
    positions: list[Floats] = field(default_factory=list)
    """Of each fold so far."""
    tries: int = 1
    """Of the present fold."""


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
        self._course = seen_course(len(bars), study.tuning)
        limit = request.timeout_minutes
        self._deadline = None if limit is None else services.clock() + timedelta(minutes=limit)
        self._under_way: dict[Future[Floats], _Walk] = {}
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
        """Try the best parameters and the defaults on the bars held out, once, each counted as a trial."""
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
            self._count_from_now_on(self._study.id_of(attempt.number), self._course)
            self._submit(_Walk(attempt.params, attempt), self._course)

    def _outcomes(self) -> Iterator[tuple[_Walk, Floats | Failure]]:
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

    def _advance(self, walk: _Walk, outcome: Floats | Failure) -> None:
        attempt = walk.attempt
        assert attempt is not None
        if not self._study.is_ours(attempt):
            return
        if isinstance(outcome, Failure):
            if outcome.lost and walk.tries < MOST_TRIES:
                walk.tries += 1
                self._submit(walk, self._course)
            else:
                self._count(self._study.id_of(attempt.number), walk, self._course)
                self._study.fail(attempt, outcome.cause)
            return
        walk.positions.append(outcome)
        walk.tries = 1
        self._judge(walk, attempt)

    def _judge(self, walk: _Walk, attempt: Attempt) -> None:
        """Go on, give up, or be done."""
        result = self._tested(walk, self._course)
        ratio = sharpe_ratio(result.returns, self._bars.periods_per_year)
        done = len(walk.positions) == len(self._course.folds)
        hopeless = not done and self._study.is_hopeless(attempt, len(walk.positions), ratio)
        if not done and not hopeless:
            self._submit(walk, self._course)
            return
        self._count(self._study.id_of(attempt.number), walk, self._course)
        if not math.isfinite(ratio):
            self._study.fail(attempt, "its returns could not be measured")
        elif hopeless:
            self._study.prune(attempt, len(result.trades))
        else:
            self._study.complete(attempt, ratio, len(result.trades))
        self._announce()

    def _look(self, number: int, params: Mapping[str, Any]) -> float | None:
        """Annualised Sharpe ratio on the bars held out; None where it could not be measured."""
        course = unseen_course(len(self._bars), self._study.tuning)
        trial_id, walk = self._study.id_of_unseen(number), _Walk(params)
        self._count_from_now_on(trial_id, course)
        while len(walk.positions) < len(course.folds) and walk.tries <= MOST_TRIES:
            self._submit(walk, course)
            [outcome] = [outcome for _, outcome in self._awaited()]
            if isinstance(outcome, Failure):
                walk.tries = walk.tries + 1 if outcome.lost else MOST_TRIES + 1
            else:
                walk.positions.append(outcome)
        self._count(trial_id, walk, course)
        if len(walk.positions) < len(course.folds):
            return None
        ratio = sharpe_ratio(self._tested(walk, course).returns, self._bars.periods_per_year)
        return ratio if math.isfinite(ratio) else None

    def _awaited(self) -> list[tuple[_Walk, Floats | Failure]]:
        while not (found := list(self._outcomes())):
            if self._interrupted.is_set():
                raise KeyboardInterrupt
        return found

    def _submit(self, walk: _Walk, course: Course) -> None:
        fold = course.fold(len(walk.positions), walk.params)
        self._under_way[self._workers.submit(fold)] = walk

    def _tested(self, walk: _Walk, course: Course) -> Backtest:
        return results(self._bars, course.first, walk.positions, self._study.tuning)

    def _count_from_now_on(self, trial_id: UUID, course: Course) -> None:
        tuning = self._study.tuning
        self._services.ledger.trials.begin(
            trial_id, tuning.symbol, tuning.timeframe, self._first_day(course), self._services.clock()
        )

    def _count(self, trial_id: UUID, walk: _Walk, course: Course) -> None:
        """With what was seen of it, before anything is learnt from that."""
        tuning = self._study.tuning
        if walk.positions:
            returns = self._tested(walk, course).returns
            seen = self._bars[course.first : course.first + len(returns)]
            record = track_record(returns)
            kept = trial_record(seen.time, returns, record)
        else:
            seen = self._bars[course.first : course.first + 1]
            record = TrackRecord(math.nan, math.nan, math.nan, 0, math.nan)
            kept = TrialRecord(math.nan, math.nan, self._first_day(course), np.empty(0))
        trial = Trial(
            id=trial_id,
            source=TrialSource.TUNING,
            model_id=tuning.model_id,
            symbol=tuning.symbol,
            timeframe=tuning.timeframe,
            job_id=None,
            params=dict(walk.params),
            seed=tuning.seed,
            sharpe=record.sharpe,
            skewness=record.skewness,
            kurtosis=record.kurtosis,
            bars=record.bars,
            effective_bars=record.effective_bars,
            period_start=seen.start.to_pydatetime(),
            period_end=seen.end.to_pydatetime(),
            at=self._services.clock(),
        )
        self._services.ledger.trials.count(trial, kept)

    def _first_day(self, course: Course) -> int:
        return int(self._bars.time[course.first] // DAY)

    def _announce(self) -> None:
        trials = self._study.trials()
        so_far = f", best Sharpe {best(trials).sharpe_ratio:.2f}" if is_tuned(trials) else ""
        self._services.announce(
            f"{len(trials)} of {self._wanted} trials{so_far}", min(1.0, len(trials) / self._wanted)
        )


@contextlib.contextmanager
def _patient() -> Iterator[threading.Event]:
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
