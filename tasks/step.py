"""Decorator of a step: a task of Prefect within a flow run, a plain call in a command without a server."""

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from clm_core.platform.flow_run import current_run

P = ParamSpec("P")
R = TypeVar("R")


def step(run_name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A step whose result is never cached: results depend on the ledger, or arguments are large.

    Args:
        run_name: name of the task's runs, with the step's arguments in braces; by default the function's.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @cache
        def as_task() -> Callable[..., R]:
            from prefect import task
            from prefect.cache_policies import NO_CACHE

            return task(cache_policy=NO_CACHE, task_run_name=run_name)(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if current_run() is None:
                return function(*args, **kwargs)
            from prefect.utilities.annotations import opaque

            # Prefect would look for results of other tasks inside of bars and models
            named = {name: opaque(value) for name, value in kwargs.items()}
            return as_task()(*map(opaque, args), **named)

        return call

    return decorate
