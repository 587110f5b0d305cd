"""Measures of rule strategies on the machines of a Ray cluster.

An actor on each processor holds the bars, the terms and the objectives, which are sent to each machine once.
The measures of a candidate do not depend on the others measured with it: a search finds the same, to the last
bit, for any number of actors, and what a lost actor had is measured again by another one.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from clm_core.domain.errors import WorkersLost
from clm_core.evolution.rule_objectives import MeasuredRules
from clm_core.evolution.strategies import Strategy
from clm_core.search.evaluator import MAX_ATTEMPTS, POLL_SECONDS, Interrupted
from clm_core.search.ray_workers import connection
from clm_core.search.strategy_objectives import MeasureInputs, divided, joined


@contextlib.contextmanager
def ray_measures(
    address: str | None, count: int | None, inputs: MeasureInputs, interrupted: threading.Event
) -> Iterator["RayMeasures"]:
    """Measures on a running cluster, by one actor for each processor unless a number is given.

    Raises:
        MissingExtra: Ray is not installed.
        ServerUnavailable: the cluster does not answer, or refuses the token.
    """
    with connection(address) as processors:
        yield RayMeasures(count or processors, inputs, interrupted)


class Measurer:
    """Actor."""

    def __init__(self, inputs: MeasureInputs) -> None:
        self._objectives = inputs.objectives(threads=1)

    def is_ready(self) -> bool:
        return True

    def measure(self, strategies: Sequence[Strategy]) -> MeasuredRules:
        return self._objectives.measure(strategies)


class RayMeasures:
    """Divides strategies among actors; an actor without a processor waits and is given nothing."""

    def __init__(self, count: int, inputs: MeasureInputs, interrupted: threading.Event) -> None:
        import ray

        self._count = count
        self._interrupted = interrupted
        self._new_actor: Any = ray.remote(num_cpus=1)(Measurer)
        self._inputs = ray.put(inputs)
        self._idle = deque[Any]()
        self._busy = dict[Any, tuple[Any, int | None]]()
        """Actor and number of the part by result; None for an actor that starts."""
        self._lost = 0
        """Actors lost one after the other, without a result between them."""
        for _ in range(count):
            self._start()

    def measure(self, strategies: Sequence[Strategy]) -> MeasuredRules:
        """
        Raises:
            Interrupted: Ctrl-C was pressed.
            WorkersLost: actor after actor is lost.
        """
        parts = divided(strategies, self._count)
        waiting = deque(range(len(parts)))
        measured = dict[int, MeasuredRules]()
        while len(measured) < len(parts):
            self._hand_out(parts, waiting)
            for part, result in self._results():
                if result is None:
                    waiting.append(part)
                else:
                    measured[part] = result
        return joined([measured[part] for part in range(len(parts))])

    def _start(self) -> None:
        actor = self._new_actor.remote(self._inputs)
        self._busy[actor.is_ready.remote()] = (actor, None)

    def _hand_out(self, parts: Sequence[Sequence[Strategy]], waiting: deque[int]) -> None:
        while waiting and self._idle:
            actor = self._idle.popleft()
            part = waiting.popleft()
            self._busy[actor.measure.remote(parts[part])] = (actor, part)

    def _results(self) -> Iterator[tuple[int, MeasuredRules | None]]:
        """Parts that have ended, after a wait of at most `POLL_SECONDS`; None where the actor was lost."""
        import ray

        if self._interrupted.is_set():
            raise Interrupted
        ended, _ = ray.wait(list(self._busy), timeout=POLL_SECONDS)
        for reference in ended:
            actor, part = self._busy.pop(reference)
            result = self._result(reference)
            if result is None:
                self._start()
            else:
                self._idle.append(actor)
            if part is not None:
                yield part, result

    def _result(self, reference: Any) -> Any:
        """Result of a call; None if the actor was lost.

        Raises:
            WorkersLost: actor after actor is lost.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            result = ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            self._lost += 1
            if self._lost > MAX_ATTEMPTS * self._count:
                raise WorkersLost(self._lost, error) from error
            return None
        self._lost = 0
        return result
