"""The published form of an event: the same JSON in the stream of the API and in webhooks to subscribers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_serializer
from pydantic.json_schema import models_json_schema

from clm_core.domain.candidates import StrategyCandidate
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

PAYLOADS: Mapping[EventType, type[BaseModel]] = {
    EventType.TRAINING_JOB_CREATED: TrainingJobCreated,
    EventType.MODEL_TRAINED: ModelTrained,
    EventType.MODEL_EVALUATED: ModelEvaluated,
    EventType.MODEL_PROMOTED: ProductionChanged,
    EventType.MODEL_ROLLBACK: ProductionChanged,
    EventType.MODEL_HALTED: ProductionHalted,
    EventType.ALLOCATION_CHANGED: AllocationChanged,
    EventType.STRATEGY_CANDIDATE_CREATED: StrategyCandidate,
    EventType.AUDIT_ANCHORED: AuditAnchored,
    EventType.MARKET_REGIME_CHANGED: MarketRegimeChanged,
}
"""Model of `data` of each type."""
SCHEMA_PATH = "/clm/events/schema"
"""Path of the schema in the API."""


class PublishedEvent(BaseModel):
    """An event as subscribers receive it; standardwebhooks.com names `type`, `timestamp` and `data`."""

    model_config = ConfigDict(frozen=True)

    id: UUID = Field(description="Same for every delivery of the event; `webhook-id` of a webhook.")
    seq: int = Field(description="Number of the event, which grows; `Last-Event-ID` of the stream.")
    type: str
    timestamp: datetime = Field(description="Time of the change.")
    data: dict[str, Any] = Field(description="Facts of the change, by type.")

    @field_serializer("timestamp")
    def _in_iso_8601(self, moment: datetime) -> str:
        # as webhooks have always written it, with the offset in digits
        return moment.isoformat()


class StreamedEvent(PublishedEvent):
    """An event of the stream, with time and data under their former names as well."""

    at: datetime = Field(description="Same as `timestamp`.", deprecated=True)
    payload: dict[str, Any] = Field(description="Same as `data`.", deprecated=True)


def event_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a published event, one alternative a type.

    Later releases may add fields and types, to be ignored by a receiver of today.
    """
    models = sorted(set(PAYLOADS.values()), key=lambda model: model.__name__)
    _, described = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/$defs/{model}"
    )
    definitions = {name: _open(definition) for name, definition in described["$defs"].items()}
    envelope = TypeAdapter(StreamedEvent).json_schema(mode="serialization")
    for kind, model in PAYLOADS.items():
        properties = {
            **envelope["properties"],
            "timestamp": {**envelope["properties"]["timestamp"], "format": "date-time"},
            "type": {"const": kind.value},
            "data": {"$ref": f"#/$defs/{model.__name__}"},
            "payload": {"$ref": f"#/$defs/{model.__name__}", "deprecated": True},
        }
        definitions[kind.value] = {
            "type": "object",
            "properties": properties,
            "required": list(PublishedEvent.model_fields),
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:clm:events",
        "title": "Event",
        "description": "An event of CLM, in the stream /clm/events and in webhooks. Fields and types may be "
        "added.",
        "oneOf": [{"$ref": f"#/$defs/{kind.value}"} for kind in PAYLOADS],
        "$defs": dict(sorted(definitions.items())),
    }


def _open(schema: Any) -> Any:
    """The schema open to further fields, with the texts for numbers that are not finite."""
    if isinstance(schema, list):
        return [_open(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _open(value) for name, value in schema.items() if name != "additionalProperties"}
    if kept.get("type") == "number":
        words = {name: kept.pop(name) for name in ("title", "description", "default") if name in kept}
        return {**words, "anyOf": [kept, {"enum": ["nan", "inf", "-inf"]}]}
    return kept
