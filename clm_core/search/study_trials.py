"""Trials of a study in Optuna's storage, as the study and its samplers read them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 10
"""Random trials before the sampler uses any result."""
# Attributes of a trial in Optuna's storage.
NUMBER = "number"
DEGENERATE = "degenerate"


def ended(trials: Sequence["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
    """Finished trials in any state, except lost trials that are evaluated again."""
    retried = {
        number
        for trial in trials
        if "retry_history" in trial.system_attrs
        for number in trial.system_attrs["retry_history"]
    }
    begun = [trial for trial in trials if NUMBER in trial.user_attrs]
    return [trial for trial in begun if trial.state.is_finished() and trial.number not in retried]


def running(trials: Sequence["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
    from optuna.trial import TrialState as State

    return [trial for trial in trials if trial.state is State.RUNNING]
