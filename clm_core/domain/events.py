"""What is told to others after it happened."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class EventType(StrEnum):
    MODEL_PROMOTED = "clm.model_promoted"
    MODEL_ROLLBACK = "clm.model_rollback"


class ProductionChanged(BaseModel):
    """What serves now: all that a trader needs to load it and to check that it is the one meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promotion_id: int
    """Grows with every change of a model: an older one that arrives late can be told."""
    model_id: str
    version: str
    previous_version: str | None
    model_path: str
    """MLflow URI of the version itself, not of the alias: it may have moved on meanwhile."""
    bundle_digest: str
    actor: str
    reason: str
    forced: bool


class Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    """Of the happening: delivered twice, it is the same one."""
    type: EventType
    at: datetime
    payload: ProductionChanged
