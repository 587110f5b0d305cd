"""Searches for strategies on a real PostgreSQL: batches, continuation, verification and the front."""

import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import NullPool, create_engine, text
from tunings import own_market, own_symbol

from clm_core.backtest.metrics import max_drawdown, sharpe_ratio
from clm_core.domain.errors import (
    InvalidTrainingParams,
    MissingExtra,
    NotEnoughBars,
    NotFound,
    NothingTuned,
    StudyDiffers,
)
from clm_core.domain.listings import CandidateQuery
from clm_core.domain.searches import Engine, Placement
from clm_core.domain.strategy_search import (
    Objective,
    PeriodResult,
    StrategySearch,
    StrategySearchRequest,
    StrategySearchResult,
)
from clm_core.domain.vocabulary import CandidateOrigin, RuleFamily
from clm_core.evidence.track_record import probabilistic_sharpe_ratio, track_record
from clm_core.evidence.trials import TrialCount, TrialSketch
from clm_core.evolution.strategies import Strategy
from clm_core.ledger.audit_log import entries
from clm_core.ledger.strategy_searches import TrialBatch
from clm_core.market.bars import Floats
from clm_core.platform.stack_state import page_addresses
from clm_core.search import engines, strategy_run
from clm_core.search.request import stored_bars
from clm_core.search.strategy_objectives import StrategyObjectives, rows_of, space_of
from clm_core.search.strategy_report import (
    COLUMNS,
    default_row,
    headline,
    listed,
    row,
    summary_page,
    write_report,
)
from clm_core.search.strategy_search import open_strategy_search, search_strategies, verify
from clm_core.services import Services, open_ledger

POPULATION = 12
GENERATIONS = 3
HERE = Placement(workers=1)


@dataclass(frozen=True)
class Searched:
    """An undisturbed search of a separate market."""

    clm: Services
    request: StrategySearchRequest
    definition: StrategySearch
    result: StrategySearchResult


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    return own_market(services, tmp_path)


