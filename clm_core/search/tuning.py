"""Tuning: an Optuna study proposes parameters, the evaluator computes and counts them."""

import math
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any

import numpy as np

from clm_core.domain.actors import Actor
from clm_core.domain.errors import MissingExtra
from clm_core.domain.execution import NEW_VERSIONS, ExecutionRules
from clm_core.domain.progress import Announce
from clm_core.domain.search_space import SearchDimension
from clm_core.domain.searches import HeldOutSharpe, Sampler, Tuning
from clm_core.domain.trials import TrialSource
from clm_core.domain.tuning import StopReason, StudySoFar, TrialResult, TuneRequest, TuneResult
from clm_core.domain.vocabulary import Role
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.search.engines import open_workers, require_engine
from clm_core.search.evaluator import Evaluator, Interrupted, TimeLimitReached, open_evaluator
from clm_core.search.folds import SharedInputs, search_folds
from clm_core.search.request import (
    checked_features,
    contradiction,
    parameter_space,
    search_bars,
    search_fields,
)
from clm_core.search.runs import TrialRun
from clm_core.search.study import HEARTBEAT_SECONDS, OpenTrial, Study, best, has_completed, open_study
from clm_core.search.workers import Workers
from clm_core.services import Services


def check(
    request: TuneRequest, execution: ExecutionRules = NEW_VERSIONS
) -> tuple[dict[str, Any], dict[str, SearchDimension]]:
    """The fixed and the searched parameters, after a check of the required libraries; loads no data.

    Raises:
        InvalidTrainingParams: a fixed parameter is unknown or out of range, or every parameter is fixed.
        MissingExtra: Optuna, Ray or the model's library is not installed.
        ModelError: the kind of model has no implementation, or nothing to tune.
    """
    fixed, space = parameter_space(request, execution)
    require_libraries(request)
    return fixed, space


def require_libraries(request: TuneRequest) -> None:
    """
    Raises:
        MissingExtra: Optuna, Ray or the sampler's library is not installed.
    """
    if find_spec("optuna") is None:
        raise MissingExtra("optuna", "evolve")
    if request.sampler is Sampler.GP and find_spec("torch") is None:
        raise MissingExtra("torch", "forecast")
    require_engine(request.placement)


def open_tuning(services: Services, request: TuneRequest, actor: Actor | None = None) -> Tuning:
    """The requested study: a new study, or a stored study as it began.

    Args:
        actor: actor for the audit; by default the requester.

    Raises:
        StudyDiffers: the stored study began with other settings.
        NotEnoughBars: too few for the walk-forward of a trial.
        UnknownSeries: no source has the bars, or no longer.
    """
    now = services.clock()
    store = services.ledger.tunings
    name = request.study or f"{request.model_id}_{now:%Y%m%d_%H%M%S}"
    began = store.find(name) if store.exists(name) else None
    fields = {"name": name} | _fields(services, request, began)
    if began is not None:
        # bars that arrived since are no difference: a study keeps the bars of its beginning
        fields |= {"data_snapshot": began.data_snapshot, "series": began.series}
    tuning = Tuning(**fields, trials=request.trials, sampler=request.sampler, created_at=now)
    search_folds(len(search_bars(services.market, tuning)), tuning)
    actor = actor or Actor(name=request.requested_by, role=Role.OPERATOR)
    return store.open(tuning, request.trials, actor, now)


def _fields(services: Services, request: TuneRequest, began: Tuning | None) -> dict[str, Any]:
    """Fields of the requested study by today's settings and bars.

    Args:
        began: study of the same name, if any.
    """
    explicit = None if began is None else _explicit(began)
    if began is not None and request.training_params == explicit:
        # the ranges and names of an older release stay those of its studies
        require_libraries(request)
        own = {"fixed": began.fixed, "space": began.space}
        return search_fields(request, request.training_params, services) | own
    fixed, space = check(request, services.settings.execution.rules)
    fields = search_fields(request, fixed, services) | {"fixed": fixed, "space": space}
    if began is not None and fixed == explicit:
        # a study of an older release names neither sizing nor execution
        fields["fixed"] = began.fixed
    return fields


