"""A study in Optuna's storage: which parameters to try next, and what came of those that were tried.

Any number of commands may work on one study, on any machine that reaches the database. Each gives a sign of
life for the trials it has under way; those of one that was killed are tried again, as the same trials. Which
parameters a trial is given follows from the study's seed, the trial's number and the results known by then:
worked on one trial at a time, a study comes out the same however often it is killed.
"""

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import numpy as np
from sqlalchemy import text

from clm_core.domain.errors import DatabaseUnavailable, MissingExtra, NothingTuned
from clm_core.domain.search_space import Between, Choice, Tuned
from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TrialState, Tried
from clm_core.platform.database import Database
from clm_core.platform.locks import AdvisoryLock

if TYPE_CHECKING:
    import optuna

HEARTBEAT_SECONDS = 3
STALE_AFTER_SECONDS = 15
"""Without a sign of life for so long, a trial's command is taken for dead."""
STARTUP_TRIALS = 10
"""Tried at random before any result is learnt from."""
FOLDS_BEFORE_PRUNING = 2
NUMBER, TRADES, SEEDS, CAUSE, UNSEEN = "number", "trades", "seeds", "cause", "unseen"
"""What is noted with a trial, or with the study, in Optuna's storage."""
SILENT = text("""
SELECT trial_id FROM trials
WHERE study_id = :study AND state = 'RUNNING' AND trial_id NOT IN (SELECT trial_id FROM trial_heartbeats)
""")
NAMESPACE = UUID("6f2d8d6e-3c1b-4b0e-9a58-3a5f6c2b7d10")


@dataclass(frozen=True)
class Attempt:
    """A trial that is under way."""

    number: int
    """Of the trial in its study; one that is tried again keeps it."""
    params: Mapping[str, Any]
    """Fixed and tried."""
    handle: "optuna.Trial"


class Study:
    """Every method is one or more transactions in Optuna's storage."""

    def __init__(self, study: "optuna.Study", storage: "optuna.storages.RDBStorage", tuning: Tuning) -> None:
        self._study, self._storage, self.tuning = study, storage, tuning

    def next(self, wanted: int) -> Attempt | None:
        """What to try next; None while as many as wanted have ended or are under way."""
        with self._turn():
            self._try_again_what_was_lost()
            trials = self._study.get_trials(deepcopy=False)
            if not trials:
                self._study.enqueue_trial(self._defaults())
            if len(ended(trials)) + len(_running(trials)) >= wanted:
                return None
            numbers = {trial.user_attrs[NUMBER] for trial in trials if NUMBER in trial.user_attrs}
            self._study.sampler = _sampler(self.tuning.seed, len(numbers))
            trial = self._study.ask(_distributions(self.tuning))
            if NUMBER not in trial.user_attrs:
                trial.set_user_attr(NUMBER, len(numbers))
            self._storage.record_heartbeat(trial._trial_id)
        return Attempt(trial.user_attrs[NUMBER], self.tuning.fixed | trial.params, trial)

    def is_done(self, wanted: int) -> bool:
        return len(ended(self._study.get_trials(deepcopy=False))) >= wanted

    def beat(self, attempts: Collection[Attempt]) -> None:
        """Give a sign of life."""
        for attempt in attempts:
            self._storage.record_heartbeat(attempt.handle._trial_id)

    def is_ours(self, attempt: Attempt) -> bool:
        """False: it was taken for lost, and somebody tries it again."""
        from optuna.trial import TrialState as State

        return bool(self._storage.get_trial(attempt.handle._trial_id).state is State.RUNNING)

    def is_hopeless(self, attempt: Attempt, folds: int, sharpe_ratio: float) -> bool:
        """Note a result after some folds; True: most others had done better by then. Never the defaults,
        which everything is compared with."""
        # what is reported first would stand for it: Optuna compares the best that a trial ever showed
        if folds < FOLDS_BEFORE_PRUNING:
            return False
        attempt.handle.report(sharpe_ratio, folds)
        return attempt.number != 0 and bool(attempt.handle.should_prune())

    def note(self, attempt: Attempt, seed_sharpes: Sequence[float], trades: int) -> None:
        """What it has done by now, for the report."""
        attempt.handle.set_user_attr(SEEDS, list(seed_sharpes))
        attempt.handle.set_user_attr(TRADES, trades)

    def complete(self, attempt: Attempt, sharpe_ratio: float) -> None:
        self._study.tell(attempt.handle, sharpe_ratio)

    def prune(self, attempt: Attempt) -> None:
        from optuna.trial import TrialState as State

        self._study.tell(attempt.handle, state=State.PRUNED)

    def fail(self, attempt: Attempt, cause: str) -> None:
        from optuna.trial import TrialState as State

        attempt.handle.set_user_attr(CAUSE, cause)
        self._study.tell(attempt.handle, state=State.FAIL)

    def give_back(self, attempt: Attempt) -> None:
        """To be tried again by whoever continues the study."""
        from optuna.trial import TrialState as State

        self._study.tell(attempt.handle, state=State.FAIL)
        _again(self._study, self._storage.get_trial(attempt.handle._trial_id))

    def trials(self) -> tuple[Tried, ...]:
        """Those that have ended, by number."""
        found = (_tried(trial, self.tuning) for trial in ended(self._study.get_trials(deepcopy=False)))
        return tuple(sorted(found, key=lambda tried: tried.number))

    def unseen(self, number: int) -> dict[str, float | None] | None:
        """What was noted of the bars held out when this trial was the best."""
        noted = self._study.user_attrs
        return noted[UNSEEN][str(number)] if UNSEEN in noted and str(number) in noted[UNSEEN] else None

    def note_unseen(self, number: int, measured: Mapping[str, float | None]) -> None:
        self._study.set_user_attr(UNSEEN, {str(number): dict(measured)})

    def ids_of(self, number: int) -> tuple[UUID, ...]:
        """Under which a trial is counted, one a seed: the same however often it is tried again."""
        return self._ids(f"{self.tuning.name}/{number}")

    def ids_of_unseen(self, number: int) -> tuple[UUID, ...]:
        """Under which the look at the bars held out is counted."""
        return self._ids(f"{self.tuning.name}/{number}/unseen")

    def _ids(self, what: str) -> tuple[UUID, ...]:
        more = (f"{what}/seed{number}" for number in range(1, self.tuning.seeds))
        return tuple(uuid5(NAMESPACE, name) for name in (what, *more))

    @property
    def optuna(self) -> "optuna.Study":
        """For Optuna's own plots."""
        return self._study

    def _defaults(self) -> dict[str, Choice]:
        return {name: tuned.default for name, tuned in self.tuning.space.items()}

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One command at a time decides: two would both see one trial left to try."""
        with self._storage.engine.begin() as connection:
            lock = {"first": AdvisoryLock.STUDY, "second": self.tuning.name}
            connection.execute(text("SELECT pg_advisory_xact_lock(:first, hashtext(:second))"), lock)
            yield

    def _try_again_what_was_lost(self) -> None:
        """Also what was killed before its first sign of life, in its turn, which Optuna would leave running
        for ever."""
        import optuna

        optuna.storages.fail_stale_trials(self._study)
        with self._storage.engine.begin() as connection:
            silent = connection.scalars(SILENT, {"study": self._study._study_id}).all()
        for trial_id in silent:
            self._storage.set_trial_state_values(trial_id, state=optuna.trial.TrialState.FAIL)
            _again(self._study, self._storage.get_trial(trial_id))


@contextlib.contextmanager
def open_study(database: Database, tuning: Tuning) -> Iterator[Study]:
    """
    Raises:
        MissingExtra: Optuna is not installed.
        DatabaseUnavailable: its tables are another release's.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "evolve") from error

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        # signs of life are called experimental, and are only given by themselves where Optuna runs the loop
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        storage = _storage(database)
        try:
            found = optuna.create_study(
                storage=storage,
                study_name=tuning.name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(),
            )
            yield Study(found, storage, tuning)
        finally:
            storage.engine.dispose()


