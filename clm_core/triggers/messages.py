"""What others may tell us: events that speak for retraining, read strictly from a message's body.

A body is JSON in one of three envelopes, a CloudEvent, the payload of Standard Webhooks, or what GitHub makes
of a `repository_dispatch`; or it is MLflow's word of a tag that asks for a retrain:

    {"specversion": "1.0", "id": "…", "source": "…", "type": "model.drift_detected", "data": {…}}
    {"type": "model.drift_detected", "timestamp": "2026-03-01T12:00:00Z", "data": {…}}
    {"action": "model.drift_detected", "client_payload": {…}, …}
    {"entity": "model_version_tag", "action": "set", "data": {"name": "…", "key": "clm.retrain", …}, …}
"""

import json
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, Never

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from clm_core.domain.errors import InvalidMessage
from clm_core.domain.kinds import Kind, OfKind, PluginName
from clm_core.domain.triggers import Line, Observation
from clm_core.domain.vocabulary import ModelType, TriggerReason

LONGEST_NUMBER = 300
"""Digits; more only make work."""
MOST_PARAMS = 100
RETRAIN_TAG = "clm.retrain"


class IncomingType(StrEnum):
    DRIFT_DETECTED = "model.drift_detected"
    PERFORMANCE_DEGRADED = "performance.degraded"
    TRAINING_REQUESTED = "manual.training_requested"
    REGIME_CHANGED = "market.regime_changed"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Data(_Strict):
    """What every event says about the training it speaks for."""

    symbol: Line
    """The market, as `clm data list` names it."""
    timeframe: Line = "1h"
    dataset_span_days: int | None = Field(default=None, gt=0, le=36_500)
    """Days of bars the training may see; None: as the version that serves was trained, else 365."""
    training_params: dict[Line, Any] | None = Field(default=None, max_length=MOST_PARAMS)
    """Parameters that differ from the defaults; None: those of the version that serves."""
    cause: Line | None = None
    """Name of what made the sender speak: events with the same cause lead to one retrain of a model."""


class _OfModel(_Data, OfKind):
    model_type: ModelType
    plugin: PluginName | None = None
    """Which plug-in, where the type is OTHER."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return (self.kind,)


class DriftDetected(_OfModel):
    """The features, or the model's answers, are no longer distributed as in training."""

    detector: Line
    """What found it: `psi`, `ks`, `adwin`."""
    score: float | None = None
    """In the detector's own unit."""
    threshold: float | None = None
    features: tuple[Line, ...] = Field(default=(), max_length=200)
    """Those that drifted."""

    @property
    def observed(self) -> Observation:
        return Observation()


class PerformanceDegraded(_OfModel):
    """The version that serves earns less than it should."""

    sharpe_ratio: float
    """Annualised; the door grants a retrain below `triggers.max_sharpe_ratio`."""
    trades: int | None = Field(default=None, ge=0)
    """How many it was measured on."""

    @property
    def observed(self) -> Observation:
        return Observation(sharpe_ratio=self.sharpe_ratio)


class TrainingRequested(_OfModel):
    """Somebody wants a model retrained."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of everything random in the training."""
    requested_by: Line

    @property
    def observed(self) -> Observation:
        return Observation()


class RegimeChanged(_Data):
    """The market behaves differently from before."""

    model_types: tuple[ModelType, ...] | None = Field(default=None, min_length=1)
    """Whom it concerns; None, and no plug-ins either: every model with a version on this market."""
    plugins: tuple[PluginName, ...] | None = Field(default=None, min_length=1)
    """Whom it concerns of the plug-ins."""
    previous: Line | None = None
    current: Line
    """Name of the regime: `high_volatility`."""

    @field_validator("model_types")
    @classmethod
    def _no_other(cls, types: tuple[ModelType, ...] | None) -> tuple[ModelType, ...] | None:
        if types is not None and ModelType.OTHER in types:
            raise ValueError("an OTHER is a plug-in's: name it in plugins")
        return types

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Empty: every model with a version on this market."""
        plugins = (Kind(ModelType.OTHER, plugin) for plugin in self.plugins or ())
        return (*map(Kind, self.model_types or ()), *plugins)

    @property
    def observed(self) -> Observation:
        return Observation()


Data = DriftDetected | PerformanceDegraded | TrainingRequested | RegimeChanged
DATA_OF: dict[IncomingType, type[Data]] = {
    IncomingType.DRIFT_DETECTED: DriftDetected,
    IncomingType.PERFORMANCE_DEGRADED: PerformanceDegraded,
    IncomingType.TRAINING_REQUESTED: TrainingRequested,
    IncomingType.REGIME_CHANGED: RegimeChanged,
}
REASON_OF = {
    DriftDetected: TriggerReason.DRIFT_DETECTED,
    PerformanceDegraded: TriggerReason.PERFORMANCE_DEGRADED,
    TrainingRequested: TriggerReason.MANUAL,
    RegimeChanged: TriggerReason.REGIME_CHANGE,
}


class _CloudEvent(BaseModel):
    """CloudEvents 1.0 in JSON; extension attributes are allowed by its specification, and not used here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: Line
    source: Line
    type: str
    time: AwareDatetime | None = None
    data: Any
    datacontenttype: Literal["application/json"] = "application/json"