def continued(services: Services, name: str, **changes: Any) -> TuneRequest:
    """A request that continues a study as it began.

    Raises:
        NotFound: the study does not exist.
    """
    tuning = services.ledger.tunings.find(name)
    fields: dict[str, Any] = {
        "model_type": tuning.model_type,
        "plugin": tuning.plugin,
        "symbol": tuning.symbol,
        "timeframe": tuning.timeframe,
        "dataset_span_days": tuning.dataset_span_days,
        "holdout": tuning.holdout,
        "training_params": _explicit(tuning),
        "seed": tuning.seed,
        "seeds": tuning.seeds,
        "study": name,
        "sampler": tuning.sampler,
        "trials": tuning.trials,
    }
    return TuneRequest.model_validate(fields | changes)


def _explicit(tuning: Tuning) -> dict[str, Any]:
    """Fixed parameters of a study with their meaning at its start explicit."""
    # a searched parameter was known to the release that started the study
    searched = {name: dimension.default for name, dimension in tuning.space.items()}
    explicit = catalog.stored_params(
        tuning.model_type, tuning.fixed | searched, tuning.plugin, tuning.execution.rules
    )
    return {name: value for name, value in explicit.items() if name not in searched}


def search(services: Services, tuning: Tuning, request: TuneRequest) -> TuneResult:
    """Evaluate trials until the requested number has ended, the time limit is reached, or Ctrl-C.

    Raises:
        NothingTuned: all trials have ended, and none was completed.
    """
    bars = search_bars(services.market, tuning)
    features = checked_features(tuning, bars)
    shared_inputs = SharedInputs(tuning.kind, tuning.market_costs, bars, features)
    with open_workers(request.placement, shared_inputs) as workers:
        return search_with(workers, services, tuning, request, bars)


def search_with(
    workers: Workers, services: Services, tuning: Tuning, request: TuneRequest, bars: Bars
) -> TuneResult:
    """Same as `search`, on the given workers."""
    limit = request.timeout_minutes
    stop_at = None if limit is None else services.clock() + timedelta(minutes=limit)
    ledger = services.ledger
    market = services.recorded_terms(tuning.symbol, tuning.terms)
    with (
        open_study(services.database, tuning) as study,
        open_evaluator(
            workers, tuning, bars, market, TrialSource.TUNING, ledger.trials, services.clock
        ) as evaluator,
    ):
        trials = _StudyTrials(study, evaluator, request.trials, services.announce)
        ended = trials.evaluate(stop_at)
        unseen = None
        if ended is StopReason.ALL_TRIALS:
            unseen = _look_at_held_out(study, evaluator, services.announce)
        result = _result(study, ended, unseen)
    ledger.tunings.end(tuning, result, services.clock())
    if ended is StopReason.ALL_TRIALS:
        best(result.trials)
    return result


def best_params(services: Services, name: str) -> tuple[Tuning, dict[str, Any]]:
    """A study, and its best parameters so far.

    Raises:
        NotFound: the study does not exist.
        NothingTuned: none of its trials was completed.
    """
    tuning = services.ledger.tunings.find(name)
    with open_study(services.database, tuning) as study:
        return tuning, best(study.trials()).params


def study_so_far(services: Services, name: str) -> StudySoFar:
    """A study with the results so far.

    Raises:
        NotFound: the study does not exist.
        MissingExtra: Optuna is not installed.
    """
    tuning = services.ledger.tunings.find(name)
    with open_study(services.database, tuning) as study:
        trials = study.trials()
    return StudySoFar(
        study=tuning.name,
        model_type=tuning.model_type,
        plugin=tuning.plugin,
        symbol=tuning.symbol,
        timeframe=tuning.timeframe,
        requested=tuning.trials,
        requested_by=tuning.requested_by,
        created_at=tuning.created_at,
        trials=trials,
        best=best(trials) if has_completed(trials) else None,
    )


def _result(study: Study, ended: StopReason, unseen: HeldOutSharpe | None) -> TuneResult:
    tuning = study.tuning
    trials = study.trials()
    return TuneResult(
        study=tuning.name,
        model_type=tuning.model_type,
        plugin=tuning.plugin,
        symbol=tuning.symbol,
        timeframe=tuning.timeframe,
        dataset_span_days=tuning.dataset_span_days,
        ended=ended,
        trials=trials,
        best=best(trials) if has_completed(trials) else None,
        unseen=unseen,
    )


