"""External events that request retraining, parsed strictly from the body of a message.

A body is JSON in an envelope of CloudEvents, Standard Webhooks or GitHub's `repository_dispatch`, or an
MLflow webhook about a tag that requests a retrain:

    {"specversion": "1.0", "id": "…", "source": "…", "type": "model.drift_detected", "data": {…}}
    {"type": "model.drift_detected", "timestamp": "2026-03-01T12:00:00Z", "data": {…}}
    {"action": "model.drift_detected", "client_payload": {…}, …}
    {"entity": "model_version_tag", "action": "set", "data": {"name": "…", "key": "clm.retrain", …}, …}
"""

import json
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Never

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from clm_core.domain.errors import InvalidMessage
from clm_core.domain.kinds import Kind, OfKind, PluginName
from clm_core.domain.spellings import canonical_timeframe
from clm_core.domain.triggers import Line, Observation
from clm_core.domain.vocabulary import ModelType, TriggerReason

MAX_DIGITS = 300
"""Maximum number of digits of a number."""
MAX_PARAMS = 100
RETRAIN_TAG = "clm.retrain"


class IncomingType(StrEnum):
    DRIFT_DETECTED = "model.drift_detected"
    PERFORMANCE_DEGRADED = "performance.degraded"
    TRAINING_REQUESTED = "manual.training_requested"
    REGIME_CHANGED = "market.regime_changed"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Data(_Strict):
    """Fields of every event about the requested training."""

    symbol: Line
    """Market, as listed by `clm data list`."""
    timeframe: Annotated[Line, AfterValidator(canonical_timeframe)] = "1h"
    dataset_span_days: int | None = Field(default=None, gt=0, le=36_500)
    """Days of bars for the training; by default as for the version whose recipe is repeated, else by
    the bar length."""
    training_params: dict[Line, Any] | None = Field(default=None, max_length=MAX_PARAMS)
    """Parameters that differ from the defaults; by default as for the version whose recipe is repeated."""
    cause: Line | None = None
    """Cause of the event: events with the same cause lead to a single retrain of a model."""


class _OfModel(_Data, OfKind):
    model_type: ModelType
    plugin: PluginName | None = None
    """Name of the plug-in, where the type is OTHER."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return (self.kind,)


class DriftDetected(_OfModel):
    """Data drift: features or predictions are no longer distributed as in training."""

    detector: Line
    """Drift detector: `psi`, `ks`, `adwin`."""
    score: float | None = None
    """Drift score in the unit of the detector."""
    threshold: float | None = None
    # a validator before the fields (`OfKind`) hands over JSON as Python values, with lists for tuples
    features: tuple[Line, ...] = Field(default=(), max_length=200, strict=False)
    """Drifted features."""

    @property
    def observed(self) -> Observation:
        return Observation(drift_score=self.score, drifted=self.features)


class PerformanceDegraded(_OfModel):
    """Performance of the production version below expectations."""

    sharpe_ratio: float
    """Annualised Sharpe ratio; a retrain is granted below `triggers.max_sharpe_ratio`."""
    trades: int | None = Field(default=None, ge=0)
    """Number of trades behind the Sharpe ratio."""

    @property
    def observed(self) -> Observation:
        return Observation(sharpe_ratio=self.sharpe_ratio)


class TrainingRequested(_OfModel):
    """Manual request to retrain a model."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Random seed of the training."""
    requested_by: Line
    again: bool = False
    """True to train also where a version of the same bars, parameters, seed and code exists."""

    @property
    def observed(self) -> Observation:
        return Observation()


