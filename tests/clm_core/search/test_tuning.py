"""Studies on a real PostgreSQL: trials, counting, continuation and refusals."""

import contextlib
import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from tunings import Threads, a_request, own_market, own_symbol, tune

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.errors import (
    CLMError,
    InvalidTrainingParams,
    MissingExtra,
    NotEnoughBars,
    NotFound,
    NothingTuned,
    StudyDiffers,
)
from clm_core.domain.search_space import Between, SearchDimension
from clm_core.domain.searches import Sampler, Tuning
from clm_core.domain.terms import GeneralCostSettings
from clm_core.domain.tuning import StopReason, TrialResult, TrialState, TuneRequest
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.evidence.trials import TrialRecord, count_trials
from clm_core.ledger.audit_log import entries
from clm_core.market.bars import Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.models import catalog
from clm_core.search import engines, tuning
from clm_core.search import study as studies
from clm_core.search.folds import FoldTask
from clm_core.search.request import search_bars
from clm_core.search.study_trials import STARTUP_TRIALS
from clm_core.search.workers import Failure
from clm_core.services import Services, open_ledger


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    return own_market(services, tmp_path)


@pytest.fixture
def planted(clm: Services, tmp_path: Path) -> Services:
    """A market with autocorrelated hourly returns and without trading costs."""
    steps = np.random.default_rng(3).normal(0, 0.005, 2160)
    for t in range(1, len(steps)):
        steps[t] += 0.85 * steps[t - 1]
    close = 1000 * np.exp(np.cumsum(steps - steps.mean()))
    opened = np.append(close[:1], close[:-1])
    bars = replace(
        clm.market.bars("BTCUSD", "1h", closed_by=clm.clock())[-len(steps) :],
        symbol="PLANTED",
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
    )
    SeriesStore(tmp_path / "planted" / "data").add(bars, "tests", clm.clock())
    free = clm.settings.model_copy(update={"costs": GeneralCostSettings(fee_bps=0.0, slippage_bps=0.0)})
    return replace(clm, settings=free, open_market=lambda: MarketData(tmp_path / "planted"))


def request_for(clm: Services, **changes: Any) -> TuneRequest:
    return a_request(symbol=own_symbol(clm), **changes)


def counted(clm: Services, request: TuneRequest) -> list[TrialRecord]:
    return clm.ledger.trials.records(request.symbol, request.timeframe)