def ended(trials: Sequence["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
    """Whatever they ended as; one that was lost and is tried again has not."""
    retried = {
        number
        for trial in trials
        if "retry_history" in trial.system_attrs
        for number in trial.system_attrs["retry_history"]
    }
    begun = [trial for trial in trials if NUMBER in trial.user_attrs]
    return [trial for trial in begun if trial.state.is_finished() and trial.number not in retried]


def is_tuned(trials: Sequence[Tried]) -> bool:
    """Whether one was completed."""
    return any(tried.state is TrialState.COMPLETE for tried in trials)


def best(trials: Sequence[Tried]) -> Tried:
    """Of those that were completed.

    Raises:
        NothingTuned: none was.
    """
    complete = [tried for tried in trials if tried.state is TrialState.COMPLETE]
    if not complete:
        causes = dict.fromkeys(tried.cause for tried in trials if tried.cause)
        why = f"the first failed of {next(iter(causes))}" if causes else "ask for more of them"
        raise NothingTuned(f"None of {len(trials)} trials was completed: {why}")
    # of equals the first: the defaults, if nothing does better
    return max(complete, key=lambda tried: (tried.sharpe_ratio, -tried.number))


def _storage(database: Database) -> Any:
    import optuna

    url = database.url("optuna")
    with _creation(url):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=STALE_AFTER_SECONDS,
                heartbeat_stale_trial_callback=_again,
            )
        except RuntimeError as error:
            raise DatabaseUnavailable(
                f"The studies in the database clm_optuna are another release's of Optuna: {error}"
            ) from error


@contextlib.contextmanager
def _creation(url: str) -> Iterator[None]:
    """Two commands would create the same tables; the second one finds them done."""
    from sqlalchemy import NullPool, create_engine

    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AdvisoryLock.STUDY})
        yield


def _again(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
    import optuna

    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)


def _sampler(seed: int, number: int) -> "optuna.samplers.BaseSampler":
    import optuna

    [mixed] = np.random.SeedSequence([seed, number]).generate_state(1)
    # what others have under way counts as poor: no two try nearly the same
    return optuna.samplers.TPESampler(seed=int(mixed), n_startup_trials=STARTUP_TRIALS, constant_liar=True)


def _distributions(tuning: Tuning) -> dict[str, Any]:
    return {name: _distribution(tuned) for name, tuned in tuning.space.items()}


def _distribution(tuned: Tuned) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = tuned.values
    if not isinstance(values, Between):
        return CategoricalDistribution(values.choices)
    if tuned.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _running(trials: Sequence["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
    from optuna.trial import TrialState as State

    return [trial for trial in trials if trial.state is State.RUNNING]


def _tried(trial: "optuna.trial.FrozenTrial", tuning: Tuning) -> Tried:
    from optuna.trial import TrialState as State

    states = {
        State.COMPLETE: TrialState.COMPLETE,
        State.PRUNED: TrialState.PRUNED,
        State.FAIL: TrialState.FAILED,
    }
    value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
    noted = {TRADES: None, SEEDS: (), CAUSE: None} | trial.user_attrs
    return Tried(
        number=noted[NUMBER],
        state=states[trial.state],
        params=tuning.fixed | trial.params,
        sharpe_ratio=value,
        trades=noted[TRADES],
        seed_sharpes=noted[SEEDS],
        cause=noted[CAUSE],
    )
