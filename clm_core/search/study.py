"""A study in Optuna's storage: proposes the parameters of trials and keeps the results.

Any number of commands may work on one study, on any machine that reaches the database. A command records
heartbeats for its trials; trials of a killed command are evaluated again, as the same trials. The parameters
of a trial follow from the study's seed, the trial's number and the results known by then: worked on one trial
at a time, a study ends with the same results however often a command is killed.
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
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.search_space import Between, Choice, SearchDimension
from clm_core.domain.searches import Sampler, Tuning
from clm_core.domain.tuning import TrialResult, TrialState
from clm_core.platform.database import Database
from clm_core.platform.locks import AdvisoryLock
from clm_core.search.study_trials import DEGENERATE, NUMBER, STARTUP_TRIALS, ended, running

if TYPE_CHECKING:
    import optuna

HEARTBEAT_SECONDS = 3
STALE_AFTER_SECONDS = 15
"""Time without a heartbeat after which the command of a trial is presumed dead."""
FOLDS_BEFORE_PRUNING = 2
# Attributes of a trial, or of the study, in Optuna's storage.
TRADES = "trades"
SEEDS = "seeds"
CAUSE = "cause"
INTERVAL = "interval"
HELD_OUT = "unseen"
WITHOUT_HEARTBEAT = text("""
SELECT trial_id FROM trials
WHERE study_id = :study AND state = 'RUNNING' AND trial_id NOT IN (SELECT trial_id FROM trial_heartbeats)
""")
NAMESPACE = UUID("6f2d8d6e-3c1b-4b0e-9a58-3a5f6c2b7d10")


@dataclass(frozen=True)
class OpenTrial:
    """A trial under way."""

    number: int
    """Number of the trial in its study, kept when the trial is evaluated again."""
    params: Mapping[str, Any]
    """Fixed and searched parameters."""
    handle: "optuna.Trial"


class Study:
    """An Optuna study. Every method is at least one transaction in Optuna's storage."""

    def __init__(self, study: "optuna.Study", storage: "optuna.storages.RDBStorage", tuning: Tuning) -> None:
        self._study = study
        self._storage = storage
        self.tuning = tuning

    def next(self, requested: int) -> OpenTrial | None:
        """The next trial to evaluate; None if the requested number of trials has ended or is under way."""
        with self._proposal_lock():
            self._retry_lost_trials()
            trials = self._study.get_trials(deepcopy=False)
            if not trials:
                self._study.enqueue_trial(self._defaults())
            if len(ended(trials)) + len(running(trials)) >= requested:
                return None
            numbers = {trial.user_attrs[NUMBER] for trial in trials if NUMBER in trial.user_attrs}
            self._study.sampler = _sampler(self.tuning, len(numbers))
            trial = self._study.ask(_distributions(self.tuning))
            if NUMBER not in trial.user_attrs:
                trial.set_user_attr(NUMBER, len(numbers))
            self._storage.record_heartbeat(trial._trial_id)
        return OpenTrial(trial.user_attrs[NUMBER], self.tuning.fixed | trial.params, trial)

    def is_done(self, requested: int) -> bool:
        return len(ended(self._study.get_trials(deepcopy=False))) >= requested

    def record_heartbeats(self, trials: Collection[OpenTrial]) -> None:
        for trial in trials:
            self._storage.record_heartbeat(trial.handle._trial_id)

    def is_ours(self, trial: OpenTrial) -> bool:
        """False if the trial was presumed lost and another command evaluates it again."""
        from optuna.trial import TrialState as State

        return bool(self._storage.get_trial(trial.handle._trial_id).state is State.RUNNING)

    def should_prune(self, trial: OpenTrial, folds: int, sharpe_ratio: float) -> bool:
        """Record an intermediate result; True if most other trials did better by the same fold.

        The defaults are never pruned: every other trial is compared with them.
        """
        # Optuna compares the best value a trial ever reported: a lucky first fold would protect the trial
        if folds < FOLDS_BEFORE_PRUNING:
            return False
        trial.handle.report(sharpe_ratio, folds)
        return trial.number != 0 and bool(trial.handle.should_prune())

    def note(
        self,
        trial: OpenTrial,
        seed_sharpes: Sequence[float],
        trades: int,
        interval: IntervalEstimate | None = None,
    ) -> None:
        """Store results for the report."""
        if interval is not None:
            trial.handle.set_user_attr(INTERVAL, interval.model_dump())
        trial.handle.set_user_attr(SEEDS, list(seed_sharpes))
        trial.handle.set_user_attr(TRADES, trades)

    def complete(self, trial: OpenTrial, sharpe_ratio: float) -> None:
        self._study.tell(trial.handle, sharpe_ratio)

    def prune(self, trial: OpenTrial) -> None:
        from optuna.trial import TrialState as State

        self._study.tell(trial.handle, state=State.PRUNED)

    def mark_degenerate(self, trial: OpenTrial, cause: str) -> None:
        """End a measured trial without a rank: for the sampler, worse than every completed trial."""
        trial.handle.set_user_attr(DEGENERATE, cause)
        self.prune(trial)

    def fail(self, trial: OpenTrial, cause: str) -> None:
        from optuna.trial import TrialState as State

        trial.handle.set_user_attr(CAUSE, cause)
        self._study.tell(trial.handle, state=State.FAIL)

    def give_back(self, trial: OpenTrial) -> None:
        """Queue an unfinished trial for the next command that works on the study."""
        from optuna.trial import TrialState as State

        self._study.tell(trial.handle, state=State.FAIL)
        _enqueue_again(self._study, self._storage.get_trial(trial.handle._trial_id))

    def trials(self) -> tuple[TrialResult, ...]:
        """Ended trials, by number."""
        results = (_trial_result(each, self.tuning) for each in ended(self._study.get_trials(deepcopy=False)))
        return tuple(sorted(results, key=lambda result: result.number))

    def held_out_sharpe(self, number: int) -> dict[str, Any] | None:
        """Stored Sharpe ratios on the held-out bars, if measured when this trial was the best."""
        stored: dict[str, dict[str, Any]] = self._study.user_attrs.get(HELD_OUT, {})
        return stored.get(str(number))

    def note_held_out_sharpe(self, number: int, sharpes: Mapping[str, Any]) -> None:
        self._study.set_user_attr(HELD_OUT, {str(number): dict(sharpes)})

    def ids_of(self, number: int) -> tuple[UUID, ...]:
        """Ids of a trial in the trial ledger, one per seed: the same at every evaluation."""
        return self._ids(f"{self.tuning.name}/{number}")

    def held_out_ids(self, number: int) -> tuple[UUID, ...]:
        """Ids in the trial ledger of a trial's evaluation on the held-out bars, one per seed."""
        return self._ids(f"{self.tuning.name}/{number}/unseen")

    def _ids(self, name: str) -> tuple[UUID, ...]:
        more = (f"{name}/seed{number}" for number in range(1, self.tuning.seeds))
        return tuple(uuid5(NAMESPACE, each) for each in (name, *more))

    @property
    def optuna(self) -> "optuna.Study":
        """The study as Optuna's plots take it."""
        return self._study

    def _defaults(self) -> dict[str, Choice]:
        return {name: dimension.default for name, dimension in self.tuning.space.items()}

    @contextlib.contextmanager
    def _proposal_lock(self) -> Iterator[None]:
        """Exclusive right to propose: two commands at once would both see one trial left to start."""
        with self._storage.engine.begin() as connection:
            lock = {"first": AdvisoryLock.STUDY, "second": self.tuning.name}
            connection.execute(text("SELECT pg_advisory_xact_lock(:first, hashtext(:second))"), lock)
            yield

    def _retry_lost_trials(self) -> None:
        """Queue lost trials again, also trials without any heartbeat, which Optuna would leave running."""
        import optuna

        optuna.storages.fail_stale_trials(self._study)
        with self._storage.engine.begin() as connection:
            silent = connection.scalars(WITHOUT_HEARTBEAT, {"study": self._study._study_id}).all()
        for trial_id in silent:
            self._storage.set_trial_state_values(trial_id, state=optuna.trial.TrialState.FAIL)
            _enqueue_again(self._study, self._storage.get_trial(trial_id))


