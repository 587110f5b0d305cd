"""External messages on a real ledger."""

import json
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

import pytest
from sqlalchemy import Engine

from clm_core.domain.alerts import AlertKind
from clm_core.domain.errors import AlreadyExists
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.promotions import Change, PromotionKind
from clm_core.domain.triggers import Answer, MessageDelivery, Reply
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, Role, TriggerReason
from clm_core.ledger.alerts import AlertStore
from clm_core.models import catalog
from clm_core.retraining import jobs
from clm_core.services import Services
from clm_core.triggers import inbox

MARKET = {"symbol": "BTCUSD"}
MODEL = MARKET | {"model_type": "lightgbm"}
DRIFT = MODEL | {"detector": "psi"}
UNKNOWN_MARKET = {"symbol": "DOGEUSD", "current": "calm", "model_types": ["xgboost", "lightgbm"]}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def deliver(clm: Services, message_id: str, event: str, **data: Any) -> None:
    body = json.dumps({"type": event, "data": data}).encode()
    inbox.receive(clm, "monitor", message_id, body, clm.clock())


def answer_all(clm: Services) -> list[Answer]:
    answers = list[Answer]()
    while (answered := inbox.answer_next(clm)) is not None:
        answers += answered[1] or []
    return answers


@pytest.mark.parametrize("after", [timedelta(minutes=6), timedelta(hours=24), timedelta(hours=76)], ids=str)
def test_a_message_is_known_again_however_late_it_comes(after: timedelta, clm: Services) -> None:
    first = inbox.receive(clm, "monitor", "evt_1", b"{}", NOW)
    again = inbox.receive(clm, "monitor", "evt_1", b"{}", NOW + after)
    assert (first.delivery, again.delivery) == (MessageDelivery.NEW, MessageDelivery.KNOWN)
    assert first.received_at == again.received_at == NOW


def test_the_same_id_from_another_source_is_another_message(clm: Services) -> None:
    inbox.receive(clm, "monitor", "evt_1", b"{}", NOW)
    assert inbox.receive(clm, "risk", "evt_1", b"{}", NOW).delivery is MessageDelivery.NEW


def test_the_same_id_with_another_body_is_refused_and_the_first_is_kept(clm: Services) -> None:
    inbox.receive(clm, "monitor", "evt_1", b"{}", NOW)
    with pytest.raises(AlreadyExists, match="another message under the id evt_1 at 2026-03-01 12:00:00"):
        inbox.receive(clm, "monitor", "evt_1", b'{"a": 1}', NOW)
    assert [message.body for message in clm.ledger.triggers.messages()] == [b"{}"]


def test_1000_deliveries_of_one_message_over_32_threads_are_one(clm: Services) -> None:
    with ThreadPoolExecutor(32) as pool:
        receipts = list(pool.map(lambda _: inbox.receive(clm, "monitor", "evt_1", b"{}", NOW), range(1000)))
    assert Counter(receipt.delivery for receipt in receipts) == {
        MessageDelivery.NEW: 1,
        MessageDelivery.KNOWN: 999,
    }
    assert len(clm.ledger.triggers.messages()) == 1


def test_each_event_is_submitted_with_its_reason_and_observation(clm: Services) -> None:
    deliver(clm, "1", "model.drift_detected", **DRIFT)
    deliver(clm, "2", "performance.degraded", **MODEL, sharpe_ratio=0.7)
    deliver(clm, "3", "manual.training_requested", **MODEL, dataset_span_days=90, requested_by="ada")
    deliver(clm, "4", "market.regime_changed", **MARKET, current="calm", model_types=["xgboost"])
    answers = answer_all(clm)
    assert [(each.request.training.trigger_reason, each.reply) for each in answers] == [
        (TriggerReason.DRIFT_DETECTED, Reply.ACCEPTED),
        (TriggerReason.PERFORMANCE_DEGRADED, Reply.REJECTED),
        (TriggerReason.MANUAL, Reply.ACCEPTED),
        (TriggerReason.REGIME_CHANGE, Reply.ACCEPTED),
    ]
    assert answers[1].because == "Sharpe ratio 0.70 is not below 0.5"
    request = answers[2].request
    assert (request.training.requested_by, request.training.dataset_span_days, request.source) == (
        "ada",
        90,
        "inbox/monitor",
    )
    assert clm.ledger.triggers.answers(message=("monitor", "2")) == [answers[1]]
    assert answer_all(clm) == []


