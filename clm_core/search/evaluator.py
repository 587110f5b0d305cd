"""Evaluation of trial runs: schedules and retries folds, counts trials, uses the held-out bars once.

Tuning and evolution differ in the source of the parameters; the evaluation is the same for both.
"""

import contextlib
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import numpy as np

from clm_core.backtest.metrics import sharpe_ratio
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.searches import HeldOutSharpe, Search
from clm_core.domain.trials import TrialSource
from clm_core.evidence.bootstrap import sharpe_estimate
from clm_core.ledger.trials import TrialStore
from clm_core.market.bars import Bars, Floats
from clm_core.search.degeneracy import degeneracy
from clm_core.search.folds import held_out, held_out_folds, search_folds
from clm_core.search.runs import TrialRun, seed_backtests
from clm_core.search.trial_recorder import TrialRecorder
from clm_core.search.workers import Failure, Workers

MAX_ATTEMPTS = 3
"""Workers lost over the same fold after which the fold counts as failed."""
POLL_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped the evaluation; recorded trials stay recorded."""


class TimeLimitReached(Exception):
    """The time limit stopped the evaluation; recorded trials stay recorded."""


class RunSource(Protocol):
    """Source of trial runs, with a say in the runs under way."""

    def next(self) -> TrialRun | None:
        """The next run to start, or None if no run can start now."""
        ...

    def is_exhausted(self) -> bool:
        """True if no further run will come. Called only while no run is under way."""
        ...

    def is_ours(self, run: TrialRun) -> bool:
        """False if another command has taken the run over: its results are dropped uncounted."""
        ...

    def should_prune(self, run: TrialRun) -> bool:
        """True if the run should stop early. Called whenever every seed has completed a fold but the last."""
        ...

    def keep_alive(self, runs: Collection[TrialRun]) -> None:
        """Called about once a second with the runs under way."""
        ...

    def report_progress(self, runs: Collection[TrialRun]) -> None:
        """Called after each computed fold with the runs under way."""
        ...


class RunQueue:
    """A fixed list of runs, started in order and never pruned."""

    def __init__(self, runs: Iterable[TrialRun]) -> None:
        self._waiting = deque(runs)

    def next(self) -> TrialRun | None:
        return self._waiting.popleft() if self._waiting else None

    def is_exhausted(self) -> bool:
        return not self._waiting

    def is_ours(self, run: TrialRun) -> bool:
        return True

    def should_prune(self, run: TrialRun) -> bool:
        return False

    def keep_alive(self, runs: Collection[TrialRun]) -> None: ...

    def report_progress(self, runs: Collection[TrialRun]) -> None: ...


class Evaluator:
    """Walk-forward evaluation of the parameters of one search."""

    def __init__(
        self,
        workers: Workers,
        search: Search,
        bars: Bars,
        market: MarketTerms,
        recorder: TrialRecorder,
        clock: Callable[[], datetime],
        interrupted: threading.Event,
    ) -> None:
        self._workers = workers
        self._search = search
        self._bars = bars
        self._market = market
        self._recorder = recorder
        self._clock = clock
        self._interrupted = interrupted
        self._fold_plan = search_folds(len(bars), search)
        self._under_way: dict[Future[Floats], TrialRun] = {}

    def run(self, params: Mapping[str, Any], ids: tuple[UUID, ...]) -> TrialRun:
        """A run over the bars that are not held out, counted under one id per seed."""
        return TrialRun(params, self._fold_plan, self._search.seed, ids)

    def held_out_run(self, params: Mapping[str, Any], ids: tuple[UUID, ...]) -> TrialRun:
        """A run over the held-out bars, counted under one id per seed."""
        fold_plan = held_out_folds(len(self._bars), self._search)
        return TrialRun(params, fold_plan, self._search.seed, ids)

    @property
    def under_way(self) -> tuple[TrialRun, ...]:
        """Runs with a fold on a worker, those left by an evaluation that was stopped included."""
        return tuple(self._under_way.values())

    @property
    def held_out_bars(self) -> int:
        return held_out(len(self._bars), self._search)

    def evaluate(self, source: RunSource, stop_at: datetime | None = None) -> Iterator[TrialRun]:
        """Evaluate the runs of a source, as many at a time as there are workers.

        Yields:
            Runs as they end (completed, pruned or failed), after their trials were counted with the returns.

        Raises:
            Interrupted: Ctrl-C was pressed.
            TimeLimitReached: the clock has reached `stop_at`.
        """
        while True:
            self._require_unstopped(stop_at)
            if not self._under_way and source.is_exhausted():
                return
            self._start_runs(source)
            source.keep_alive(self.under_way)
            for run, outcome in self._outcomes():
                if not source.is_ours(run):
                    continue
                if self._has_ended(run, outcome, source):
                    self._recorder.count(run)
                    yield run
                else:
                    self._submit(run)
                source.report_progress(self.under_way)

    def look_at_held_out(self, best: TrialRun, defaults: TrialRun) -> HeldOutSharpe:
        """Evaluate the best parameters and the defaults on the held-out bars, counted as trials.

        Raises:
            Interrupted: Ctrl-C was pressed.
        """
        # the defaults may be the best: the same trials are evaluated once
        distinct = {run.ids: run for run in (best, defaults)}
        ended = {run.ids: run for run in self.evaluate(RunQueue(distinct.values()))}
        sharpes = {ids: self.completed_sharpe(run) for ids, run in ended.items()}
        intervals = {
            ids: None if sharpes[ids] is None else self.sharpe_interval(self.backtests(run))
            for ids, run in ended.items()
        }
        return HeldOutSharpe(
            bars=self.held_out_bars,
            best=sharpes[best.ids],
            defaults=sharpes[defaults.ids],
            best_interval=intervals[best.ids],
            defaults_interval=intervals[defaults.ids],
        )

    def backtests(self, run: TrialRun) -> list[Backtest]:
        """Backtests over the folds completed so far, one per seed."""
        return seed_backtests(run, self._bars, self._market)

    def sharpe_ratios(self, backtests: Iterable[Backtest]) -> list[float]:
        """Annualised Sharpe ratios."""
        return [float(sharpe_ratio(each.returns, self._bars.periods_per_year)) for each in backtests]

    def sharpe_interval(self, backtests: Sequence[Backtest]) -> IntervalEstimate | None:
        """Mean of the annualised Sharpe ratios of backtests over the same bars, with the interval of 95 %.

        Returns:
            None where no interval can be measured.
        """
        returns = [each.returns for each in backtests]
        mean = float(np.mean(self.sharpe_ratios(backtests)))
        return sharpe_estimate(mean, returns, self._bars.periods_per_year)

    def mean_sharpe(self, run: TrialRun) -> float:
        """Annualised Sharpe ratio over the folds completed so far, mean of the seeds; may be NaN."""
        return float(np.mean(self.sharpe_ratios(self.backtests(run))))

    def completed_sharpe(self, run: TrialRun) -> float | None:
        """Annualised Sharpe ratio, mean of the seeds; None if the run failed or the ratio is not finite."""
        if not run.is_done:
            return None
        ratio = self.mean_sharpe(run)
        return ratio if math.isfinite(ratio) else None

    def degeneracy(self, run: TrialRun) -> str | None:
        """Reason against ranking a run, or None; see `degeneracy`."""
        return degeneracy(np.concatenate(run.positions), self.backtests(run))

    def _require_unstopped(self, stop_at: datetime | None) -> None:
        if self._interrupted.is_set():
            raise Interrupted
        if stop_at is not None and self._clock() >= stop_at:
            raise TimeLimitReached

    def _start_runs(self, source: RunSource) -> None:
        while len(self._under_way) < self._workers.count and (run := source.next()) is not None:
            self._recorder.begin(run)
            self._submit(run)

    def _submit(self, run: TrialRun) -> None:
        self._under_way[self._workers.submit(run.next_fold())] = run

    def _outcomes(self) -> Iterator[tuple[TrialRun, Floats | Failure]]:
        """Folds that have ended, after a wait of at most `POLL_SECONDS`."""
        if not self._under_way:
            # the last runs of the source are evaluated by another command
            time.sleep(POLL_SECONDS)
        done, _ = wait(self._under_way, POLL_SECONDS, FIRST_COMPLETED)
        for future in done:
            yield self._under_way.pop(future), self._workers.result(future)

    def _has_ended(self, run: TrialRun, outcome: Floats | Failure, source: RunSource) -> bool:
        if isinstance(outcome, Failure):
            if outcome.lost and run.attempts < MAX_ATTEMPTS:
                run.attempts += 1
                return False
            run.failure = outcome.cause
            return True
        run.add(outcome)
        if run.is_done:
            return True
        run.is_pruned = run.is_between_folds and source.should_prune(run)
        return run.is_pruned


@contextlib.contextmanager
def open_evaluator(
    workers: Workers,
    search: Search,
    bars: Bars,
    market: MarketTerms,
    source: TrialSource,
    trials: TrialStore,
    clock: Callable[[], datetime],
) -> Iterator[Evaluator]:
    """An evaluator stopped by Ctrl-C, between two folds rather than within one.

    Raises:
        NotEnoughBars: a fold would have no rows to train or to test on.
    """
    with deferred_interrupt() as interrupted:
        recorder = TrialRecorder(trials, search, bars, market, source, clock)
        yield Evaluator(workers, search, bars, market, recorder, clock, interrupted)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """An event set by the first Ctrl-C; a second Ctrl-C interrupts as usual. Main thread only."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def on_interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)