def unknown(records: list[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if len(record.daily) == 0]


def ended_trials(clm: Services, request: TuneRequest) -> tuple[TrialResult, ...]:
    """Trials of a study, whether one of them can be ranked or not."""
    with contextlib.suppress(NothingTuned):
        tune(clm, request)
    assert request.study is not None
    with studies.open_study(clm.database, clm.ledger.tunings.find(request.study)) as study:
        return study.trials()


class Killed(Exception):
    """Stands for SIGKILL of the whole command."""


class Dying(Threads):
    """The command is killed while the fifth fold is computed."""

    def submit(self, fold_task: FoldTask) -> Any:
        if len(self.folds) == 4:
            raise Killed
        return super().submit(fold_task)


@pytest.fixture
def soon_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a killed command count as lost after a second."""
    monkeypatch.setattr(studies, "STALE_AFTER_SECONDS", 1)


def test_a_study_has_the_requested_number_of_trials_each_counted_and_finds_the_best(clm: Services) -> None:
    request = request_for(clm, trials=6)
    result = tune(clm, request)
    assert result.ended is StopReason.ALL_TRIALS
    assert [trial.number for trial in result.trials] == list(range(6))
    complete = [trial for trial in result.trials if trial.state is TrialState.COMPLETE]
    assert result.best is not None
    assert result.best.sharpe_ratio == max(trial.sharpe_ratio or -math.inf for trial in complete)
    assert request.study is not None
    read = tuning.study_so_far(clm, request.study)
    assert (read.trials, read.best, read.requested) == (result.trials, result.best, 6)
    for trial in complete:
        assert trial.sharpe_interval is not None
        assert trial.sharpe_interval.value == trial.sharpe_ratio
        assert trial.sharpe_interval.low < trial.sharpe_interval.value < trial.sharpe_interval.high
    assert result.unseen is not None
    assert result.unseen.best_interval is not None
    defaults = {name: tuned.default for name, tuned in catalog.search_space(request.model_type).items()}
    stored = catalog.own_params(result.trials[0].params)
    marked = {name: stored[name] for name in catalog.markers(request.model_type)}
    assert stored == marked | defaults | request.training_params
    held_out_trials = {0, result.best.number}
    assert len(counted(clm, request)) == 6 + len(held_out_trials)
    assert unknown(counted(clm, request)) == []


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ({"model_type": "other", "plugin": "ridge"}, {"threshold": 0.0}),
        ({"model_type": "patchtst"}, {"steps": 2, "horizon": 6}),
        ({"model_type": "rl_v3"}, {"bars_played": 2_000, "checks": 1, "memory": 24}),
    ],
    ids=["a plug-in", "a network", "a policy"],
)
def test_a_model_type_is_tuned_over_the_space_declared_by_its_training_parameters(
    kind: dict[str, str], params: dict[str, Any], clm: Services
) -> None:
    request = request_for(clm, trials=2, holdout=0.0, training_params=params, seeds=1, **kind)
    trials = ended_trials(clm, request)
    # models of two steps may hardly move
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.DEGENERATE}
    searched = catalog.search_space(request.model_type, request.plugin).keys() - params.keys()
    explicit = searched | params.keys() | {"sizing", "execution"}
    assert all(trial.params.keys() == explicit for trial in trials)
    assert all(trials[0].params[name] != trials[1].params[name] for name in searched)
    assert len(counted(clm, request)) == 2
    assert unknown(counted(clm, request)) == []


def test_the_best_parameters_exploit_a_planted_pattern_also_on_held_out_bars(
    planted: Services,
) -> None:
    result = tune(planted, request_for(planted, trials=6))
    assert result.best is not None
    assert result.defaults is not None
    assert (result.best.sharpe_ratio or 0.0) >= max(2.0, result.defaults.sharpe_ratio or 0.0)
    assert result.unseen is not None
    assert (result.unseen.best or 0.0) > 2.0


def test_the_counted_returns_equal_those_of_a_walk_forward_with_the_same_parameters(clm: Services) -> None:
    from clm_core.backtest.metrics import sharpe_ratio
    from clm_core.backtest.walk_forward import walk_forward

    request = request_for(clm, trials=1, holdout=0.0)
    [trial] = tune(clm, request).trials
    bars = clm.market.bars(request.symbol, "1h", days=90, closed_by=clm.clock())
    recipe = catalog.recipe(request.model_type, trial.params, Costs())
    walked = walk_forward(recipe, bars, clm.settings.walk_forward, seed=0)
    market = clm.terms(request.symbol, bars.calendar)
    earned = market.backtest(bars[walked.rows], walked.positions[walked.rows])
    assert trial.sharpe_ratio == sharpe_ratio(earned.returns, bars.periods_per_year)
    [record] = counted(clm, request)
    assert np.nansum(record.daily) == pytest.approx(float(earned.returns.sum()), abs=1e-5)


def test_each_seed_is_a_trial_of_its_own_and_the_search_learns_from_the_mean(clm: Services) -> None:
    alone = [tune(clm, request_for(clm, trials=1, seed=seed)).trials[0] for seed in (4, 5, 6)]
    request = request_for(clm, trials=2, seed=4, seeds=3)
    before = len(counted(clm, request))
    result = tune(clm, request)
    assert result.defaults is not None
    assert result.defaults.seed_sharpes == tuple(each.sharpe_ratio for each in alone)
    assert result.defaults.sharpe_ratio == pytest.approx(np.mean(result.defaults.seed_sharpes))
    held_out_trials = {0, result.best.number if result.best else None}
    assert len(counted(clm, request)) == before + 3 * (2 + len(held_out_trials))
    assert unknown(counted(clm, request)) == []


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [({"model_type": "lightgbm"}, 1), ({"model_type": "nhits"}, 3), ({"model_type": "rl_v3"}, 5)],
    ids=["trees", "networks", "policies"],
)
def test_a_model_type_that_depends_on_its_seed_is_tuned_with_as_many_seeds_as_a_retrain(
    kind: dict[str, str], seeds: int, clm: Services
) -> None:
    request = request_for(clm, training_params={}, **kind)
    assert tuning.open_tuning(clm, request).seeds == seeds
    assert tuning.continued(clm, request.study or "").seeds == seeds
    other = request.model_copy(update={"seeds": seeds + 1})
    with pytest.raises(StudyDiffers, match=f"seeds was {seeds}, now {seeds + 1}"):
        tuning.open_tuning(clm, other)


@pytest.mark.usefixtures("soon_stale")
def test_a_trial_killed_between_two_seeds_ends_with_the_same_result(clm: Services) -> None:
    whole = tune(clm, request_for(clm, trials=2, seeds=2, holdout=0.0))
    request = request_for(clm, trials=2, seeds=2, holdout=0.0)
    before = len(counted(clm, request))
    with pytest.raises(Killed):
        tune(clm, request, Dying)
    assert len(unknown(counted(clm, request))) == 2
    assert tune(clm, tuning.continued(clm, request.study or "")).trials == whole.trials
    assert len(counted(clm, request)) == before + 4
    assert unknown(counted(clm, request)) == []


def test_progress_is_announced_after_every_fold(clm: Services) -> None:
    messages = list[tuple[str, float]]()
    watched = replace(clm, announce=lambda step, share: messages.append((step[:9], share)))
    tune(watched, request_for(clm, trials=2, seeds=2, holdout=0.0))
    shares = [share for _, share in messages]
    assert shares == pytest.approx([number / 12 for number in range(13)])
    assert [step for step, _ in messages] == 6 * ["0 of 2 tr"] + 6 * ["1 of 2 tr"] + ["2 of 2 tr"]


def test_the_search_does_not_see_the_bars_held_out(clm: Services) -> None:
    seen = list[FoldTask]()

    class Watched(Threads):
        def submit(self, fold_task: FoldTask) -> Any:
            seen.append(fold_task)
            return super().submit(fold_task)

    request = request_for(clm, trials=2, holdout=0.25)
    result = tune(clm, request, Watched)
    bars = clm.market.bars(request.symbol, "1h", days=90, closed_by=clm.clock())
    last = len(bars) - int(len(bars) * 0.25)
    trials = [fold for fold in seen if fold.test.stop <= last]
    held_out_trials = [fold for fold in seen if fold.test.stop > last]
    assert len(trials) == 2 * 3
    assert min(fold.test.start for fold in held_out_trials) == last
    assert result.unseen is not None
    assert result.unseen.bars == len(bars) - last


def test_the_same_seed_tries_the_same_parameters_and_another_seed_other_parameters(clm: Services) -> None:
    trial = [
        [each.params for each in tune(clm, request_for(clm, seed=seed, trials=2, holdout=0.0)).trials]
        for seed in (1, 1, 2)
    ]
    assert trial[0] == trial[1]
    assert trial[0] != trial[2]


@pytest.mark.usefixtures("soon_stale")
def test_a_killed_study_ends_with_the_same_result_and_counts_each_trial_once(
    clm: Services,
) -> None:
    whole = tune(clm, request_for(clm, trials=4))
    request = request_for(clm, trials=4)
    before = len(counted(clm, request))
    with pytest.raises(Killed):
        tune(clm, request, Dying)
    # two trials were begun, and the second counts although its command was killed
    assert len(counted(clm, request)) == before + 2
    assert len(unknown(counted(clm, request))) == 1
    resumed = tune(clm, tuning.continued(clm, request.study or ""))
    assert resumed.trials == whole.trials
    assert resumed.unseen == whole.unseen
    assert len(counted(clm, request)) == 2 * before
    assert unknown(counted(clm, request)) == []


def test_a_study_continues_where_it_ended_when_more_trials_are_requested(clm: Services) -> None:
    request = request_for(clm, trials=2)
    first = tune(clm, request)
    more = tune(clm, tuning.continued(clm, request.study or "", trials=4))
    assert more.trials[:2] == first.trials
    assert len(more.trials) == 4
    assert tune(clm, tuning.continued(clm, request.study or "", trials=4)) == more


def test_a_study_of_an_older_release_continues_with_its_own_ranges_and_meaning(clm: Services) -> None:
    stored = {"rounds": 10, "learning_rate": 0.1, "min_child_weight": 5.0}
    explicit = catalog.stored_params(ModelType.LIGHTGBM, stored)
    today = request_for(clm, trials=1, holdout=0.0, training_params=explicit)
    request = request_for(clm, trials=2, holdout=0.0)
    horizon = SearchDimension(Between(6, 72, log=True), True, 24)
    threshold = SearchDimension(Between(0.0, 0.06), False, 0.02)
    definition = tuning.open_tuning(clm, today).model_dump() | {
        "name": request.study,
        "trials": 2,
        "fixed": stored,
        "space": {"horizon": horizon, "threshold": threshold},
    }
    older = Tuning.model_validate(definition)
    clm.ledger.tunings.open(older, 2, Actor(name="ada", role=Role.OPERATOR), clm.clock())
    result = tune(clm, tuning.continued(clm, older.name))
    assert [trial.state for trial in result.trials] == 2 * [TrialState.COMPLETE]
    assert all(trial.params.keys() == stored.keys() | older.space.keys() for trial in result.trials)
    assert result.trials[1].params["threshold"] != 0.02
    [trained_then] = tune(clm, today).trials
    assert result.trials[0].seed_sharpes == trained_then.seed_sharpes


def test_two_commands_share_a_study_without_exceeding_the_requested_trials(clm: Services) -> None:
    request = request_for(clm, trials=8, holdout=0.0)
    tuning.open_tuning(clm, request)
    with ThreadPoolExecutor(2) as pool:
        results = [each.result() for each in [pool.submit(tune, clm, request) for _ in range(2)]]
    assert [trial.number for trial in results[0].trials] == list(range(8))
    assert results[0].trials == results[1].trials
    assert len(counted(clm, request)) == 8


def test_a_pruned_trial_is_counted_with_the_returns_of_its_completed_folds(clm: Services) -> None:
    unsized = a_request().training_params | {"sizing": "none"}
    request = request_for(clm, trials=10, holdout=0.0, training_params=unsized)
    result = tune(clm, request)
    pruned = [trial for trial in result.trials if trial.state is TrialState.PRUNED]
    assert pruned
    records = counted(clm, request)
    assert len(records) == 10
    lengths = sorted({len(record.daily) for record in records})
    assert sum(len(record.daily) == lengths[0] for record in records) == len(pruned)


class Failing(Threads):
    """Every fold of the second trial fails."""

    def submit(self, fold_task: FoldTask) -> Any:
        if len(self.folds) == 3:
            fold_task = replace(fold_task, params={"nonsense": 1})
        return super().submit(fold_task)


def test_a_failed_trial_keeps_its_cause_and_is_counted_while_the_others_continue(clm: Services) -> None:
    request = request_for(clm, trials=3, holdout=0.0)
    result = tune(clm, request, Failing)
    first, failed, third = (trial.state for trial in result.trials)
    assert (first, failed) == (TrialState.COMPLETE, TrialState.FAILED)
    # ten trees of random parameters may hardly trade
    assert third in (TrialState.COMPLETE, TrialState.DEGENERATE)
    assert str(result.trials[1].cause).startswith("InvalidTrainingParams: lightgbm cannot be trained")
    assert len(counted(clm, request)) == 3


def test_contradictory_parameters_fail_without_evaluating_a_bar(clm: Services) -> None:
    every = catalog.search_space(ModelType.PATCHTST)
    fixed = {name: tuned.default for name, tuned in every.items() if name != "input_size"}
    fixed |= {"patch_len": 96, "steps": 2, "hidden_size": 16, "horizon": 6}
    request = request_for(
        clm, model_type="patchtst", trials=2, holdout=0.0, seeds=1, seed=3, training_params=fixed
    )
    _, second = ended_trials(clm, request)
    assert second.params["input_size"] < 96
    assert second.state is TrialState.FAILED
    assert "is longer than input_size" in str(second.cause)
    assert len(counted(clm, request)) == 1


class Fragile(Threads):
    """The worker of every fold dies at the first attempt."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.lost = 0

    def result(self, future: Any) -> Floats | Failure:
        self.lost += 1
        return Failure("killed", lost=True) if self.lost % 2 else super().result(future)


def test_a_fold_of_a_dead_worker_is_computed_again(clm: Services) -> None:
    sturdy, fragile = (
        tune(clm, request_for(clm, trials=2, holdout=0.0), kind) for kind in (Threads, Fragile)
    )
    assert fragile.trials == sturdy.trials


class Doomed(Threads):
    def result(self, future: Any) -> Floats | Failure:
        return Failure("out of memory", lost=True)


def test_a_study_without_completed_trials_fails_with_the_first_cause(clm: Services) -> None:
    request = request_for(clm, trials=2)
    with pytest.raises(NothingTuned, match=r"None of 2 trials was completed: .* out of memory"):
        tune(clm, request, Doomed)
    assert len(counted(clm, request)) == 2


def test_a_time_limit_leaves_the_trials_under_way_to_the_next_command(clm: Services) -> None:
    now = iter([clm.clock() + timedelta(seconds=second) for second in range(1000)])
    limited = replace(clm, clock=lambda: next(now))
    request = request_for(clm, trials=30, timeout_minutes=0.5)
    result = tune(limited, request)
    assert result.ended is StopReason.TIME_LIMIT
    assert 0 < len(result.trials) < 30
    assert result.unseen is None
    more = len(result.trials) + 1
    after = tune(clm, tuning.continued(clm, request.study or "", trials=more))
    assert after.ended is StopReason.ALL_TRIALS
    assert [trial.number for trial in after.trials] == list(range(more))


def test_ctrl_c_keeps_the_ended_trials_and_the_study_can_continue(clm: Services) -> None:
    def announce(step: str, share: float) -> None:
        if step.startswith("2 of"):
            os.kill(os.getpid(), signal.SIGINT)

    request = request_for(clm, trials=4)
    stopped = tune(replace(clm, announce=announce), request)
    assert stopped.ended is StopReason.INTERRUPTED
    assert len(stopped.trials) == 2
    assert stopped.best is not None
    after = tune(clm, tuning.continued(clm, request.study or ""))
    assert after.trials[:2] == stopped.trials
    assert [trial.number for trial in after.trials] == list(range(4))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"symbol": "DOGEUSD"}, CLMError, "there is no series DOGEUSD"),
        ({"training_params": {"speed": 9}}, InvalidTrainingParams, "Valid parameters: label, horizon"),
        ({"dataset_span_days": 1}, NotEnoughBars, "give more days of bars or fewer folds"),
    ],
    ids=["unknown market", "unknown parameter", "too few bars"],
)
def test_an_invalid_request_is_refused_before_a_study_exists(
    changes: dict[str, Any], error: type[CLMError], message: str, clm: Services
) -> None:
    request = request_for(clm).model_copy(update=changes)
    with pytest.raises(error, match=message):
        tuning.open_tuning(clm, request)
    assert not clm.ledger.tunings.exists(request.study or "")


