"""Measures of rule strategies in processes of this machine; they end with this one, even after SIGKILL."""

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from clm_core.domain.errors import WorkersLost
from clm_core.evolution.rule_objectives import MeasuredRules
from clm_core.evolution.strategies import Strategy
from clm_core.search.evaluator import MAX_ATTEMPTS, POLL_SECONDS, Interrupted
from clm_core.search.strategy_objectives import MeasureInputs, StrategyObjectives, divided, joined
from clm_core.search.workers import end_with_parent


@contextlib.contextmanager
def process_measures(
    count: int, inputs: MeasureInputs, interrupted: threading.Event
) -> Iterator["ProcessMeasures"]:
    """Measures by so many processes, which start with the first generation."""
    leash, ours = multiprocessing.get_context("spawn").Pipe(duplex=False)
    with leash:
        try:
            yield ProcessMeasures(count, inputs, leash, interrupted)
        finally:
            ours.close()


class ProcessMeasures:
    """Divides strategies among processes; what a killed process had is measured again."""

    def __init__(
        self, count: int, inputs: MeasureInputs, leash: Connection, interrupted: threading.Event
    ) -> None:
        self._count = count
        self._inputs = inputs
        self._leash = leash
        self._interrupted = interrupted
        self._pool = self._new_pool()

    def measure(self, strategies: Sequence[Strategy]) -> MeasuredRules:
        """
        Raises:
            Interrupted: Ctrl-C was pressed.
            WorkersLost: processes died three times over the same strategies.
        """
        parts = divided(strategies, self._count)
        measured = dict[int, MeasuredRules]()
        for _ in range(MAX_ATTEMPTS):
            measured |= self._measured({n: part for n, part in enumerate(parts) if n not in measured})
            if len(measured) == len(parts):
                return joined([measured[number] for number in range(len(parts))])
            # one killed process breaks the whole pool
            self._pool.shutdown()
            self._pool = self._new_pool()
        raise WorkersLost(MAX_ATTEMPTS, "a process ended abruptly")

    def _measured(self, parts: dict[int, Sequence[Strategy]]) -> dict[int, MeasuredRules]:
        """Measures by number of the part, without those of parts that were lost."""
        futures: dict[int, Future[MeasuredRules]] = {}
        with contextlib.suppress(BrokenProcessPool):
            for number, part in parts.items():
                futures[number] = self._pool.submit(_measure, part)
        while wait(futures.values(), POLL_SECONDS).not_done:
            if self._interrupted.is_set():
                raise Interrupted
        errors = {number: future.exception() for number, future in futures.items()}
        ended = [number for number, error in errors.items() if not isinstance(error, BrokenProcessPool)]
        return {number: futures[number].result() for number in ended}

    def _new_pool(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            self._count, mp_context=spawn, initializer=_begin, initargs=(self._inputs, self._leash)
        )


_objectives: StrategyObjectives | None = None


def _begin(inputs: MeasureInputs, leash: Connection) -> None:
    global _objectives  # noqa: PLW0603 - a pool's process has no other place for its initial arguments
    end_with_parent(leash)
    _objectives = inputs.objectives(threads=1)


def _measure(strategies: Sequence[Strategy]) -> MeasuredRules:
    assert _objectives is not None
    return _objectives.measure(strategies)