def serve(clm: Services, request: RetrainRequest, label: str = "v20260301_120000") -> ModelVersion:
    """Production version, recorded without training."""
    version = wait(clm, request, label)
    change_production(clm, PromotionKind.PROMOTION, version.model_id, version.version)
    return version


def wait(clm: Services, request: RetrainRequest, label: str) -> ModelVersion:
    """Candidate, recorded without training."""
    job = jobs.open_job(clm, request)
    version = ModelVersion(
        **job.model_dump(include={"model_type", "plugin", "symbol", "timeframe", "seed"}),
        model_id=job.model_id,
        version=label,
        status=ModelStatus.CANDIDATE,
        training_job_id=job.id,
        model_path="models:/x@y",
        mlflow_version=int(label[1:9]),
        mlflow_run_id="0",
        bundle_digest="0",
        data_hash="0",
        code_version="0",
        created_at=NOW,
    )
    lease = clm.ledger.start_job(job.id, "tests", clm.clock(), timedelta(minutes=1))
    clm.ledger.add_version(version, lease)
    clm.ledger.complete_job(lease, clm.clock())
    return version


def change_production(clm: Services, kind: PromotionKind, model_id: str, label: str | None) -> None:
    change = Change(
        model_id=model_id,
        kind=kind,
        from_version=clm.ledger.promotions.champion(model_id),
        to_version=label,
        actor="ada",
        role=Role.ADMIN,
        reason="tests",
        at=NOW,
    )
    clm.ledger.promotions.commit(clm.ledger.promotions.intend(change), NOW, None)


def test_a_retrain_for_an_event_has_the_recipe_of_the_production_version(clm: Services) -> None:
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="BTCUSD",
        dataset_span_days=60,
        training_params={"rounds": 2},
    )
    version = serve(clm, request)
    deliver(clm, "1", "market.regime_changed", **MARKET, current="calm")
    [answer] = answer_all(clm)
    assert answer.model_id == version.model_id
    recipe = clm.ledger.job(version.training_job_id).training_params
    assert recipe["rounds"] == 2
    assert answer.request.training.training_params == recipe
    assert answer.request.training.dataset_span_days == 60
    assert answer.request.recipe_from == f"{version.version}: in production"


def test_a_retrain_after_a_halt_has_a_recipe_that_nobody_took_back(clm: Services) -> None:
    def request(rounds: int) -> RetrainRequest:
        return RetrainRequest(
            model_type=ModelType.LIGHTGBM,
            symbol="BTCUSD",
            dataset_span_days=60,
            training_params={"rounds": rounds},
        )

    first = serve(clm, request(2), "v20260301_120000")
    second = serve(clm, request(3), "v20260302_120000")
    halt = (PromotionKind.HALT, first.model_id, None)
    expected = [(3, "in production"), (2, "newest version that served"), (4, "newest version that awaits")]
    for number, (rounds, because) in enumerate(expected):
        if number > 0:
            change_production(clm, *halt)
        if number > 1:
            # of another recipe than the versions taken back, which have no digest here
            wait(clm, request(4), "v20260303_120000")
        deliver(clm, str(number), "model.drift_detected", **DRIFT)
        [answer] = answer_all(clm)
        assert answer.request.training.training_params["rounds"] == rounds
        assert because in str(answer.request.recipe_from)
        if number == 1:
            change_production(clm, PromotionKind.ROLLBACK, first.model_id, first.version)
    deliver(clm, "own", "model.drift_detected", **DRIFT, training_params={"rounds": 5})
    [answer] = answer_all(clm)
    assert (answer.request.training.training_params["rounds"], answer.request.recipe_from) == (5, None)
    [job] = clm.ledger.jobs(status=JobStatus.PENDING)
    assert job.recipe_from == f"{second.version}: in production"