class RegimeChanged(_Data):
    """Change of the market regime."""

    model_types: tuple[ModelType, ...] | None = Field(default=None, min_length=1)
    """Model types concerned; by default, without plug-ins too, every model with a version on the market."""
    plugins: tuple[PluginName, ...] | None = Field(default=None, min_length=1)
    """Plug-ins concerned."""
    previous: Line | None = None
    current: Line
    """Name of the new regime: `high_volatility`."""

    @field_validator("model_types")
    @classmethod
    def _no_other(cls, types: tuple[ModelType, ...] | None) -> tuple[ModelType, ...] | None:
        if types is not None and ModelType.OTHER in types:
            raise ValueError("the type OTHER stands for plug-ins: name the plug-in in plugins")
        return types

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds concerned; empty for every model with a version on the market."""
        plugins = (Kind(ModelType.OTHER, plugin) for plugin in self.plugins or ())
        return (*map(Kind, self.model_types or ()), *plugins)

    @property
    def observed(self) -> Observation:
        return Observation(regime=self.current)


EventData = DriftDetected | PerformanceDegraded | TrainingRequested | RegimeChanged
DATA_BY_EVENT: dict[IncomingType, type[EventData]] = {
    IncomingType.DRIFT_DETECTED: DriftDetected,
    IncomingType.PERFORMANCE_DEGRADED: PerformanceDegraded,
    IncomingType.TRAINING_REQUESTED: TrainingRequested,
    IncomingType.REGIME_CHANGED: RegimeChanged,
}
REASON_BY_DATA = {
    DriftDetected: TriggerReason.DRIFT_DETECTED,
    PerformanceDegraded: TriggerReason.PERFORMANCE_DEGRADED,
    TrainingRequested: TriggerReason.MANUAL,
    RegimeChanged: TriggerReason.REGIME_CHANGE,
}


class _CloudEvent(BaseModel):
    """CloudEvents 1.0 in JSON; extension attributes are allowed by the specification and ignored."""

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
    """GitHub's `repository_dispatch` event."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: str
    client_payload: Any


class _RegistryChange(BaseModel):
    """MLflow webhook about a change in the model registry."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    entity: str
    action: str
    data: dict[str, Any]


class RetrainTagged(BaseModel):
    """Tag `clm.retrain` set on a version in MLflow."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: Line
    """Name of the registered model, equal to the model id."""
    version: Line
    """MLflow version number."""


def parse(body: bytes) -> EventData | RetrainTagged | None:
    """Event in a message; None for messages of GitHub and MLflow that request nothing.

    Raises:
        InvalidMessage: the body is not JSON, is ambiguous (a name twice, NaN), or not a known event.
    """
    content = _json(body)
    if not isinstance(content, dict):
        raise InvalidMessage('the body is not a JSON object: send {"type": …, "data": {…}}')
    try:
        return _parsed(content)
    except ValidationError as error:
        raise InvalidMessage("; ".join(_problems(error))) from None


def is_foreign(body: bytes) -> bool:
    """True for a message of GitHub about anything but a `repository_dispatch`: a push, an issue.

    Raises:
        InvalidMessage: the body is not JSON, or is ambiguous.
    """
    content = _json(body)
    return isinstance(content, dict) and "client_payload" not in content


def _parsed(content: dict[str, Any]) -> EventData | RetrainTagged | None:
    if "zen" in content:
        # ping event of a new GitHub webhook
        return None
    if "entity" in content:
        return _retrain_tag(_RegistryChange.model_validate(content))
    if "client_payload" in content:
        dispatch = _Dispatch.model_validate(content)
        return _event(dispatch.action, dispatch.client_payload)
    envelope = (_CloudEvent if "specversion" in content else _Webhook).model_validate(content)
    return _event(envelope.type, envelope.data)


def _event(kind: str, data: Any) -> EventData:
    return _kind(kind).model_validate_json(json.dumps(data))


def _retrain_tag(change: _RegistryChange) -> RetrainTagged | None:
    """Retrain tag in a registry change; maintenance looks after all other changes."""
    is_tag = (change.entity, change.action) == ("model_version_tag", "set")
    if not is_tag or "key" not in change.data or change.data["key"] != RETRAIN_TAG:
        return None
    return RetrainTagged.model_validate(change.data)


def _kind(name: str) -> type[EventData]:
    if name not in list(IncomingType):
        raise InvalidMessage(f"type: {name!r} is not a known event; the events are {', '.join(IncomingType)}")
    return DATA_BY_EVENT[IncomingType(name)]


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
    content = dict(pairs)
    if len(content) < len(pairs):
        raise InvalidMessage("the body has a name twice in an object: send each name once")
    return content


def _constant(name: str) -> Never:
    raise InvalidMessage(f"the body contains {name}, which is not a finite number: leave the field out")


def _number(digits: str) -> float:
    value = float(_checked(digits))
    return value if math.isfinite(value) else _constant(digits)


def _whole_number(digits: str) -> int:
    return int(_checked(digits))


def _checked(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise InvalidMessage(f"the body contains a number of {len(digits)} digits")
    return digits


def _problems(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(str(part) for part in details['loc']) or 'body'}: {details['msg']}"
        for details in error.errors(include_url=False, include_input=False)[:5]
    ]