@contextlib.contextmanager
def open_study(database: Database, tuning: Tuning) -> Iterator[Study]:
    """The study of a tuning, created at the first call.

    Raises:
        MissingExtra: Optuna is not installed.
        DatabaseUnavailable: Optuna's tables belong to another release of Optuna.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "evolve") from error

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        # heartbeats are experimental in Optuna, and automatic only where Optuna runs the loop
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        storage = _storage(database)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=tuning.name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(),
            )
            yield Study(study, storage, tuning)
        finally:
            storage.engine.dispose()


def has_completed(trials: Sequence[TrialResult]) -> bool:
    """True if at least one trial was completed."""
    return any(trial.state is TrialState.COMPLETE for trial in trials)


def best(trials: Sequence[TrialResult]) -> TrialResult:
    """The completed trial with the highest Sharpe ratio.

    Raises:
        NothingTuned: no trial was completed.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        degenerate = [trial.cause for trial in trials if trial.state is TrialState.DEGENERATE]
        if degenerate:
            raise NothingTuned(f"None of {len(trials)} trials can be ranked: the first is {degenerate[0]}")
        causes = dict.fromkeys(trial.cause for trial in trials if trial.cause)
        why = f"the first failed of {next(iter(causes))}" if causes else "request more trials"
        raise NothingTuned(f"None of {len(trials)} trials was completed: {why}")
    # of equals the first: the defaults, if no trial does better
    return max(complete, key=lambda trial: (trial.sharpe_ratio, -trial.number))


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
                heartbeat_stale_trial_callback=_enqueue_again,
            )
        except RuntimeError as error:
            raise DatabaseUnavailable(
                f"The studies in the database clm_optuna belong to another release of Optuna: {error}"
            ) from error


