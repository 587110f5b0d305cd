"""Evolutions on a real PostgreSQL: measurement, counting, recording and continuation."""

import os
import signal
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tunings import Threads, own_market, own_symbol, threads, tune
from tunings import a_request as a_tune_request

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.errors import InvalidTrainingParams, MissingExtra, NotEnoughBars, NothingTuned
from clm_core.domain.evolution import EvolveRequest, EvolveResult
from clm_core.domain.listings import CandidateQuery
from clm_core.domain.trials import TrialSource
from clm_core.domain.vocabulary import CandidateOrigin, ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.trials import TrialRecord
from clm_core.market.bars import Floats
from clm_core.models import catalog
from clm_core.search import engines, evolution
from clm_core.search.folds import FoldTask, run_fold
from clm_core.search.request import search_bars
from clm_core.search.workers import Failure
from clm_core.services import Services, open_ledger

FOLDS = 2


def with_own_market(services: Services, folder: Path) -> Services:
    plan = WalkForwardPlan(folds=FOLDS)
    settings = services.settings.model_copy(update={"walk_forward": plan})
    return replace(own_market(services, folder), settings=settings)


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    return with_own_market(services, tmp_path)


@dataclass(frozen=True)
class Evolved:
    """An undisturbed evolution, the only evolution of its market."""

    clm: Services
    request: EvolveRequest
    result: EvolveResult

    @property
    def outcome(self) -> Any:
        return outcome(self.result)


