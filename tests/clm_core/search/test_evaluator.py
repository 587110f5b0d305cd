"""Evaluator: scheduling, attempts, counting, held-out bars and stops, on workers that are threads."""

import math
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tunings import Threads, a_request, own_market, own_symbol, threads

from clm_core.backtest.terms import MarketTerms
from clm_core.domain.searches import Tuning
from clm_core.domain.trials import TrialSource
from clm_core.market.bars import Floats
from clm_core.search.evaluator import (
    MAX_ATTEMPTS,
    Evaluator,
    Interrupted,
    RunQueue,
    TimeLimitReached,
    open_evaluator,
)
from clm_core.search.folds import FoldTask
from clm_core.search.request import search_bars
from clm_core.search.runs import TrialRun
from clm_core.search.tuning import open_tuning
from clm_core.search.workers import Failure
from clm_core.services import Services

FOLDS = 3


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    return own_market(services, tmp_path)


@pytest.fixture
def tuning(clm: Services) -> Tuning:
    return open_tuning(clm, a_request(symbol=own_symbol(clm)))


@contextmanager
def evaluator_on(workers: Threads, clm: Services, tuning: Tuning) -> Iterator[Evaluator]:
    bars = search_bars(clm.market, tuning)
    market = MarketTerms(tuning.terms)
    with open_evaluator(
        workers, tuning, bars, market, TrialSource.TUNING, clm.ledger.trials, clm.clock
    ) as evaluator:
        yield evaluator


def a_run(evaluator: Evaluator, tuning: Tuning) -> TrialRun:
    return evaluator.run(tuning.fixed, (uuid.uuid4(),))


def counted_days(clm: Services, tuning: Tuning) -> list[int]:
    """Number of counted daily returns of each trial; 0 for a trial that was only begun."""
    return [len(record.daily) for record in clm.ledger.trials.records(tuning.symbol, tuning.timeframe)]


class Lossy(Threads):
    """The worker of every fold but the first dies."""

    def result(self, future: Any) -> Floats | Failure:
        return super().result(future) if len(self.folds) == 1 else Failure("killed", lost=True)


class Interrupting(Threads):
    """Ctrl-C arrives while the second fold is computed."""

    def submit(self, fold_task: FoldTask) -> Any:
        if len(self.folds) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().submit(fold_task)


class Lost(RunQueue):
    """Another command takes every run over."""

    def is_ours(self, run: TrialRun) -> bool:
        return False


class Pruning(RunQueue):
    def should_prune(self, run: TrialRun) -> bool:
        return run.folds == 2


def test_a_run_whose_fold_is_lost_at_every_attempt_fails_and_is_counted(
    clm: Services, tuning: Tuning
) -> None:
    workers = threads(clm, tuning, Lossy)
    with evaluator_on(workers, clm, tuning) as evaluator:
        run = a_run(evaluator, tuning)
        assert list(evaluator.evaluate(RunQueue([run]))) == [run]
        assert run.failure == "killed"
        assert evaluator.completed_sharpe(run) is None
    assert len(workers.folds) == 1 + MAX_ATTEMPTS
    [days] = counted_days(clm, tuning)
    assert days > 0


def test_a_run_taken_over_by_another_command_ends_uncounted(clm: Services, tuning: Tuning) -> None:
    workers = threads(clm, tuning)
    with evaluator_on(workers, clm, tuning) as evaluator:
        assert list(evaluator.evaluate(Lost([a_run(evaluator, tuning)]))) == []
    assert len(workers.folds) == 1
    assert counted_days(clm, tuning) == [0]


def test_a_pruned_run_ends_after_the_fold_its_source_names(clm: Services, tuning: Tuning) -> None:
    workers = threads(clm, tuning)
    with evaluator_on(workers, clm, tuning) as evaluator:
        [run] = evaluator.evaluate(Pruning([a_run(evaluator, tuning)]))
        assert run.is_pruned
        assert evaluator.completed_sharpe(run) is None
        assert math.isfinite(evaluator.mean_sharpe(run))
    assert len(workers.folds) == 2


def test_as_many_runs_are_under_way_as_there_are_workers(clm: Services, tuning: Tuning) -> None:
    class Watched(RunQueue):
        def keep_alive(self, runs: Any) -> None:
            numbers.append(len(runs))

    numbers = list[int]()
    with evaluator_on(threads(clm, tuning, count=2), clm, tuning) as evaluator:
        runs = [a_run(evaluator, tuning) for _ in range(3)]
        assert set(evaluator.evaluate(Watched(runs))) == set(runs)
        assert all(run.is_done for run in runs)
    assert max(numbers) == 2
    assert len(counted_days(clm, tuning)) == 3


def test_defaults_that_are_the_best_parameters_are_evaluated_once_on_the_held_out_bars(
    clm: Services, tuning: Tuning
) -> None:
    workers = threads(clm, tuning)
    with evaluator_on(workers, clm, tuning) as evaluator:
        ids = (uuid.uuid4(),)
        best, defaults = (evaluator.held_out_run(tuning.fixed, ids) for _ in range(2))
        sharpe = evaluator.look_at_held_out(best, defaults)
        folds = len(best.fold_plan.folds)
        first_held_out = len(search_bars(clm.market, tuning)) - evaluator.held_out_bars
    assert sharpe.best == sharpe.defaults is not None
    assert sharpe.bars == evaluator.held_out_bars > 0
    assert len(workers.folds) == folds
    assert workers.folds[0].test.start == first_held_out
    assert len(counted_days(clm, tuning)) == 1


def test_ctrl_c_stops_between_two_folds_and_leaves_the_run_under_way(clm: Services, tuning: Tuning) -> None:
    workers = threads(clm, tuning, Interrupting)
    with evaluator_on(workers, clm, tuning) as evaluator:
        run = a_run(evaluator, tuning)
        with pytest.raises(Interrupted):
            list(evaluator.evaluate(RunQueue([run])))
        assert evaluator.under_way == (run,)
        assert 0 < run.folds < FOLDS
    assert counted_days(clm, tuning) == [0]


def test_a_time_limit_in_the_past_starts_no_run(clm: Services, tuning: Tuning) -> None:
    workers = threads(clm, tuning)
    with evaluator_on(workers, clm, tuning) as evaluator, pytest.raises(TimeLimitReached):
        list(evaluator.evaluate(RunQueue([a_run(evaluator, tuning)]), clm.clock() - timedelta(seconds=1)))
    assert workers.folds == []
    assert counted_days(clm, tuning) == []
