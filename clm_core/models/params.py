"""Training parameters: validated before any data is loaded."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from clm_core.domain.errors import FeatureMismatch, InvalidTrainingParams, UnknownFeature
from clm_core.domain.search_space import Between, OneOf, SearchDimension, SearchSpace
from clm_core.domain.vocabulary import ModelType
from clm_core.market.features import FEATURES, select_features

__all__ = [
    "Between",
    "Device",
    "FeatureNames",
    "OneOf",
    "TrainingParams",
    "choose_device",
    "require_features",
    "split_commas",
]

Device = Literal["auto", "cpu", "cuda"]
"""Where to train; "auto" is a GPU where there is one."""


class TrainingParams(BaseModel):
    """Parameters of one kind of model. Text is accepted for every value: "5", "0.1", "true".

    A parameter that is worth tuning says so in its annotation:

        max_depth: Annotated[int, Between(2, 6)] = Field(default=3, ge=1, le=12)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    model_type: ClassVar[ModelType]

    @classmethod
    def parse(cls, params: Mapping[str, Any], kind: str | None = None) -> Self:
        """
        Args:
            kind: what is to be trained, for people; None: the model type says it.

        Raises:
            InvalidTrainingParams: a parameter is unknown or out of range.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidTrainingParams(
                f"{kind or cls.model_type.value} cannot be trained with these parameters: {problems}. "
                f"Valid parameters: {', '.join(cls.model_fields)}"
            ) from error

    @classmethod
    def search_space(cls) -> SearchSpace:
        """The parameters that a tuning tries, in order."""
        return {
            name: SearchDimension(values, field.annotation is int, field.default)
            for name, field in cls.model_fields.items()
            for values in field.metadata
            if isinstance(values, Between | OneOf)
        }


def choose_device(wanted: Device, gpu: bool, library: str) -> Literal["cpu", "cuda"]:
    """
    Args:
        gpu: whether the library finds one here.

    Raises:
        InvalidTrainingParams: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not gpu:
        raise InvalidTrainingParams(
            f"device=cuda: {library} finds no GPU here. Use device=auto or device=cpu"
        )
    return "cuda" if gpu and wanted != "cpu" else "cpu"


def split_commas(value: object) -> object:
    """The names in a text, for a parameter that is a list of them."""
    if not isinstance(value, str):
        return value
    return [name.strip() for name in value.split(",")] if value.strip() else []


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(feature.name for feature in select_features(names))
    except UnknownFeature as error:
        raise ValueError(str(error)) from error


FeatureNames = Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(_known)]
"""Names of features that a model sees (as text: separated by commas)."""


def require_features(names: Iterable[str]) -> None:
    """
    Raises:
        FeatureMismatch: a model that was saved sees features that this release does not compute.
    """
    missing = [name for name in names if name not in FEATURES]
    if missing:
        raise FeatureMismatch(
            f"the model needs features this release does not have: {', '.join(missing)}. "
            "Retrain it, or run the release it was trained with"
        )