@pytest.fixture(scope="module")
def evolved(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Evolved:
    clm = with_own_market(services, tmp_path_factory.mktemp("evolved"))
    request = a_request_to_evolve(clm)
    return Evolved(clm, request, evolve(clm, request))


def outcome(result: EvolveResult) -> Any:
    """Fields that do not depend on the name of the market."""
    return result.model_dump(include={"generations", "candidates", "best_params", "unseen"})


def a_request_to_evolve(clm: Services, **changes: Any) -> EvolveRequest:
    values: dict[str, Any] = {
        "model_type": "other",
        "plugin": "ridge",
        "symbol": own_symbol(clm),
        "dataset_span_days": 90,
        "population": 4,
        "generations": 2,
        "name": f"e-{uuid.uuid4().hex}",
        "requested_by": "ada",
    }
    return EvolveRequest.model_validate(values | changes)


def evolve(
    clm: Services, request: EvolveRequest, kind: type[Threads] = Threads, count: int = 1
) -> EvolveResult:
    opened = evolution.open_evolution(clm, request)
    workers = threads(clm, opened, kind, count)
    return evolution.search_with(workers, clm, opened, search_bars(clm.market, opened))


def recorded(clm: Services, request: EvolveRequest) -> list[StrategyCandidate]:
    query = CandidateQuery(symbol=request.symbol, limit=100)
    return list(clm.ledger.candidates.find(query).items)


def counted(clm: Services, request: EvolveRequest) -> list[TrialRecord]:
    return clm.ledger.trials.records(request.symbol, request.timeframe)


def rows(clm: Services, query: str, **values: Any) -> list[Any]:
    with open_ledger(clm.database) as engine, engine.begin() as connection:
        return list(connection.execute(text(query), values).all())


class Killed(Exception):
    """Stands for SIGKILL of the whole command."""


class Dying(Threads):
    """The command is killed while the second fold of the seventh candidate is computed."""

    def submit(self, fold_task: FoldTask) -> Any:
        if len(self.folds) == 6 * FOLDS + 1:
            raise Killed
        return super().submit(fold_task)


class Blind(Threads):
    """Folds with a given horizon under 24 bars fail."""

    def submit(self, fold_task: FoldTask) -> Any:
        future = super().submit(fold_task)
        future.fold_task = fold_task
        return future

    def result(self, future: Any) -> Floats | Failure:
        is_short = future.fold_task.params["horizon"] in (6, 12)
        return Failure("ValueError: too short", lost=False) if is_short else super().result(future)


class Failing(Threads):
    def result(self, future: Any) -> Floats | Failure:
        return Failure("ValueError: no luck", lost=False)


class Late(Threads):
    """Folds started first end last."""

    def submit(self, fold_task: FoldTask) -> Any:
        self.folds.append(fold_task)
        patience = 0.05 if len(self.folds) % 2 else 0.0
        return self._pool.submit(self._after, patience, fold_task)

    def _after(self, patience: float, fold_task: FoldTask) -> Floats:
        threading.Event().wait(patience)
        return run_fold(self._shared_inputs, fold_task)


def test_every_candidate_is_recorded_with_parents_and_event_and_counted_once(
    evolved: Evolved,
) -> None:
    clm = evolved.clm
    request = evolved.request
    result = evolved.result
    candidates = {candidate.id: candidate for candidate in recorded(clm, request)}
    assert len(candidates) == result.candidates == sum(each.new for each in result.generations)
    founders = [each for each in candidates.values() if not each.parents]
    manual = [each for each in founders if each.origin is CandidateOrigin.MANUAL]
    assert [catalog.own_params(each.params) for each in manual] == [{}]
    children = [each for each in candidates.values() if each.parents]
    assert len(children) >= 4
    assert all(candidates[parent].fitness_score is not None for each in children for parent in each.parents)
    events = rows(
        clm,
        "SELECT count(*) FROM outbox WHERE payload ->> 'symbol' = :symbol AND type = :type",
        symbol=request.symbol,
        type="clm.strategy_candidate_created",
    )
    assert events == [(len(candidates),)]
    assert result.best is not None
    held_out_trials = {
        result.best.id,
        *(each.id for each in founders if each.origin is CandidateOrigin.MANUAL),
    }
    trials = counted(clm, request)
    assert len(trials) == len(candidates) + len(held_out_trials)
    assert all(len(record.daily) for record in trials)
    sources = rows(clm, "SELECT DISTINCT source FROM trials WHERE symbol = :symbol", symbol=request.symbol)
    assert sources == [(TrialSource.EVOLUTION,)]


def test_the_best_recorded_candidate_and_the_defaults_are_evaluated_on_held_out_bars(
    evolved: Evolved,
) -> None:
    clm = evolved.clm
    request = evolved.request
    result = evolved.result
    assert result.best is not None
    assert result.defaults is not None
    fitness = [each.fitness_score for each in recorded(clm, request)]
    assert result.best.fitness_score == max(each for each in fitness if each is not None)
    assert result.generations[-1].best == result.best.fitness_score
    interval = result.best.fitness_interval
    assert interval is not None
    assert interval.low < interval.value < interval.high
    assert result.generations[-1].best_interval == interval
    assert result.unseen is not None
    assert result.unseen.bars == int(90 * 24 * 0.2)
    assert catalog.own_params(result.defaults.params) == {}
    defaults = {name: tuned.default for name, tuned in catalog.search_space(*request.kind).items()}
    assert catalog.own_params(result.default_params) == defaults
    assert result.best_params == result.default_params | result.best.params


def test_a_recorded_candidate_of_trees_names_its_label_even_where_the_default_is_kept(clm: Services) -> None:
    kind = {"model_type": "lightgbm", "plugin": None}
    params = {"rounds": 10, "learning_rate": 0.1, "min_child_weight": 5.0, "calibrate": False}
    result = evolve(clm, a_request_to_evolve(clm, **kind, generations=1, holdout=0.0, training_params=params))
    assert result.defaults is not None
    label = catalog.search_space(ModelType.LIGHTGBM)["label"].default
    assert catalog.own_params(result.defaults.params) == params | {"label": label, "leaf_share": 0.25}
    # a retrain with the parameters of the candidate trains what was measured
    assert catalog.stored_params(ModelType.LIGHTGBM, result.defaults.params) == result.defaults.params


def test_results_depend_on_the_seed_and_not_on_the_order_in_which_workers_end(
    evolved: Evolved, clm: Services
) -> None:
    assert outcome(evolve(clm, a_request_to_evolve(clm), Late, count=3)) == evolved.outcome
    assert outcome(evolve(clm, a_request_to_evolve(clm, seed=1, generations=1))) != evolved.outcome


def test_evolution_and_tuning_measure_the_same_for_the_defaults(evolved: Evolved, clm: Services) -> None:
    same = a_request_to_evolve(clm).model_dump(
        include={"model_type", "plugin", "symbol", "dataset_span_days"}
    )
    tuned = tune(clm, a_tune_request(**same, trials=1, training_params={}, holdout=0.2))
    assert evolved.result.defaults is not None
    assert tuned.defaults is not None
    assert tuned.unseen is not None
    assert evolved.result.defaults.fitness_score == tuned.defaults.sharpe_ratio
    assert evolved.result.unseen is not None
    assert evolved.result.unseen.defaults == tuned.unseen.defaults


def test_a_candidate_without_measurement_is_recorded_without_fitness_and_has_no_children(
    clm: Services,
) -> None:
    request = a_request_to_evolve(clm, population=6)
    result = evolve(clm, request, Blind)
    candidates = {candidate.id: candidate for candidate in recorded(clm, request)}
    blind = {each.id for each in candidates.values() if each.fitness_score is None}
    assert len(blind) == result.unmeasured > 0
    assert all(candidates[each].params["horizon"] in (6, 12) for each in blind)
    assert not any(blind & set(each.parents) for each in candidates.values())
    assert len(counted(clm, request)) >= len(candidates)


def test_an_evolution_without_measurable_candidates_fails_with_the_first_cause(clm: Services) -> None:
    request = a_request_to_evolve(clm, generations=1)
    with pytest.raises(
        NothingTuned, match=r"None of \d candidates .* the first failed of ValueError: no luck"
    ):
        evolve(clm, request, Failing)
    assert {each.fitness_score for each in recorded(clm, request)} == {None}
    assert len(counted(clm, request)) == len(recorded(clm, request))


def test_a_killed_evolution_started_again_under_its_name_ends_with_the_same_result(
    evolved: Evolved, clm: Services
) -> None:
    request = a_request_to_evolve(clm)
    with pytest.raises(Killed):
        evolve(clm, request, Dying)
    assert len(recorded(clm, request)) == 6
    result = evolve(clm, request)
    assert result.found == 6
    assert outcome(result) == evolved.outcome
    trials = counted(clm, request)
    assert len(trials) == len(counted(evolved.clm, evolved.request))
    assert all(len(record.daily) for record in trials)


def test_an_evolution_with_other_costs_measures_every_candidate_again(clm: Services) -> None:
    request = a_request_to_evolve(clm, generations=1)
    evolve(clm, request)
    costs = clm.settings.costs.model_copy(update={"fee_bps": 99.0})
    dearer = replace(clm, settings=clm.settings.model_copy(update={"costs": costs}))
    assert evolve(dearer, request).found == 0
    assert evolve(clm, request.model_copy(update={"generations": 2})).found > 4


def test_ctrl_c_keeps_the_recorded_candidates_and_marks_the_result_as_interrupted(clm: Services) -> None:
    class Interrupting(Threads):
        def submit(self, fold_task: FoldTask) -> Any:
            if len(self.folds) == 5 * FOLDS:
                os.kill(os.getpid(), signal.SIGINT)
            return super().submit(fold_task)

    request = a_request_to_evolve(clm)
    result = evolve(clm, request, Interrupting)
    assert result.interrupted
    assert result.unseen is None
    assert [each.number for each in result.generations] == [0]
    assert len(recorded(clm, request)) == result.candidates == 5
    assert evolve(clm, request).found == 5


def test_an_evolution_on_ray_without_the_library_names_the_extra(
    clm: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"ray is not installed.*\[ray\]"):
        evolution.open_evolution(clm, a_request_to_evolve(clm, on="ray"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"training_params": {"sped": 1}}, InvalidTrainingParams, "Valid parameters"),
        (
            {"training_params": {"horizon": 24, "threshold": 0, "alpha": 9}},
            InvalidTrainingParams,
            "every parameter of ridge is fixed",
        ),
        ({"dataset_span_days": 1}, NotEnoughBars, "bars"),
    ],
)
def test_an_invalid_request_is_refused_before_any_computation(
    changes: dict[str, Any], error: type[Exception], message: str, clm: Services
) -> None:
    with pytest.raises(error, match=message):
        evolution.open_evolution(clm, a_request_to_evolve(clm, **changes))
