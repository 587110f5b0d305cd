"""One schema for the events of the stream and of webhooks, published and kept."""

import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from clm_core.domain.allocations import AllocationState, ArmWeight
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evaluations import Decision
from clm_core.domain.events import (
    AllocationChanged,
    AuditAnchored,
    EventType,
    MarketRegimeChanged,
    ModelEvaluated,
    ModelTrained,
    ProductionChanged,
    ProductionHalted,
    TrainingJobCreated,
)
from clm_core.domain.published_events import PAYLOADS, SCHEMA_PATH, StreamedEvent, event_schema
from clm_core.domain.vocabulary import CandidateOrigin, ModelType, TriggerReason
from clm_core.ledger import events
from clm_core.ledger.receivers import EVENTS
from clm_core.services import Services

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import event_schema as schema_file  # noqa: E402 - a script, found by its folder

AT = datetime(2026, 3, 4, 12, tzinfo=UTC)
ONE = uuid.UUID(int=1)
OF_VERSION: dict[str, Any] = {"model_id": "published_btcusd_1h", "version": "v1", "bundle_digest": "b" * 64}
BY_ADA: dict[str, Any] = {"actor": "ada", "reason": "a test"}
CHANGED = ProductionChanged(
    promotion_id=1, previous_version=None, model_path="models:/m@v1", forced=False, **OF_VERSION, **BY_ADA
)
EVALUATED = ModelEvaluated(
    evaluation_id=ONE,
    decision=Decision.FAIL,
    reasons=("too few trades",),
    promotion_score=40.0,
    sharpe_ratio=float("nan"),
    win_rate=0.5,
    profit_factor=float("inf"),
    max_drawdown=-0.1,
    trades=0,
    **OF_VERSION,
)
HAPPENED: dict[EventType, Any] = {
    EventType.TRAINING_JOB_CREATED: TrainingJobCreated(
        job_id=ONE,
        model_id="published_btcusd_1h",
        model_type=ModelType.XGBOOST,
        plugin=None,
        symbol="BTCUSD",
        timeframe="1h",
        trigger_reason=TriggerReason.MANUAL,
        requested_by="ada",
    ),
    EventType.MODEL_TRAINED: ModelTrained(
        job_id=ONE, parent_version=None, model_path="models:/m@v1", **OF_VERSION
    ),
    EventType.MODEL_EVALUATED: EVALUATED,
    EventType.MODEL_PROMOTED: CHANGED,
    EventType.MODEL_ROLLBACK: CHANGED,
    EventType.MODEL_HALTED: ProductionHalted(
        promotion_id=2, model_id="published_btcusd_1h", previous_version="v1", **BY_ADA
    ),
    EventType.ALLOCATION_CHANGED: AllocationChanged(
        allocation_id=1,
        model_id="published_btcusd_1h",
        state=AllocationState.RUNNING,
        arms=(ArmWeight(version="v1", weight=1.0),),
        **BY_ADA,
    ),
    EventType.STRATEGY_CANDIDATE_CREATED: StrategyCandidate(
        id=ONE,
        base_strategy="published_btcusd_1h",
        model_type=ModelType.XGBOOST,
        symbol="BTCUSD",
        timeframe="1h",
        params={"max_depth": 3},
        origin=CandidateOrigin.MANUAL,
        created_at=AT,
    ),
    EventType.AUDIT_ANCHORED: AuditAnchored(at=AT, seq=7, hash="a" * 64, count=7),
    EventType.MARKET_REGIME_CHANGED: MarketRegimeChanged(
        model_id="published_btcusd_1h",
        version="v1",
        symbol="BTCUSD",
        timeframe="1h",
        previous="calm",
        current="turbulent",
        since=AT,
    ),
}


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(event_schema())
    return Draft202012Validator(event_schema())


@pytest.mark.parametrize("kind", EventType, ids=str)
def test_an_event_of_each_type_keeps_the_schema_in_the_stream_and_in_webhooks(
    kind: EventType, schema: Draft202012Validator, wired: Services
) -> None:
    before = wired.receivers.newest(EVENTS)
    happened: BaseModel = HAPPENED[kind]
    with wired.ledger.promotions._engine.begin() as connection:
        events.record(connection, kind, happened, AT)
    [recorded] = [each for each in wired.receivers.following(EVENTS, before, 10) if each.type == kind]
    webhook = recorded.published.model_dump(mode="json")
    streamed = StreamedEvent(**dict(recorded.published), at=recorded.at, payload=recorded.payload).model_dump(
        mode="json"
    )
    schema.validate(webhook)
    schema.validate(streamed)
    assert {name: streamed[name] for name in webhook} == webhook
    assert isinstance(happened, PAYLOADS[kind])


def test_fields_of_later_releases_keep_the_schema_and_other_payloads_do_not(
    schema: Draft202012Validator,
) -> None:
    event = {"id": str(ONE), "seq": 1, "timestamp": AT.isoformat(), "type": "clm.model_halted"}
    event |= {"data": HAPPENED[EventType.MODEL_HALTED].model_dump(mode="json")}
    assert schema.is_valid(event | {"added": 1, "data": event["data"] | {"added": 1}})
    assert not schema.is_valid(event | {"type": "clm.model_trained"})
    assert not schema.is_valid(event | {"data": {}})


def test_the_schema_is_a_file_of_the_documentation_and_served_to_everybody(api: FastAPI) -> None:
    assert schema_file.PAGE.read_text(encoding="utf-8") == schema_file.content(), (
        "run `python scripts/event_schema.py`"
    )
    assert TestClient(api).get(SCHEMA_PATH).json() == event_schema()