def test_a_request_that_fixes_every_parameter_is_refused(clm: Services) -> None:
    every = {name: tuned.default for name, tuned in catalog.search_space(request_for(clm).model_type).items()}
    with pytest.raises(InvalidTrainingParams, match=r"leave one of label, horizon, .* open"):
        tuning.open_tuning(clm, request_for(clm, training_params=every))


def test_the_error_for_an_unknown_study_names_the_newest_studies(clm: Services) -> None:
    tuning.open_tuning(clm, made := request_for(clm))
    with pytest.raises(NotFound, match=f"There is no study nothing; the newest are {made.study}"):
        tuning.continued(clm, "nothing")


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"dataset_span_days": 50}, {}, "dataset_span_days was 90, now 50"),
        ({"seed": 1}, {}, "seed was 0, now 1"),
        ({"training_params": {"rounds": 3}}, {}, "fixed was"),
        ({}, {"costs": GeneralCostSettings(fee_bps=1.0)}, "costs was"),
    ],
    ids=["other bars", "another seed", "another space", "other costs"],
)
def test_a_study_does_not_continue_with_another_definition(
    changes: dict[str, Any], settings: dict[str, Any], message: str, clm: Services
) -> None:
    request = request_for(clm)
    tuning.open_tuning(clm, request)
    now = replace(clm, settings=clm.settings.model_copy(update=settings))
    with pytest.raises(StudyDiffers, match=message):
        tuning.open_tuning(now, request.model_copy(update=changes))


