"""Local workers: a killed process is replaced, and no process outlives its use."""

import os
import signal
from concurrent.futures import wait
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from processes import assert_ended

from clm_core.domain.costs import Costs
from clm_core.domain.kinds import Kind
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Floats
from clm_core.market.sources import MarketData
from clm_core.search.folds import FoldTask, SharedInputs, run_fold
from clm_core.search.workers import Failure, LocalWorkers, local_workers

FOLD = FoldTask({"rounds": 5, "threshold": 0.0}, 0, slice(0, 800), slice(810, 1000))


def shared_inputs() -> SharedInputs:
    bars = MarketData(Path("/nonexistent")).bars("BTCUSD", "1h", days=60, closed_by=datetime.now(UTC))
    return SharedInputs(Kind(ModelType.LIGHTGBM), Costs(), bars)


def processes(workers: LocalWorkers) -> list[int]:
    pools = [*workers._free, *workers._busy.values()]
    return [number for pool in pools for number in pool._processes or ()]


def computed(workers: LocalWorkers) -> Floats:
    """Positions of the fold; submits again, as the evaluator does, if the pool notices the kill late."""
    future = workers.submit(FOLD)
    wait([future])
    answer = workers.result(future)
    if not isinstance(answer, Failure):
        return answer
    assert answer.lost
    return computed(workers)


def test_a_killed_worker_is_replaced_by_a_worker_with_the_results_of_this_process() -> None:
    inputs = shared_inputs()
    with local_workers(1, inputs) as workers:
        killed = workers.submit(FOLD)
        [process] = processes(workers)
        os.kill(process, signal.SIGKILL)
        wait([killed])
        lost = workers.result(killed)
        assert isinstance(lost, Failure)
        assert lost.lost
        again = workers.submit(FOLD)
        wait([again])
        assert np.array_equal(workers.result(again), run_fold(inputs, FOLD))
        failing = workers.submit(FoldTask({"speed": 9}, 0, FOLD.train, FOLD.test))
        wait([failing])
        failure = workers.result(failing)
        assert isinstance(failure, Failure)
        assert not failure.lost
        assert failure.cause.startswith("InvalidTrainingParams: lightgbm cannot be trained")
        [idle] = processes(workers)
        os.kill(idle, signal.SIGKILL)
        assert_ended([idle])
        assert np.array_equal(computed(workers), run_fold(inputs, FOLD))
        left = processes(workers)
    assert_ended(left)


@pytest.mark.parametrize("count", [1, 3])
def test_the_requested_number_of_workers_starts_no_process_before_the_first_fold(count: int) -> None:
    with local_workers(count, shared_inputs()) as workers:
        assert workers.count == count
        assert processes(workers) == []
