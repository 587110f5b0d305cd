"""Kinds of model: a type of ours, or the plug-in of somebody else that an OTHER is."""

from typing import Annotated, NamedTuple, Protocol, TypeVar

from pydantic import AfterValidator, StringConstraints

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


class OfKind(Protocol):
    @property
    def model_type(self) -> ModelType: ...

    @property
    def plugin(self) -> str | None: ...


Named = TypeVar("Named", bound=OfKind)


def name_plugin(of_kind: Named) -> Named:
    """For a validator: the plug-in is named exactly where the type is OTHER."""
    is_other = of_kind.model_type is ModelType.OTHER
    if is_other and of_kind.plugin is None:
        raise ValueError("an OTHER is a plug-in's: name it, as `clm models list-types` does")
    if of_kind.plugin is not None and not is_other:
        raise ValueError(
            f"{of_kind.model_type.value} is no plug-in: leave {of_kind.plugin} out, or say other"
        )
    return of_kind