def test_a_study_keeps_its_bars_when_newer_bars_arrive(clm: Services, tmp_path: Path) -> None:
    request = request_for(clm)
    began = tuning.open_tuning(clm, request)
    bars = clm.market.bars(request.symbol, "1h", closed_by=clm.clock())
    one = replace(bars[-1:], time=bars.time[-1:] + bars.timeframe.nanoseconds)
    SeriesStore(tmp_path / "data").add(one, "tests", clm.clock())
    assert clm.market.bars(request.symbol, "1h", closed_by=clm.clock()).content_hash != began.data_snapshot
    assert tuning.open_tuning(clm, request) == began
    assert search_bars(clm.market, began).end == bars.end


TWO_OPEN: dict[str, Any] = {
    "label": "direction",
    "horizon": 24,
    "barrier": 1.0,
    "threshold": 0.0,
    "min_child_weight": 50.0,
    "colsample": 0.5,
    "reg_lambda": 10.0,
    "num_leaves": 8,
}
"""All parameters of LightGBM but `learning_rate` and `subsample`."""


def proposed(clm: Services, together: int = 16) -> list[dict[str, Any]]:
    """Parameters of 16 trials by a Gaussian process. The best rate is 0.05; a low `subsample` is degenerate.

    Args:
        together: number of trials that one command evaluates.
    """
    definition = tuning.open_tuning(clm, request_for(clm, sampler="gp", training_params=TWO_OPEN))
    every = list[dict[str, Any]]()
    while len(every) < 16:
        with studies.open_study(clm.database, definition) as study:
            for _ in range(together):
                trial = study.next(16)
                assert trial is not None
                every.append({name: trial.params[name] for name in definition.space})
                if trial.params["subsample"] < 0.6:
                    study.mark_degenerate(trial, "flat")
                else:
                    study.complete(trial, -abs(trial.params["learning_rate"] - 0.05))
    return every


