"""Evaluation of waiting candidates: counted trials, bounded work, continuation after a kill."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from tunings import own_market, own_symbol, thread_workers
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.alerts import AlertKind
from clm_core.domain.candidates import CandidateRequest, StrategyCandidate
from clm_core.domain.errors import InvalidTrainingParams, StoreCorrupt
from clm_core.domain.trials import TrialSource
from clm_core.ledger.alerts import AlertStore
from clm_core.lifecycle import candidates
from clm_core.market.sources import MarketData
from clm_core.platform.prefect_server import load_flow
from clm_core.search.posted import post_candidate
from clm_core.services import Services

LONGER = {"look_back": 30}
TIGHTER = {"stop_loss": 0.02}


@pytest.fixture
def own(clm: Services, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Services with a separate ledger and market; the test of the commands has processes as workers."""
    monkeypatch.setattr("clm_core.search.candidates.local_workers", thread_workers)
    return own_market(replace(clm, alerts=AlertStore(engine)), tmp_path)


def propose(clm: Services, params: dict[str, Any]) -> StrategyCandidate:
    fields = {"model_type": "momentum", "symbol": own_symbol(clm), "params": params}
    return post_candidate(clm, CandidateRequest.model_validate(fields))


def counted(clm: Services) -> list[Any]:
    trials = clm.ledger.trials.of_searches(f"momentum_{own_symbol(clm)}_1h".lower())
    return [(trial.source, trial.params["look_back"]) for trial, _ in trials]


def test_a_candidate_counts_as_a_trial_as_soon_as_it_is_evaluated(own: Services) -> None:
    posted = [propose(own, LONGER), propose(own, LONGER | TIGHTER)]
    assert counted(own) == []
    report = candidates.run(own)
    assert (report.problems, report.waiting, report.is_busy) == ((), 0, False)
    assert {each.id for each in report.evaluated} == {each.id for each in posted}
    for each in posted:
        measured = own.ledger.candidates.get(each.id)
        assert not measured.awaits_evaluation
        assert (measured.fitness_score is None) == (measured.failure_cause is not None)
    assert counted(own) == [(TrialSource.EVOLUTION, 30)] * 2
    assert report.headline == "Candidates evaluated: 2. Still waiting: 0."
    again = candidates.run(own)
    assert (again.evaluated, len(counted(own))) == ((), 2)


def test_a_pass_evaluates_a_bounded_number_the_oldest_first(
    own: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = [propose(own, {"look_back": number}) for number in (20, 21, 22)]
    monkeypatch.setattr(candidates, "MAX_EVALUATED", 2)
    report = candidates.run(own)
    assert ({each.id for each in report.evaluated}, report.waiting) == ({each.id for each in posted[:2]}, 1)


def test_no_candidate_is_begun_after_the_time_limit(own: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    propose(own, LONGER)
    monkeypatch.setattr(candidates, "TIME_LIMIT", timedelta(0))
    report = candidates.run(own)
    assert (report.evaluated, report.waiting, counted(own)) == ((), 1, [])


def test_the_flow_shows_what_was_evaluated(
    own: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = propose(own, LONGER)
    monkeypatch.setattr("clm_core.services._current", own)
    report = load_flow("flows.candidates.candidates")()
    assert [each.id for each in report.evaluated] == [posted.id]
    page = httpx.get(f"{prefect_url}/artifacts/candidates/latest").json()["data"]
    assert f"| {posted.id} | {posted.base_strategy} |" in page


def test_the_commands_propose_evaluate_and_list_candidates(
    make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(make_home("candidates")))
    monkeypatch.setenv("CLM_WALK_FORWARD__FOLDS", "2")
    runner = CliRunner()
    add = ["candidates", "add", "--model", "momentum", "--symbol", "BTCUSD", "--param", "look_back=30"]
    added = runner.invoke(app, add)
    candidate = added.stdout.split()[0]
    assert json.loads(runner.invoke(app, [*add, "--json"]).stdout)["id"] == candidate
    [waiting] = json.loads(runner.invoke(app, ["candidates", "list", "--waiting", "--json"]).stdout)["items"]
    assert (waiting["id"], waiting["params"]["look_back"]) == (candidate, 30)
    done = runner.invoke(app, ["candidates", "evaluate", "--workers", "1", "--json"])
    [evaluated] = json.loads(done.stdout)["evaluated"]
    assert (evaluated["id"], evaluated["awaits_evaluation"]) == (candidate, False)
    listed = runner.invoke(app, ["candidates", "list", "--evaluated"]).stdout
    assert candidate in listed
    assert "look_back 30" in listed
    assert "No variants yet" in runner.invoke(app, ["candidates", "variants"]).stdout
    unknown = runner.invoke(app, [*add[:-1], "lookback=30"])
    assert isinstance(unknown.exception, InvalidTrainingParams)


class Killed(BaseException):
    """Stands for SIGKILL of the pass."""


def test_a_killed_pass_counts_no_trial_twice_and_loses_no_candidate(
    own: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = propose(own, LONGER)
    store = type(own.ledger.candidates)
    record: Callable[..., None] = store.evaluated

    def die(*arguments: Any) -> None:
        raise Killed

    monkeypatch.setattr(store, "evaluated", die)
    with pytest.raises(Killed):
        candidates.run(own)
    assert own.ledger.candidates.get(posted.id).awaits_evaluation
    assert len(counted(own)) == 1
    monkeypatch.setattr(store, "evaluated", record)
    assert [each.id for each in candidates.run(own).evaluated] == [posted.id]
    assert len(counted(own)) == 1


def test_a_second_process_leaves_the_evaluation_to_the_first(own: Services) -> None:
    propose(own, LONGER)
    with own.ledger.candidates.evaluation() as is_ours:
        assert is_ours
        report = candidates.run(own)
    assert (report.is_busy, report.evaluated) == (True, ())
    assert report.headline.startswith("Another process evaluates")
    assert len(candidates.run(own).evaluated) == 1


def test_a_candidate_without_enough_bars_ends_with_the_reason_and_a_damaged_file_is_tried_again(
    own: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = propose(own, {"look_back": 2000})
    report = candidates.run(own)
    assert [each.id for each in report.evaluated] == [posted.id]
    assert report.evaluated[0].failure_cause is not None
    assert "NotEnoughBars" in report.evaluated[0].failure_cause
    healthy = propose(own, LONGER)

    def damaged(*arguments: Any, **named: Any) -> None:
        raise StoreCorrupt("the file was changed")

    with monkeypatch.context() as patch:
        patch.setattr(MarketData, "bars", damaged)
        report = candidates.run(own)
    assert report.problems == (f"candidate {healthy.id}: the file was changed",)
    assert [alert.subject for alert in own.alerts.lasting(AlertKind.MAINTENANCE_FAILING)] == ["candidates"]
    assert [each.id for each in candidates.run(own).evaluated] == [healthy.id]
    assert own.alerts.lasting(AlertKind.MAINTENANCE_FAILING) == []
