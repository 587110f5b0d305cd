"""Kinds of model: a type of ours, or the plug-in of somebody else that an OTHER is."""

from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, StringConstraints, model_validator

from clm_core.domain.vocabulary import ModelType


class Kind(NamedTuple):
    model_type: ModelType
    plugin: str | None = None
    """Name of the plug-in; None unless the type is OTHER."""

    def __str__(self) -> str:
        """`xgboost`, `ridge`: what model ids begin with."""
        return self.plugin or self.model_type.value


def _not_ours(name: str) -> str:
    if name in list(ModelType):
        raise ValueError(f"{name} is a type of ours: a plug-in needs a name of its own")
    return name


PluginName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$"), AfterValidator(_not_ours)]


class OfKind(BaseModel):
    """Whatever says of which kind it is, by fields that stand among its own where it wants them."""

    if TYPE_CHECKING:
        model_type: ModelType
        plugin: PluginName | None

    @model_validator(mode="after")
    def _names_its_plugin(self) -> Self:
        """The plug-in is named exactly where the type is OTHER."""
        is_other = self.model_type is ModelType.OTHER
        if is_other and self.plugin is None:
            raise ValueError("an OTHER is a plug-in's: name it, as `clm models list-types` does")
        if self.plugin is not None and not is_other:
            raise ValueError(f"{self.model_type.value} is no plug-in: leave {self.plugin} out, or say other")
        return self

    @property
    def kind(self) -> Kind:
        return Kind(self.model_type, self.plugin)


class OfModel(OfKind):
    """… and about which model: of that kind, on a market."""

    if TYPE_CHECKING:
        symbol: str
        timeframe: str

    @property
    def model_id(self) -> str:
        return model_id(self.kind, self.symbol, self.timeframe)


def model_id(kind: Kind, symbol: str, timeframe: str) -> str:
    """The name a model is registered and served under: `xgboost_btcusdt_1h`, `ridge_btcusdt_1h`."""
    return f"{kind}_{symbol}_{timeframe}".lower()