def test_a_gaussian_process_learns_from_every_trial_and_again_after_a_kill(clm: Services) -> None:
    every = proposed(clm)
    random = every[:STARTUP_TRIALS]
    learned = every[studies.STARTUP_TRIALS :]
    distances = [[abs(each["learning_rate"] - 0.05) for each in part] for part in (random, learned)]
    assert min(distances[1]) < min(distances[0])
    assert sum(each["subsample"] < 0.6 for each in learned) < sum(each["subsample"] < 0.6 for each in random)
    assert proposed(clm, together=8) == every


def test_a_study_without_a_stated_sampler_is_one_of_tpe_and_refuses_another(clm: Services) -> None:
    request = request_for(clm)
    began = tuning.open_tuning(clm, request)
    assert Tuning.model_validate(began.model_dump(exclude={"sampler"})) == began
    with pytest.raises(StudyDiffers, match="sampler was tpe, now gp"):
        tuning.open_tuning(clm, request.model_copy(update={"sampler": Sampler.GP}))
    with_gp = request_for(clm, sampler="gp")
    tuning.open_tuning(clm, with_gp)
    assert tuning.continued(clm, with_gp.study or "").sampler is Sampler.GP


@pytest.mark.parametrize(
    ("library", "options", "extra"),
    [
        ("optuna", {}, "evolve"),
        ("ray", {"on": "ray"}, "ray"),
        ("torch", {"sampler": "gp"}, "forecast"),
    ],
    ids=["optuna", "ray", "torch"],
)
def test_the_error_for_a_missing_library_names_its_extra(
    library: str, options: dict[str, Any], extra: str, clm: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = tuning.find_spec
    for module in (tuning, engines):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == library else find_spec(name))
    with pytest.raises(MissingExtra, match=rf"{library} is not installed.*\[{extra}\]"):
        tuning.open_tuning(clm, request_for(clm, **options))


