"""Kinds of model: a built-in type, or a plug-in or rule strategy (type OTHER with its name)."""

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, StringConstraints, model_validator

from clm_core.domain.spellings import normalise_symbol, normalise_timeframe
from clm_core.domain.vocabulary import ModelType, RuleFamily


class Kind(NamedTuple):
    model_type: ModelType
    plugin: str | None = None
    """Name of the plug-in or rule strategy; None unless the type is OTHER."""

    @classmethod
    def named(cls, name: str, plugin: str | None = None) -> Self:
        """Kind by the value of a model type, or by the name of a rule strategy alone."""
        if name in list(RuleFamily):
            return cls(ModelType.OTHER, name)
        return cls(ModelType(name), plugin)

    def __str__(self) -> str:
        """`xgboost`, `ridge`: the beginning of model ids."""
        return self.plugin or self.model_type.value


def _not_built_in(name: str) -> str:
    if name in list(ModelType):
        raise ValueError(f"{name} is a built-in type: a plug-in needs a different name")
    return name


PluginName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$"), AfterValidator(_not_built_in)
]


class OfKind(BaseModel):
    """Base of models with a kind; subclasses declare the fields `model_type` and `plugin`.

    The name of a rule strategy is accepted as a model type: `momentum` for `other` and `momentum`.
    """

    if TYPE_CHECKING:
        model_type: ModelType
        plugin: PluginName | None

    @model_validator(mode="before")
    @classmethod
    def _of_strategy(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping) or fields.get("model_type") not in list(RuleFamily):
            return fields
        name = str(fields["model_type"])
        plugin = fields.get("plugin")
        if plugin not in (None, name):
            raise ValueError(f"{name} is a rule strategy, not a plug-in: leave {plugin} out")
        return {**fields, "model_type": ModelType.OTHER, "plugin": name}

    @model_validator(mode="after")
    def _names_its_plugin(self) -> Self:
        """A plug-in is named if and only if the type is OTHER."""
        is_other = self.model_type is ModelType.OTHER
        if is_other and self.plugin is None:
            raise ValueError(
                "type OTHER needs the name of a plug-in or rule strategy: `clm models list-types` lists both"
            )
        if self.plugin is not None and not is_other:
            raise ValueError(
                f"{self.model_type.value} is not a plug-in: leave {self.plugin} out, or use the type other"
            )
        return self

    @property
    def kind(self) -> Kind:
        return Kind(self.model_type, self.plugin)


class OfModel(OfKind):
    """Base of models with a kind and a market, and therefore a model id."""

    if TYPE_CHECKING:
        symbol: str
        timeframe: str

    @property
    def model_id(self) -> str:
        return model_id(self.kind, self.symbol, self.timeframe)


def artifact_key(model_id: str) -> str:
    """Key of a model's artifacts in Prefect: letters, digits and dashes, different for different models."""
    key = re.sub(r"[^a-z0-9]", "-", model_id)
    if re.fullmatch(r"[a-z0-9_]+", model_id):
        return key
    return f"{key}-{hashlib.sha256(model_id.encode()).hexdigest()[:8]}"


def model_id(kind: Kind, symbol: str, timeframe: str) -> str:
    """Name under which a model is registered and served: `xgboost_btcusdt_1h`, `ridge_btcusdt_1h`."""
    return f"{kind}_{normalise_symbol(symbol)}_{normalise_timeframe(timeframe) or timeframe}".lower()