@contextlib.contextmanager
def _creation(url: str) -> Iterator[None]:
    """Exclusive creation of Optuna's tables: two commands at once would create the same tables."""
    from sqlalchemy import NullPool, create_engine

    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AdvisoryLock.STUDY})
        yield


def _enqueue_again(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
    import optuna

    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)


def _sampler(tuning: Tuning, number: int) -> "optuna.samplers.BaseSampler":
    """Sampler of a trial, which depends on the seed and the trial's number alone."""
    import optuna

    [mixed] = np.random.SeedSequence([tuning.seed, number]).generate_state(1)
    if tuning.sampler is Sampler.GP:
        from clm_core.search.gaussian_process import GaussianProcess

        return GaussianProcess(int(mixed), _distributions(tuning))
    # constant_liar: trials under way count as poor, so that no two workers evaluate similar parameters
    return optuna.samplers.TPESampler(seed=int(mixed), n_startup_trials=STARTUP_TRIALS, constant_liar=True)


def _distributions(tuning: Tuning) -> dict[str, Any]:
    return {name: _distribution(dimension) for name, dimension in tuning.space.items()}


def _distribution(dimension: SearchDimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = dimension.values
    if not isinstance(values, Between):
        return CategoricalDistribution(values.choices)
    if dimension.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _trial_result(trial: "optuna.trial.FrozenTrial", tuning: Tuning) -> TrialResult:
    from optuna.trial import TrialState as State

    states = {
        State.COMPLETE: TrialState.COMPLETE,
        State.PRUNED: TrialState.PRUNED,
        State.FAIL: TrialState.FAILED,
    }
    value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
    missing = {TRADES: None, SEEDS: (), CAUSE: None, DEGENERATE: None, INTERVAL: None}
    stored = missing | trial.user_attrs
    is_degenerate = stored[DEGENERATE] is not None
    return TrialResult(
        number=stored[NUMBER],
        state=TrialState.DEGENERATE if is_degenerate else states[trial.state],
        params=tuning.fixed | trial.params,
        sharpe_ratio=float(np.mean(stored[SEEDS])) if is_degenerate else value,
        sharpe_interval=stored[INTERVAL],
        trades=stored[TRADES],
        seed_sharpes=stored[SEEDS],
        cause=stored[DEGENERATE] or stored[CAUSE],
    )