def test_the_audit_log_records_the_request_its_author_and_the_result(clm: Services) -> None:
    request = request_for(clm, trials=2)
    result = tune(clm, request)
    tuning.open_tuning(clm, request)
    with open_ledger(clm.database) as engine:
        again, ended, started = entries(engine, request.model_id, limit=3)
    assert (started.action, started.actor, started.details["trials"]) == ("tuning_started", "ada", 2)
    assert (started.details["continued"], again.details["continued"]) == (False, True)
    assert (ended.action, ended.details["complete"]) == ("tuning_ended", 2)
    assert result.best is not None
    assert ended.details["best"]["number"] == result.best.number
    assert {started.details["study"], ended.details["study"]} == {request.study}


def test_every_trial_of_a_study_counts_for_the_next_verdict(clm: Services) -> None:
    request = request_for(clm, trials=5)
    tune(clm, request)
    records = counted(clm, request)
    count = count_trials(records)
    assert count.trials == len(records) >= 6
    assert count.effective > 1.0


def test_neither_a_study_nor_a_begun_trial_can_be_changed_or_deleted(clm: Services) -> None:
    tune(clm, request_for(clm, trials=1))
    with open_ledger(clm.database) as engine:
        for change in ("DELETE FROM begun_trials", "UPDATE tunings SET model_id = 'x'"):
            with pytest.raises(Exception, match="permission denied"), engine.begin() as connection:
                connection.execute(text(change))
