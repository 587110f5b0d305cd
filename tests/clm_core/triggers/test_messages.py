"""Accepted and refused messages, as a table and as a property test."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clm_core.domain.errors import InvalidMessage
from clm_core.domain.vocabulary import ModelType
from clm_core.triggers.messages import (
    DriftDetected,
    PerformanceDegraded,
    RegimeChanged,
    RetrainTagged,
    TrainingRequested,
    parse,
)

MARKET = {"symbol": "BTCUSD"}
MODEL = MARKET | {"model_type": "xgboost"}


def body(event: str, **data: Any) -> bytes:
    return json.dumps({"type": event, "data": data}).encode()


def test_a_repository_dispatch_of_github_is_an_event() -> None:
    data = {"requested_by": "ada", **MODEL}
    dispatched = {"action": "manual.training_requested", "client_payload": data, "sender": {"login": "ada"}}
    expected = TrainingRequested(symbol="BTCUSD", model_type=ModelType.XGBOOST, requested_by="ada")
    assert parse(json.dumps(dispatched).encode()) == expected


TAG = {"name": "xgboost_btcusd_1h", "version": "3", "key": "clm.retrain", "value": "yes"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, RetrainTagged(name="xgboost_btcusd_1h", version="3")),
        ({"data": TAG | {"key": "note"}}, None),
        ({"action": "deleted"}, None),
        ({"entity": "model_version_alias", "action": "created", "data": {"alias": "production"}}, None),
        ({"entity": "registered_model", "action": "created", "data": {"name": "x"}}, None),
    ],
    ids=["our tag", "another tag", "taken away", "an alias", "a model"],
)
def test_only_the_retrain_tag_of_mlflow_requests_a_retrain(
    change: dict[str, Any], expected: RetrainTagged | None
) -> None:
    webhook = {"entity": "model_version_tag", "action": "set", "data": TAG}
    stamped = webhook | {"timestamp": "2026-03-01T12:00:00Z"}
    assert parse(json.dumps(stamped | change).encode()) == expected


def test_a_ping_of_github_requests_nothing() -> None:
    assert parse(b'{"zen": "Design for failure.", "hook_id": 1, "hook": {}}') is None


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        (
            "model.drift_detected",
            MODEL | {"detector": "psi", "score": 0.31, "features": ["rsi_14"]},
            DriftDetected(
                symbol="BTCUSD",
                model_type=ModelType.XGBOOST,
                detector="psi",
                score=0.31,
                features=("rsi_14",),
            ),
        ),
        (
            "performance.degraded",
            MODEL | {"sharpe_ratio": 0.31},
            PerformanceDegraded(symbol="BTCUSD", model_type=ModelType.XGBOOST, sharpe_ratio=0.31),
        ),
        (
            "manual.training_requested",
            MODEL | {"dataset_span_days": 90, "training_params": {"max_depth": 5}, "requested_by": "ada"},
            TrainingRequested(
                symbol="BTCUSD",
                model_type=ModelType.XGBOOST,
                dataset_span_days=90,
                training_params={"max_depth": 5},
                requested_by="ada",
            ),
        ),
        (
            "market.regime_changed",
            MARKET | {"current": "high_volatility"},
            RegimeChanged(symbol="BTCUSD", current="high_volatility"),
        ),
    ],
    ids=["drift", "performance", "manual", "regime"],
)
def test_the_four_events_are_understood_in_both_envelopes(event: str, data: Any, expected: Any) -> None:
    cloud_event = {"specversion": "1.0", "id": "1", "source": "/monitor", "type": event, "data": data}
    assert parse(body(event, **data)) == expected
    assert parse(json.dumps(cloud_event | {"traceparent": "00-1"}).encode()) == expected


def test_the_examples_in_the_guide_are_the_four_events() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "reference" / "requests.md").read_text()
    examples = re.findall(r'```json\n(\{"(?:type|specversion)".*?)```', guide, flags=re.DOTALL)
    types = [type(parse(example.encode())) for example in examples]
    assert types == [DriftDetected, PerformanceDegraded, TrainingRequested, RegimeChanged]


DEGRADED = "performance.degraded"


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"type": "model.promoted", "data": {}}', "type"),
        (b"{}", "type: Field required"),
        (body(DEGRADED, **MODEL), "sharpe_ratio: Field required"),
        (body(DEGRADED, **MODEL, sharpe_ratio="0.3"), "valid number"),
        (body(DEGRADED, **MODEL, sharpe_ratio=0.3, sharp=1), "Extra inputs are not permitted"),
        (body(DEGRADED, **MODEL, sharpe_ratio=float("nan")), "NaN, which is not a finite number"),
        (body(DEGRADED, **MODEL, sharpe_ratio=float("-inf")), "-Infinity, which is not a finite number"),
        (body(DEGRADED, **MODEL, sharpe_ratio=0).replace(b"0}", b"1e999}"), "1e999, which is not a finite"),
        (body(DEGRADED, **MODEL, sharpe_ratio=0).replace(b"0}", b"9" * 10_000 + b"}"), "10000 digits"),
        (body(DEGRADED, **MODEL, sharpe_ratio=0).replace(b"0}", b'0, "sharpe_ratio": 1}'), "name twice"),
        (b'{"type": "performance.degraded", "data": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too deeply"),
        (body(DEGRADED, model_type="xgboost", symbol="BTC\0", sharpe_ratio=0), "symbol"),
        (body(DEGRADED, model_type="xgboost", symbol="B" * 201, sharpe_ratio=0), "symbol"),
        (body(DEGRADED, model_type="prophet", symbol="BTCUSD", sharpe_ratio=0), "model_type"),
        (body("market.regime_changed", **MARKET, current="calm", model_types=[]), "model_types"),
        (body("manual.training_requested", **MODEL, requested_by="a", dataset_span_days=10**9), "span_days"),
        (b'{"specversion": "0.3", "id": "1", "source": "/", "type": "x", "data": {}}', "specversion"),
    ],
    ids=[
        "empty",
        "no UTF-8",
        "a list",
        "unknown event",
        "empty object",
        "a field is missing",
        "a number as text",
        "a field too many",
        "NaN",
        "infinity",
        "a number too great",
        "10,000 digits",
        "a name twice",
        "10,000 deep",
        "a control character",
        "a long symbol",
        "an unknown model type",
        "an empty list",
        "a span of a million years",
        "an older CloudEvent",
    ],
)
def test_any_other_message_is_refused_with_the_reason(sent: bytes, complaint: str) -> None:
    with pytest.raises(InvalidMessage, match=complaint):
        parse(sent)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
FIELDS = ("symbol", "timeframe", "model_type", "sharpe_ratio", "training_params", "cause", "current", "seed")
bodies = (
    st.binary()
    | st.builds(body, st.sampled_from([DEGRADED, "market.regime_changed", "manual.training_requested"]))
    | st.dictionaries(st.sampled_from(FIELDS), json_values).map(lambda data: body(DEGRADED, **MODEL | data))
)


@given(bodies)
@example(b'{"type": "\\ud800", "data": {}}')
def test_every_body_is_an_event_or_an_invalid_message(sent: bytes) -> None:
    with contextlib.suppress(InvalidMessage):
        assert parse(sent).symbol