class _Webhook(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    timestamp: AwareDatetime | None = None
    data: Any


class _Dispatch(BaseModel):
    """What somebody had GitHub's API pass on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: str
    client_payload: Any


class _RegistryChange(BaseModel):
    """What MLflow tells of its registry."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    entity: str
    action: str
    data: dict[str, Any]


class RetrainTagged(BaseModel):
    """Somebody set the tag `clm.retrain` on a version in MLflow."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: Line
    """Of the registered model: its model id."""
    version: Line
    """MLflow's number."""


def parse(body: bytes) -> Data | RetrainTagged | None:
    """The event in a message; None: GitHub or MLflow tell of something that asks for nothing.

    Raises:
        InvalidMessage: it is not JSON, is ambiguous (a name twice, NaN), or not one of our events.
    """
    content = _json(body)
    if not isinstance(content, dict):
        raise InvalidMessage('the body is no JSON object: send {"type": …, "data": {…}}')
    try:
        return _told(content)
    except ValidationError as error:
        raise InvalidMessage("; ".join(_problems(error))) from None


def _told(content: dict[str, Any]) -> Data | RetrainTagged | None:
    if "zen" in content:
        # GitHub greets a new webhook
        return None
    if "entity" in content:
        return _of_registry(_RegistryChange.model_validate(content))
    if "client_payload" in content:
        dispatch = _Dispatch.model_validate(content)
        return _event(dispatch.action, dispatch.client_payload)
    envelope = (_CloudEvent if "specversion" in content else _Webhook).model_validate(content)
    return _event(envelope.type, envelope.data)


def _event(kind: str, data: Any) -> Data:
    return _kind(kind).model_validate_json(json.dumps(data))


def _of_registry(change: _RegistryChange) -> RetrainTagged | None:
    """Everything else that changes there is looked after by the upkeep."""
    is_tag = (change.entity, change.action) == ("model_version_tag", "set")
    if not is_tag or "key" not in change.data or change.data["key"] != RETRAIN_TAG:
        return None
    return RetrainTagged.model_validate(change.data)


def _kind(name: str) -> type[Data]:
    if name not in list(IncomingType):
        raise InvalidMessage(f"type: {name!r} is no event we know; those are {', '.join(IncomingType)}")
    return DATA_OF[IncomingType(name)]


def _json(body: bytes) -> Any:
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number,
            parse_int=_whole_number,
        )
    except RecursionError:
        raise InvalidMessage("the body is nested too deeply: an event has three levels at most") from None
    except ValueError as error:
        raise InvalidMessage(f"the body is not valid JSON: {error}") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidMessage("the body has a name twice in one object: nobody can say which value is meant")
    return found


def _constant(name: str) -> Never:
    raise InvalidMessage(f"the body contains {name}, which is no finite number: leave the field out")


def _number(digits: str) -> float:
    value = float(_checked(digits))
    return value if math.isfinite(value) else _constant(digits)


def _whole_number(digits: str) -> int:
    return int(_checked(digits))


def _checked(digits: str) -> str:
    if len(digits) > LONGEST_NUMBER:
        raise InvalidMessage(f"the body contains a number of {len(digits)} digits")
    return digits


def _problems(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(str(part) for part in details['loc']) or 'body'}: {details['msg']}"
        for details in error.errors(include_url=False, include_input=False)[:5]
    ]