@pytest.fixture(scope="module")
def searched(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    clm = own_market(services, tmp_path_factory.mktemp("searched"))
    request = a_request_to_search(clm)
    definition = open_strategy_search(clm, request)
    return Searched(clm, request, definition, run(clm, definition))


def a_request_to_search(clm: Services, **changes: Any) -> StrategySearchRequest:
    values: dict[str, Any] = {
        "families": ["momentum", "ma_cross"],
        "symbol": own_symbol(clm),
        "population": POPULATION,
        "generations": GENERATIONS,
        "name": f"r-{uuid.uuid4().hex}",
        "requested_by": "ada",
    }
    return StrategySearchRequest.model_validate(values | changes)


def run(clm: Services, definition: StrategySearch, generations: int = GENERATIONS) -> StrategySearchResult:
    return search_strategies(clm, definition, generations, HERE)


def a_search(clm: Services, **changes: Any) -> StrategySearchResult:
    request = a_request_to_search(clm, **changes)
    return run(clm, open_strategy_search(clm, request), request.generations)


def batches(clm: Services, definition: StrategySearch) -> list[TrialBatch]:
    return clm.ledger.strategy_searches.batches(definition.name, len(space_of(definition).genes))


def comparable(result: StrategySearchResult) -> Any:
    """Fields independent of the names of search and market."""
    ids = {"__all__": {"candidate"}}
    return result.model_dump(
        exclude={"name": True, "symbol": True, "front": ids, "defaults": ids, "diverse": True}
    )


def test_every_candidate_is_counted_in_a_row_for_each_generation(searched: Searched) -> None:
    counted = batches(searched.clm, searched.definition)
    assert [each.number for each in counted] == [-GENERATIONS - 1, 0, 1, 2, 3]
    generations = counted[1:]
    assert [len(each.genes) for each in generations] == [POPULATION] * 4
    assert searched.result.candidates == sum(each.sketch.trials for each in generations) == 4 * POPULATION
    every = np.concatenate([each.genes for each in generations])
    assert len(np.unique(every, axis=0)) == len(every)
    # the look at the held-out bars is counted as well
    front = len(searched.result.front) + len(searched.result.defaults)
    assert counted[0].sketch.trials == front
    # and nothing of it is a trial of the market
    market = (searched.definition.symbol, searched.definition.timeframe)
    assert searched.clm.ledger.trials.records(*market) == []


def test_the_front_is_deflated_by_the_trials_of_the_whole_search(searched: Searched) -> None:
    counted = batches(searched.clm, searched.definition)[1:]
    sketch = TrialSketch.merged([each.sketch for each in counted])
    assert searched.result.effective_trials == pytest.approx(sketch.effective)
    assert 1.0 < sketch.effective < searched.result.candidates
    objectives = measures(searched)
    for strategy in searched.result.front:
        returns = objectives.backtest(strategy_of(strategy)).returns
        record = track_record(returns)
        luck = TrialCount(sketch.trials, sketch.effective).expected_maximum(record.effective_bars)
        assert strategy.deflated_sharpe == pytest.approx(probabilistic_sharpe_ratio(record, luck))
        assert strategy.deflated_sharpe < probabilistic_sharpe_ratio(record)
        assert strategy.overfitting is not None
        assert 0.0 <= strategy.overfitting <= 1.0


def measures(searched: Searched, held_out: bool = False) -> StrategyObjectives:
    bars = stored_bars(searched.clm.market, searched.definition)
    market = searched.clm.recorded_terms(searched.definition.symbol, searched.definition.terms)
    rows = rows_of(searched.definition, len(bars))[held_out]
    sets = {"groups": 1, "tested": 1} if held_out else {}
    return StrategyObjectives(searched.definition, market, bars, rows, 1, **sets)


def strategy_of(member: Any) -> Strategy:
    return Strategy(member.family, member.params)


def test_no_strategy_of_the_front_is_beaten_in_the_search(searched: Searched) -> None:
    objectives = searched.result.objectives
    scores = np.array([[each.scores[name] for name in objectives] for each in searched.result.front])
    assert len(scores) > 1
    assert not any(map(partial(is_beaten, scores), scores))
    assert [each.scores[objectives[0]] for each in searched.result.front] == sorted(scores[:, 0])[::-1]


def is_beaten(scores: Floats, member: Floats) -> bool:
    return bool(((scores >= member).all(axis=1) & (scores > member).any(axis=1)).any())


def test_the_front_is_followed_on_the_held_out_bars(searched: Searched) -> None:
    objectives = measures(searched, held_out=True)
    assert searched.result.held_out_bars == int(0.2 * 2_400)
    for strategy in (*searched.result.front, *searched.result.defaults):
        returns = objectives.backtest(strategy_of(strategy)).returns
        assert strategy.held_out is not None
        assert strategy.held_out.sharpe_ratio == pytest.approx(sharpe_ratio(returns, 8_760.0), rel=0.01)
        assert strategy.held_out.max_drawdown == pytest.approx(max_drawdown(returns))
        # an interval of the best of many means nothing on the bars of the choice
        assert strategy.searched.sharpe_interval is None
    later = [each.held_out for each in searched.result.front if each.held_out is not None]
    shrunk = 1.0 - np.median([each.sharpe_ratio for each in later]) / np.median(
        [each.searched.sharpe_ratio for each in searched.result.front]
    )
    assert searched.result.shrinkage == (pytest.approx(shrunk) if searched.result.shrinkage else None)


def test_strategies_lead_on_the_held_out_bars_that_none_beats_there(searched: Searched) -> None:
    front = searched.result.front
    later = np.array([_numbers(each.held_out, searched.result.objectives) for each in front])
    for each, member in zip(front, later, strict=True):
        measured = np.isfinite(member).all()
        rivals = later[np.isfinite(later).all(axis=1)]
        assert each.on_held_out_front == (measured and not is_beaten(rivals, member))


def _numbers(result: PeriodResult | None, objectives: Sequence[Objective]) -> list[float]:
    assert result is not None
    values = result.model_dump()
    return [np.nan if values[name.value] is None else values[name.value] for name in objectives]


def test_strategies_of_the_front_are_recorded_as_candidates(searched: Searched) -> None:
    query = CandidateQuery(symbol=searched.definition.symbol, limit=100)
    candidates = {each.id: each for each in searched.clm.ledger.candidates.find(query).items}
    assert candidates.keys() == {strategy.candidate for strategy in searched.result.front}
    for strategy in searched.result.front:
        candidate = candidates[strategy.candidate]
        assert (candidate.plugin, candidate.params) == (strategy.family.value, strategy.params)
        assert candidate.base_strategy.startswith(strategy.family.value)
        assert candidate.fitness_score == strategy.scores[Objective.SHARPE_RATIO]
        assert candidate.origin is strategy.origin
    assert {each.origin for each in searched.result.defaults} == {CandidateOrigin.MANUAL}


def test_a_search_is_audited(searched: Searched) -> None:
    with open_ledger(searched.clm.database) as engine:
        *_, started = records = entries(engine, searched.definition.subject, limit=10)
    [ended] = [each for each in records if each.action == "strategy_search_ended"]
    assert (started.action, started.actor) == ("strategy_search_started", "ada")
    assert started.details["families"] == ["momentum", "ma_cross"]
    assert (ended.action, ended.details["candidates"]) == ("strategy_search_ended", 4 * POPULATION)


def test_the_same_seed_finds_the_same_for_any_number_of_workers(clm: Services) -> None:
    searches = []
    for workers in (1, 3):
        definition = open_strategy_search(clm, a_request_to_search(clm))
        result = search_strategies(clm, definition, GENERATIONS, Placement(workers=workers))
        searches.append((comparable(result), [each.scores.tobytes() for each in batches(clm, definition)]))
    assert searches[0] == searches[1]


def test_processes_find_the_same_bits_although_one_is_killed(searched: Searched) -> None:
    killed = list[int]()
    # other tests of this process keep processes until the end
    others = {process.pid for process in multiprocessing.active_children()}

    def announce(step: str, share: float) -> None:
        workers = [each.pid for each in multiprocessing.active_children() if each.pid not in others]
        if not killed and step.startswith("Generation 1") and workers:
            killed.append(workers[0] or 0)
            os.kill(killed[0], signal.SIGKILL)

    placement = Placement(on=Engine.PROCESSES, workers=1)
    watching = replace(searched.clm, announce=announce)
    assert verify(watching, searched.definition.name, placement).differences == ()
    assert killed


class Killed(Exception):
    """Stands for SIGKILL of the whole command."""


@pytest.mark.parametrize("batch", [0, 2, -GENERATIONS - 1])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_search_continues_where_it_was_and_finds_the_same(
    batch: int, moment: str, searched: Searched, clm: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(clm.ledger.strategy_searches)
    count = store.count

    def dying(self: Any, name: str, counted: TrialBatch, now: Any) -> None:
        if counted.number == batch and moment == "before":
            raise Killed
        count(self, name, counted, now)
        if counted.number == batch:
            raise Killed

    request = a_request_to_search(clm)
    monkeypatch.setattr(store, "count", dying)
    with pytest.raises(Killed):
        run(clm, open_strategy_search(clm, request))
    monkeypatch.undo()
    continued = open_strategy_search(clm, request)
    result = run(clm, continued)
    assert comparable(result) == comparable(searched.result)
    assert len(batches(clm, continued)) == GENERATIONS + 2


def test_a_search_continues_for_more_generations_on_the_bars_of_its_beginning(clm: Services) -> None:
    request = a_request_to_search(clm, generations=1)
    definition = open_strategy_search(clm, request)
    run(clm, definition, 1)
    again = open_strategy_search(clm, request.model_copy(update={"generations": 2}))
    assert again == definition
    result = run(clm, again, 2)
    assert [each.number for each in result.generations] == [0, 1, 2]
    assert [each.number for each in batches(clm, definition)] == [-3, -2, 0, 1, 2]
    assert verify(clm, definition.name, HERE).differences == ()


def test_a_search_on_ray_without_the_library_names_the_extra(
    clm: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"ray is not installed.*\[ray\]"):
        open_strategy_search(clm, a_request_to_search(clm, on="ray"))


def test_a_search_with_other_inputs_does_not_continue(clm: Services) -> None:
    request = a_request_to_search(clm)
    open_strategy_search(clm, request)
    with pytest.raises(StudyDiffers, match="population was 12, now 13"):
        open_strategy_search(clm, request.model_copy(update={"population": 13}))


def test_an_interrupted_search_keeps_its_generations_and_has_no_front(clm: Services) -> None:
    definition = open_strategy_search(clm, a_request_to_search(clm))
    bars = stored_bars(clm.market, definition)
    market = clm.recorded_terms(definition.symbol, definition.terms)
    stop = threading.Event()

    class Recorder:
        def record(self, batch: TrialBatch) -> None:
            stop.set()

    result = strategy_run.StrategyRun(definition, bars, market, 5, 1, Recorder()).run(stop)
    assert result.interrupted
    assert (len(result.generations), result.front, result.shrinkage) == (1, (), None)
    assert "interrupted" in headline(result)


def test_a_verification_finds_the_same_to_the_last_bit(searched: Searched) -> None:
    verification = verify(searched.clm, searched.definition.name, HERE)
    assert verification.differences == ()
    assert (verification.candidates, verification.members) == (4 * POPULATION, len(searched.result.front))


@pytest.mark.parametrize("column", ["genes", "scores"])
def test_a_verification_names_a_generation_that_was_changed(column: str, clm: Services) -> None:
    definition = open_strategy_search(clm, a_request_to_search(clm))
    run(clm, definition)
    # the application's own role may not change a batch
    owner = create_engine(clm.database.url("ledger"), poolclass=NullPool)
    with owner.begin() as connection:
        connection.execute(
            text(
                f"UPDATE strategy_trials SET {column} = set_byte({column}, 0, 255 - get_byte({column}, 0)) "
                "WHERE search = :name AND batch = 2"
            ),
            {"name": definition.name},
        )
    assert verify(clm, definition.name, HERE).differences == (f"batch 2 has other {column}",)
    with pytest.raises(StudyDiffers, match=f"other {column}"):
        run(clm, definition)


def test_a_verification_of_an_unknown_or_unfinished_search_is_refused(clm: Services) -> None:
    with pytest.raises(NotFound, match="There is no search nothing"):
        verify(clm, "nothing", HERE)
    definition = open_strategy_search(clm, a_request_to_search(clm))
    with pytest.raises(NotFound, match="has no result yet"):
        verify(clm, definition.name, HERE)


def test_a_single_objective_keeps_the_best_tenth_by_the_score_of_the_gate(clm: Services) -> None:
    result = a_search(clm, objectives=["score"], population=20)
    assert [each.new for each in result.generations] == [20, 18, 18, 18]
    bests = [each.best[0] for each in result.generations]
    assert bests == sorted(bests, key=lambda value: value or 0.0)
    assert len(result.front) == 2
    assert all(0.0 <= (each.scores[Objective.SCORE] or 0.0) <= 100.0 for each in result.front)


def test_every_operator_can_be_asked_for(clm: Services) -> None:
    results = [
        a_search(clm, selection=selection, crossover=crossover, mutation=mutation, generations=2)
        for selection, crossover, mutation in (
            ("roulette", "single-point", "uniform"),
            ("tournament", "average", "gaussian"),
        )
    ]
    assert results[0].front != results[1].front


def test_fixed_parameters_stay_and_reach_the_candidates(clm: Services) -> None:
    result = a_search(clm, families=["momentum"], training_params={"stop_loss": "none", "look_back": "24"})
    assert all(each.params["stop_loss"] == "none" for each in result.front)
    assert all(each.params["look_back"] == 24 for each in result.front)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"families": ["momentum"], "training_params": {"lookback": 5}}, InvalidTrainingParams, "lookback"),
        ({"dataset_span_days": 40}, NotEnoughBars, "needs 1,000 bars before"),
        ({"families": ["momentum"], "training_params": {"threshold": 9.0}}, NothingTuned, "too few trades"),
    ],
    ids=["unknown parameter", "few bars", "no trades"],
)
def test_a_search_that_cannot_succeed_says_why(
    changes: dict[str, Any], error: type[Exception], message: str, clm: Services
) -> None:
    with pytest.raises(error, match=message):
        a_search(clm, **changes)


