"""Gaussian process over all trials of a study as sampler: Optuna's, which learns from completed trials alone.

Without the others it would propose the parameters of degenerate trials again and again, and those of trials
under way twice. A pruned trial is learned at its last intermediate value; a degenerate or failed trial, or a
trial under way, at the lowest value of a completed trial.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from clm_core.search.study_trials import DEGENERATE, STARTUP_TRIALS, ended, running


class GaussianProcess(BaseSampler):
    """Proposes the parameters of one trial; a study makes a sampler for each."""

    def __init__(self, seed: int, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)
        self._sampler = GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        self._random = RandomSampler(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        every = study.get_trials(deepcopy=False)
        begun = [
            each for each in (*ended(every), *running(every)) if search_space.keys() <= each.params.keys()
        ]
        learned = optuna.create_study(direction="maximize", sampler=self._sampler)
        for each, value in zip(begun, _values(begun), strict=True):
            params = {name: each.params[name] for name in search_space}
            learned.add_trial(create_trial(params=params, distributions=search_space, value=value))
        return learned.ask(search_space).params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, name, distribution)


def _values(trials: Sequence[FrozenTrial]) -> list[float]:
    """Value to learn from each trial."""
    completed = [
        each.value for each in trials if each.state is TrialState.COMPLETE and each.value is not None
    ]
    lowest = min(completed, default=0.0)
    values = [_own_value(each) for each in trials]
    return [lowest if value is None or not math.isfinite(value) else value for value in values]


def _own_value(trial: FrozenTrial) -> float | None:
    """Value of a completed trial, last intermediate value of a pruned one; None for any other."""
    if trial.state is TrialState.COMPLETE:
        return trial.value
    if trial.state is TrialState.PRUNED and DEGENERATE not in trial.user_attrs and trial.intermediate_values:
        return trial.intermediate_values[max(trial.intermediate_values)]
    return None
