"""Processes for tests to kill, forked from a parent with everything imported."""

import contextlib
import multiprocessing
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from patience import PATIENT_SECONDS

from clm_core.domain.faults import Fault
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.operation_settings import PolicySource
from clm_core.domain.vocabulary import ModelType
from clm_core.services import Services

REQUEST = RetrainRequest(
    model_type=ModelType.LIGHTGBM,
    symbol="BTCUSD",
    dataset_span_days=60,
    # so small a fit of the signs is short on every bar, which the gate refuses
    training_params={
        "rounds": 2,
        "threshold": 0,
        "label": "volatility_scaled_return",
        "calibrate": False,
        "horizon": 12,
    },
    requested_by="tests",
)
PROMOTION_FAULTS = [
    Fault.AFTER_INTENT,
    Fault.AFTER_ALIAS,
    Fault.AFTER_PREVIOUS,
    Fault.AFTER_TAGS,
    Fault.IN_COMMIT,
    Fault.AFTER_COMMIT,
]
"""Crash points of a promotion, in order."""
ANYTHING_PASSES = """
version = 1
preset = "thresholds-only"
[models.lightgbm_btcusd_1h.criteria]
min_sharpe_ratio = -1e9
min_win_rate = 0.0
min_profit_factor = 0.0
max_drawdown = 1.0
min_trades = 0
"""
RETRAIN = """
from clm_core.retraining import jobs, steps
from clm_core.services import open_services
with open_services(settings) as services:
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        evaluated = steps.evaluate_out_of_sample(services, lease, job, bars, trained)
        verdict = steps.judge(services, lease, version, evaluated)
        steps.report(services, job, version, bars, trained, evaluated, verdict)
"""
PARENT = """
import gc, multiprocessing, os
from sqlalchemy import Engine
# forked children cannot use the threads of a pool of the parent
os.environ["OMP_NUM_THREADS"] = "1"
exec(retrain, {"settings": settings, "request": request})
# nor its database connections
for engine in [item for item in gc.get_objects() if type(item) is Engine]:
    engine.dispose()
fork, children = multiprocessing.get_context("fork"), {}
pipe.send("ready")
while message := pipe.recv():
    if isinstance(message, int):
        children[message].join(300)
        pipe.send(children.pop(message).exitcode)
    else:
        child = fork.Process(target=exec, args=message)
        child.start()
        children[child.pid] = child
        pipe.send(child.pid)
"""


@dataclass(frozen=True)
class Parent:
    """A process with all imports, compilation and connections done, so that children start at once."""

    services: Services
    pipe: Connection

    def start(self, script: str, fault: Fault | None = None, **names: Any) -> int:
        """Run a script in a new process with a fault armed, and return the process id."""
        settings = self.services.settings.model_copy(update={"fault": fault})
        self.pipe.send((script, {"settings": settings} | names))
        return int(answer(self.pipe))

    def wait(self, child: int) -> int | None:
        """Exit code of a process, None while the process still runs after 300 s."""
        self.pipe.send(child)
        exit_code: int | None = answer(self.pipe)
        return exit_code

    def run(self, script: str, fault: Fault | None = None, **names: Any) -> int | None:
        return self.wait(self.start(script, fault, **names))

    def retrain(self, fault: Fault | None = None, **params: Any) -> tuple[TrainingJob, int | None]:
        """Job and exit code of a whole retrain.

        Args:
            params: training parameters in place of those of `REQUEST`.
        """
        changes = {"requested_by": str(uuid.uuid4()), "training_params": REQUEST.training_params | params}
        request = REQUEST.model_copy(update=changes)
        exit_code = self.run(RETRAIN, fault, request=request)
        [job] = [
            job for job in self.services.ledger.jobs(limit=5) if job.requested_by == request.requested_by
        ]
        return job, exit_code


def children(process: int) -> list[int]:
    """Process ids of the living children."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def assert_ended(processes: list[int]) -> None:
    """Wait for the end of the processes."""
    deadline = time.monotonic() + PATIENT_SECONDS
    while any(map(_is_alive, processes)):
        assert time.monotonic() < deadline, "processes live on"
        time.sleep(0.05)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answer(pipe: Connection) -> Any:
    assert pipe.poll(300), "the other process has not answered"
    return pipe.recv()


@contextlib.contextmanager
def parent_of(services: Services) -> Iterator[Parent]:
    """A parent whose children's retrains pass the gate."""
    policy = services.settings.home / "anything-passes.toml"
    policy.write_text(ANYTHING_PASSES)
    settings = services.settings.model_copy(update={"policy": PolicySource(file=policy)})
    spawn = multiprocessing.get_context("spawn")
    pipe, other_end = spawn.Pipe()
    names = {"pipe": other_end, "settings": settings, "request": REQUEST, "retrain": RETRAIN}
    process = spawn.Process(target=exec, args=(PARENT, names))
    process.start()
    other_end.close()
    try:
        assert answer(pipe) == "ready"
        yield Parent(replace(services, settings=settings), pipe)
        pipe.send(None)
        process.join(PATIENT_SECONDS)
    finally:
        process.kill()