def test_the_report_shows_strategies_far_apart_and_the_defaults(searched: Searched, tmp_path: Path) -> None:
    page = summary_page(page_addresses(tmp_path), searched.result)
    assert "`clm up` serves the report" in page
    report = write_report(tmp_path, searched.result).report
    assert report == tmp_path / searched.result.subject / f"{searched.result.name}.html"
    whole = report.read_text()
    assert all(cell in whole for strategy in searched.result.front for cell in row(strategy))
    assert 'id="front"' in whole
    assert "data:image/png;base64," in page
    assert f"Generations 0 to {GENERATIONS}: {4 * POPULATION} strategies" in page
    assert "--params-from" in page
    assert all(len(cells) == len(COLUMNS) for cells in map(row, searched.result.front))
    assert default_row(searched.result.defaults[0])[0] == "momentum (defaults)"
    chosen = listed(searched.result.front, 3)
    assert len(chosen) == min(3, len(searched.result.front))
    assert chosen[0] == searched.result.front[0]


def test_families_are_named_once(clm: Services) -> None:
    with pytest.raises(ValueError, match="name each once"):
        a_request_to_search(clm, families=["momentum", "momentum"])
    with pytest.raises(ValueError, match="name a single strategy"):
        a_request_to_search(clm, training_params={"stop_loss": 0.02})
    every = a_request_to_search(clm, families=list(RuleFamily), population=5)
    assert every.subject.startswith("strategies_")