def _look_at_held_out(study: Study, evaluator: Evaluator, announce: Announce) -> HeldOutSharpe | None:
    """Sharpe ratios on the held-out bars: evaluated once for each best trial, then read from the study."""
    trials = study.trials()
    if not evaluator.held_out_bars or not has_completed(trials):
        return None
    best_trial = best(trials)
    stored = study.held_out_sharpe(best_trial.number)
    if stored is not None:
        return HeldOutSharpe(bars=evaluator.held_out_bars, **stored)
    announce("Evaluating on the held-out bars", 1.0)
    defaults = next(trial for trial in trials if trial.number == 0)
    sharpes = evaluator.look_at_held_out(
        *(_held_out_run(study, evaluator, trial) for trial in (best_trial, defaults))
    )
    study.note_held_out_sharpe(best_trial.number, sharpes.model_dump(exclude={"bars"}))
    return sharpes


def _held_out_run(study: Study, evaluator: Evaluator, trial: TrialResult) -> TrialRun:
    return evaluator.held_out_run(trial.params, study.held_out_ids(trial.number))


class _StudyTrials:
    """Trials of the study as a source of runs; ended runs are reported to the study."""

    def __init__(self, study: Study, evaluator: Evaluator, requested: int, announce: Announce) -> None:
        self._study = study
        self._evaluator = evaluator
        self._requested = requested
        self._announce = announce
        self._open: dict[TrialRun, OpenTrial] = {}
        self._last_heartbeat = 0.0

    def evaluate(self, stop_at: datetime | None) -> StopReason:
        """Evaluate until the requested number of trials has ended, here or in other commands."""
        self.report_progress([])
        try:
            for run in self._evaluator.evaluate(self, stop_at):
                self._finish(run)
        except Interrupted:
            self._give_back()
            return StopReason.INTERRUPTED
        except TimeLimitReached:
            self._give_back()
            return StopReason.TIME_LIMIT
        return StopReason.ALL_TRIALS

    def next(self) -> TrialRun | None:
        while (trial := self._study.next(self._requested)) is not None:
            problem = contradiction(self._study.tuning, trial.params)
            if problem is None:
                run = self._evaluator.run(trial.params, self._study.ids_of(trial.number))
                self._open[run] = trial
                return run
            # no bar is evaluated, so there is no trial to count
            self._study.fail(trial, problem)
        return None

    def is_exhausted(self) -> bool:
        return self._study.is_done(self._requested)

    def is_ours(self, run: TrialRun) -> bool:
        return self._study.is_ours(self._open[run])

    def should_prune(self, run: TrialRun) -> bool:
        return self._study.should_prune(self._open[run], run.folds, self._evaluator.mean_sharpe(run))

    def keep_alive(self, runs: Collection[TrialRun]) -> None:
        if time.monotonic() - self._last_heartbeat > HEARTBEAT_SECONDS:
            self._last_heartbeat = time.monotonic()
            self._study.record_heartbeats([self._open[run] for run in runs])

    def report_progress(self, runs: Collection[TrialRun]) -> None:
        trials = self._study.trials()
        so_far = f", best Sharpe {best(trials).sharpe_ratio:.2f}" if has_completed(trials) else ""
        done = len(trials) + sum(run.share for run in runs)
        self._announce(f"{len(trials)} of {self._requested} trials{so_far}", min(1.0, done / self._requested))

    def _finish(self, run: TrialRun) -> None:
        """Report the end of a run to the study."""
        trial = self._open.pop(run)
        if run.failure is not None:
            self._study.fail(trial, run.failure)
            return
        backtests = self._evaluator.backtests(run)
        sharpe_ratios = self._evaluator.sharpe_ratios(backtests)
        mean = float(np.mean(sharpe_ratios))
        if not math.isfinite(mean):
            self._study.fail(trial, "the returns could not be measured")
            return
        trades = round(np.mean([len(each.trades) for each in backtests]))
        self._study.note(trial, sharpe_ratios, trades, self._evaluator.sharpe_interval(backtests))
        degenerate = self._evaluator.degeneracy(run)
        if run.is_pruned:
            self._study.prune(trial)
        elif degenerate is not None:
            self._study.mark_degenerate(trial, degenerate)
        else:
            self._study.complete(trial, mean)

    def _give_back(self) -> None:
        """Leave the trials under way to the next command that works on the study."""
        for run in self._evaluator.under_way:
            if self._study.is_ours(self._open[run]):
                self._study.give_back(self._open[run])