def test_a_change_of_the_market_concerns_each_plug_in_on_it(clm: Services) -> None:
    ours, theirs = (
        RetrainRequest(**kind, symbol="EURUSD", dataset_span_days=90, requested_by="tests")
        for kind in ({"model_type": "lightgbm"}, {"model_type": "other", "plugin": "ridge"})
    )
    for request in (ours, theirs):
        serve(clm, request)
    deliver(clm, "all", "market.regime_changed", symbol="EURUSD", current="calm")
    deliver(clm, "one", "market.regime_changed", symbol="EURUSD", current="wild", plugins=["ridge"])
    answers = answer_all(clm)
    assert [answer.model_id for answer in answers] == [
        "lightgbm_eurusd_1h",
        "ridge_eurusd_1h",
        "ridge_eurusd_1h",
    ]
    assert {answer.request.training.plugin for answer in answers[1:]} == {"ridge"}


def test_a_change_of_the_market_is_answered_for_each_model_also_for_those_that_cannot_be_trained(
    clm: Services, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = (
        {"model_type": "lightgbm"},
        {"model_type": "other", "plugin": "ridge"},
        {"model_type": "xgboost"},
    )
    for kind in kinds:
        serve(clm, RetrainRequest(**kind, symbol="EURUSD", dataset_span_days=90, requested_by="tests"))
    known = AlertStore(engine).newest(limit=1)
    monkeypatch.setattr(
        catalog, "find_spec", lambda library: None if library == "xgboost" else find_spec(library)
    )
    deliver(clm, "1", "market.regime_changed", symbol="eur/usd", current="calm")
    answers = answer_all(clm)
    assert {answer.model_id: answer.reply for answer in answers} == {
        "lightgbm_eurusd_1h": Reply.ACCEPTED,
        "ridge_eurusd_1h": Reply.ACCEPTED,
        "xgboost_eurusd_1h": Reply.REJECTED,
    }
    [refused] = [answer for answer in answers if answer.reply is Reply.REJECTED]
    assert refused.because.startswith("xgboost is not installed")
    assert clm.ledger.triggers.answers(message=("monitor", "1"), reply=Reply.REJECTED) == [refused]
    assert clm.ledger.triggers.messages(set_aside=True) == []
    assert AlertStore(engine).newest(limit=1) == known


def test_a_retrain_tag_in_mlflow_retrains_the_model_and_other_changes_do_nothing(
    clm: Services,
) -> None:
    request = RetrainRequest(
        model_type="lightgbm", symbol="EURUSD", dataset_span_days=90, requested_by="tests"
    )
    serve(clm, request)
    for number, (name, key) in enumerate(
        [("lightgbm_eurusd_1h", "clm.retrain"), ("nobodys", "clm.retrain"), ("lightgbm_eurusd_1h", "note")]
    ):
        data = {"name": name, "version": "1", "key": key, "value": ""}
        webhook = {"entity": "model_version_tag", "action": "set", "data": data}
        inbox.receive(clm, "mlflow", str(number), json.dumps(webhook).encode(), clm.clock())
    [answer] = answer_all(clm)
    assert (answer.reply, answer.model_id) == (Reply.ACCEPTED, "lightgbm_eurusd_1h")
    assert answer.job_id is not None
    job = clm.ledger.job(answer.job_id)
    assert (job.requested_by, job.dataset_span_days) == ("MLflow", 90)
    [aside] = clm.ledger.triggers.messages(set_aside=True)
    assert "nobodys has no version here" in (aside.error or "")


@pytest.mark.parametrize(
    ("event", "data", "error"),
    [
        ("model.promoted", DRIFT, "type: 'model.promoted' is not a known event"),
        ("model.drift_detected", DRIFT | {"symbol": "DOGEUSD"}, "there is no series DOGEUSD"),
        ("model.drift_detected", DRIFT | {"symbol": "../etc"}, "etc"),
        ("model.drift_detected", DRIFT | {"training_params": {"max_dpeth": 5}}, "max_dpeth"),
        ("model.drift_detected", DRIFT | {"model_type": "other"}, "type OTHER needs the name of a plug-in"),
        ("market.regime_changed", {"symbol": "EURUSD", "current": "calm"}, "no model of EURUSD 1h has a"),
        ("market.regime_changed", UNKNOWN_MARKET, "there is no series DOGEUSD"),
    ],
    ids=[
        "no event of ours",
        "no such market",
        "no market at all",
        "bad parameter",
        "bad type",
        "nobody's",
        "none can be trained",
    ],
)
def test_a_poisonous_message_is_set_aside_and_the_next_is_answered(
    event: str, data: dict[str, Any], error: str, clm: Services, engine: Engine
) -> None:
    deliver(clm, "bad", event, **data)
    deliver(clm, "good", "model.drift_detected", **DRIFT)
    [answer] = answer_all(clm)
    assert answer.request.key == "inbox/monitor/good"
    [aside] = clm.ledger.triggers.messages(set_aside=True)
    assert (aside.message_id, aside.body) == ("bad", json.dumps({"type": event, "data": data}).encode())
    assert error in str(aside.error)
    [alert] = AlertStore(engine).newest(limit=1)
    assert (alert.kind, alert.subject) == (AlertKind.MESSAGE_SET_ASIDE, "monitor/bad")


def test_events_with_the_same_cause_lead_to_one_retrain_of_a_model_even_after_it_has_ended(
    clm: Services,
) -> None:
    deliver(clm, "1", "model.drift_detected", **DRIFT, cause="halving")
    [first] = answer_all(clm)
    assert first.job_id is not None
    lease = clm.ledger.start_job(first.job_id, "tests", clm.clock(), timedelta(minutes=1))
    clm.ledger.complete_job(lease, clm.clock())
    deliver(
        clm, "2", "market.regime_changed", **MARKET, model_types=["lightgbm"], current="calm", cause="halving"
    )
    [again] = answer_all(clm)
    assert (again.reply, again.job_id) == (Reply.COALESCED, first.job_id)


def test_two_dispatches_at_once_answer_every_message_once(clm: Services) -> None:
    for number in range(40):
        deliver(clm, str(number), "model.drift_detected", **DRIFT)
    with ThreadPoolExecutor(4) as pool:
        answers = [answer for batch in pool.map(lambda _: answer_all(clm), range(4)) for answer in batch]
    assert Counter(answer.reply for answer in answers) == {Reply.ACCEPTED: 1, Reply.COALESCED: 39}
    assert len(clm.ledger.triggers.answers(limit=100)) == 40


KILLED_BEFORE_THE_COMMIT = """
import os, signal
from clm_core.ledger import triggers
from clm_core.ledger.engine import open_engine
from clm_core.ledger.store import Ledger
from clm_core.services import open_services
from clm_core.settings import Settings
from clm_core.triggers import inbox
from dataclasses import replace
import sys

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

triggers.processed = killed
with open_services(Settings()) as services:
    inbox.answer_next(replace(services, ledger=Ledger(open_engine(sys.argv[1]))))
"""


def test_a_dispatch_killed_between_the_answer_and_the_message_leaves_neither(
    clm: Services, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(clm.settings.home))
    deliver(clm, "1", "model.drift_detected", **DRIFT)
    script = [sys.executable, "-c", KILLED_BEFORE_THE_COMMIT, ledger_url]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert clm.ledger.triggers.answers() == []
    assert clm.ledger.jobs() == []
    assert [answer.reply for answer in answer_all(clm)] == [Reply.ACCEPTED]


def test_messages_answered_long_ago_are_forgotten_and_those_that_wait_never(clm: Services) -> None:
    deliver(clm, "1", "model.drift_detected", **DRIFT)
    answer_all(clm)
    deliver(clm, "2", "model.drift_detected", **DRIFT)
    late = replace(clm, clock=lambda: clm.clock() + timedelta(days=91))
    assert inbox.forget_old(clm) == 0
    assert inbox.forget_old(late) == 1
    assert [message.message_id for message in clm.ledger.triggers.messages()] == ["2"]
    assert len(clm.ledger.triggers.answers()) == 1
