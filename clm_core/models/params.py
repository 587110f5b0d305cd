"""Training parameters: validated before any data is loaded."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from clm_core.domain.errors import FeatureMismatch, InvalidTrainingParams, UnknownFeature
from clm_core.domain.recipes import EXECUTION, SIZING, regime_of
from clm_core.domain.search_space import Between, OneOf, SearchDimension, SearchSpace
from clm_core.domain.vocabulary import MarketRegime, ModelType
from clm_core.market.features import FEATURES, select_features, series_of
from clm_core.market.own_features import FeatureOrigin, OwnFeature

__all__ = [
    "Between",
    "Device",
    "FeatureNames",
    "OneOf",
    "OptionalRegime",
    "TrainingParams",
    "choose_device",
    "require_features",
    "split_commas",
]

Device = Literal["auto", "cpu", "cuda"]
"""Training device; "auto" selects a GPU where available."""


class TrainingParams(BaseModel):
    """Parameters of a kind of model. Text is accepted for every value: "5", "0.1", "true".

    The annotation of a parameter worth tuning holds a search range:

        max_depth: Annotated[int, Between(2, 6)] = Field(default=3, ge=1, le=12)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    model_type: ClassVar[ModelType]

    @classmethod
    def parse(cls, params: Mapping[str, Any], kind: str | None = None) -> Self:
        """
        Args:
            kind: name of the kind in error messages; by default the model type.

        Raises:
            InvalidTrainingParams: a parameter is unknown or out of range.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidTrainingParams(
                f"{kind or cls.model_type.value} cannot be trained with these parameters: {problems}. "
                f"Valid parameters: {', '.join([*cls.model_fields, f'{SIZING}.NAME', f'{EXECUTION}.NAME'])}"
            ) from error

    @classmethod
    def search_space(cls) -> SearchSpace:
        """Parameters varied by a tuning, in order."""
        return {
            name: SearchDimension(values, field.annotation is int, field.default)
            for name, field in cls.model_fields.items()
            for values in field.metadata
            if isinstance(values, Between | OneOf)
        }


def choose_device(requested: Device, gpu: bool, library: str) -> Literal["cpu", "cuda"]:
    """Training device for a request.

    Args:
        gpu: True if the library finds a GPU here.
        library: name of the library in the error message.

    Raises:
        InvalidTrainingParams: a GPU is requested and none is available.
    """
    if requested == "cuda" and not gpu:
        raise InvalidTrainingParams(
            f"device=cuda: {library} finds no GPU here. Use device=auto or device=cpu"
        )
    return "cuda" if gpu and requested != "cpu" else "cpu"


def split_commas(value: object) -> object:
    """List of the names in a comma-separated text; values of other types are returned unchanged."""
    if not isinstance(value, str):
        return value
    return [name.strip() for name in value.split(",")] if value.strip() else []


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(feature.name for feature in select_features(names))
    except UnknownFeature as error:
        raise ValueError(str(error)) from error


FeatureNames = Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(_known)]
"""Names of a model's input features (as text: separated by commas)."""


def _none(value: object) -> object:
    return None if value == "none" else value


OptionalRegime = Annotated[MarketRegime | None, BeforeValidator(_none)]
"""Regime that a training is weighted towards; "none" for equal weights."""


def no_regime_of_pool(regime: str) -> InvalidTrainingParams:
    """Error of a pool to be trained towards a regime."""
    return InvalidTrainingParams(
        f"regime={regime}: the markets of a pool are in regimes of their own, so a pool cannot be trained "
        "towards one. Leave regime out, or retrain each symbol by itself"
    )


def needs_regimes(params: Mapping[str, Any], plugin: str | None = None) -> bool:
    """True if training parameters weigh regimes or choose by regime, or those of an ensemble's member do."""
    if plugin is None and params.get("combine") == "regime":
        return True
    members = [member for member in params.get("members") or () if isinstance(member, Mapping)]
    return regime_of(params, plugin) is not None or any(
        regime_of(member["params"], member["plugin"]) is not None for member in members
    )


def require_features(names: Iterable[str]) -> None:
    """Check the input features of a saved model; own features were checked by the card of the bundle.

    Raises:
        FeatureMismatch: neither this release nor an own file has a feature the model needs.
    """
    try:
        select_features([name for name in names if name not in FEATURES])
    except UnknownFeature as error:
        raise FeatureMismatch(
            f"the model needs features this release does not have: {error}. "
            "Retrain the model, or run the release that trained the model"
        ) from error


def feature_names(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Features named by training parameters of any kind, those of an ensemble's members included."""
    own = split_commas(params.get("features") or ())
    if not isinstance(own, Iterable):
        return ()
    members = [member["params"] for member in params.get("members") or () if isinstance(member, Mapping)]
    return tuple(dict.fromkeys([*own, *(name for each in members for name in feature_names(each))]))


def series_names(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Own series that the features named by training parameters take, sorted."""
    return series_of(feature_names(params))


def own_origins(params: Mapping[str, Any]) -> tuple[FeatureOrigin, ...]:
    """Origins of the own features that training parameters name, by name.

    Raises:
        FeatureFailed: a file or distribution with own features cannot be imported.
    """
    selected = select_features([name for name in feature_names(params) if name not in FEATURES])
    return tuple(each.origin for each in selected if isinstance(each, OwnFeature))
