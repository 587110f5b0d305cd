"""Places of a training: equal results, errors, time limit and interruption."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENT_SECONDS
from trainings import a_spec

from clm_core.domain.errors import NotEnoughBars, TrainingFailed
from clm_core.market.bars import Bars
from clm_core.retraining import training
from clm_core.retraining.training import TrainingSpec
from clm_core.retraining.training_following import TrainingTask
from clm_core.retraining.training_places import subprocess_of, train_in_subprocess
from clm_core.services import Services

QUICK = {"rounds": 2}
ENDLESS = {"rounds": 10_000, "learning_rate": 1e-6, "early_stopping_rounds": 10_000, "num_leaves": 1024}


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", days=60, closed_by=services.clock())


def a_task(spec: TrainingSpec, bars: Bars, folder: Path) -> TrainingTask:
    return TrainingTask("job", spec, bars, folder, None)


def ignore(step: str, share: float) -> None:
    pass


def test_a_subprocess_gives_the_same_results_as_inline_training(bars: Bars, tmp_path: Path) -> None:
    inline = tmp_path / "inline"
    isolated = tmp_path / "isolated"
    steps: list[tuple[str, float]] = []
    inline.mkdir()
    training.train(a_spec(QUICK, seeds=2), bars, inline, ignore)
    task = a_task(a_spec(QUICK, seeds=2), bars, isolated)
    train_in_subprocess(task, lambda *step: steps.append(step), 60)
    own = training.read(inline, bars)
    other = training.read(isolated, bars)
    assert other.bundle_digest == own.bundle_digest
    assert len(other.out_of_sample) == 2
    for one, another in zip(own.out_of_sample, other.out_of_sample, strict=True):
        assert one.positions.tobytes() == another.positions.tobytes()
        assert one.folds == another.folds
        assert [sum(fold.importances.values()) for fold in one.folds] == pytest.approx([1.0, 1.0])
        assert one.rows == another.rows
        assert one.returns is not None
        assert another.returns is not None
        assert one.returns.expected.tobytes() == another.returns.expected.tobytes()
        assert np.isfinite(one.returns.expected[one.rows]).all()
        assert np.isnan(one.returns.expected[: one.rows.start]).all()
    assert (other.params, other.importances) == (own.params, own.importances)
    assert {name for name, _ in steps} == {"Walk-forward", "Final fit", "Looking for leaks"}
    shares = [share for _, share in steps]
    assert shares == sorted(shares)
    # results of the release before, without forecasts of returns
    with np.load(inline / training.OUT_OF_SAMPLE) as stored:
        older = {name: stored[name] for name in stored if name.startswith(training.ARRAYS)}
    np.savez(inline / training.OUT_OF_SAMPLE, allow_pickle=False, **older)
    [run, _] = training.read(inline, bars).out_of_sample
    assert run.returns is None
    assert run.positions.tobytes() == own.out_of_sample[0].positions.tobytes()


def test_an_error_of_the_training_reaches_the_caller(bars: Bars, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughBars, match="give more days of bars"):
        train_in_subprocess(a_task(a_spec(QUICK), bars[:50], tmp_path), ignore, 60)
    assert not training.is_complete(tmp_path)


def test_native_code_ends_at_the_time_limit(bars: Bars, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"took longer than 4 s.*raise training\.limit_seconds"):
        train_in_subprocess(a_task(a_spec(ENDLESS), bars, tmp_path), ignore, 4)
    assert trainers(tmp_path) == []


def test_native_code_ends_with_an_interruption(bars: Bars, tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    started = threading.Event()

    def at_first(step: str, share: float) -> None:
        if not started.is_set():
            started.set()
            threading.Timer(0.2, interrupt).start()

    with pytest.raises(KeyboardInterrupt):
        train_in_subprocess(a_task(a_spec(ENDLESS), bars, tmp_path), at_first, 60)
    assert trainers(tmp_path) == []


def test_a_killed_subprocess_is_reported_with_the_signal(bars: Bars, tmp_path: Path) -> None:
    def kill(step: str, share: float) -> None:
        for process in trainers(tmp_path):
            os.kill(process, signal.SIGKILL)

    with pytest.raises(TrainingFailed, match="killed by signal 9; the system sends it when memory runs out"):
        train_in_subprocess(a_task(a_spec(ENDLESS), bars, tmp_path), kill, 60)


def test_an_orphaned_subprocess_ends_by_itself(bars: Bars, tmp_path: Path) -> None:
    training.write_input(a_spec(ENDLESS), bars, tmp_path)
    with subprocess_of(a_task(a_spec(ENDLESS), bars, tmp_path)) as remote:
        assert remote.process.stdin is not None
        remote.process.stdin.close()
        assert remote.process.wait(PATIENT_SECONDS) == 1


def trainers(folder: Path) -> list[int]:
    """Process ids of the training subprocesses of a folder."""
    time.sleep(0.1)
    processes = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"clm_core.retraining.training" in words and str(folder).encode() in words:
            processes.append(int(line.parent.name))
    return processes
