"""Which model types there are, and what fits and loads each; libraries are imported when one is used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core.domain.costs import Costs
from clm_core.domain.errors import MissingExtra, ModelError
from clm_core.domain.kinds import Kind
from clm_core.domain.search_space import SearchSpace
from clm_core.domain.vocabulary import ModelType
from clm_core.models import plugins
from clm_core.models.contract import Model, ModelCard, PluginOrigin, Recipe


@dataclass(frozen=True)
class Implementation:
    recipe: Callable[[Mapping[str, Any], Costs], Recipe]
    """Validates training parameters."""
    load: Callable[[Path, ModelCard], Model]
    """Reads the model's own files from a verified bundle."""
    library: str
    """Name it is imported by, and distributed under."""
    extra: str | None
    """The optional extra that installs the library; None where the base does."""
    seeds: int = 1
    """Walk-forwards it takes to tell the model from its seed."""
    tolerance: float = 0.0
    """How far an answer may lie from what the same bundle answered on another machine; 0.0: not at all."""
    space: Callable[[], SearchSpace] = dict
    """What a tuning tries; nothing: it cannot be tuned."""
    beside: tuple[str, ...] = ()
    """Distributions that its answers depend on besides the library."""


def recipe(
    model_type: ModelType, params: Mapping[str, Any], costs: Costs, plugin: str | None = None
) -> Recipe:
    """Validated training parameters of a model type, defaults filled in; loads no data.

    Args:
        costs: what the trades will cost, for the kinds of model that weigh it.
        plugin: its name, where the type is OTHER.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    return implementation(model_type, plugin).recipe(params, costs)


def load(folder: Path, card: ModelCard) -> Model:
    """The model of a verified bundle.

    Raises:
        FeatureMismatch: the model needs features this release does not compute.
        PluginMissing: the plug-in it was made by is not installed here; says what to install.
    """
    if card.plugin is not None:
        return plugins.required(card.plugin).load(folder, card)
    return implementation(card.model_type).load(folder, card)


def search_space(model_type: ModelType, plugin: str | None = None) -> SearchSpace:
    """What a tuning of this kind of model tries.

    Raises:
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation, or nothing to tune.
    """
    if not (space := implementation(model_type, plugin).space()):
        raise ModelError(
            f"{Kind(model_type, plugin)} names no parameter to tune: mark those worth it in its training "
            "parameters, as `Annotated[int, Between(2, 6)]`"
        )
    return space


def is_installed(model_type: ModelType) -> bool:
    """Whether models of this type can be trained here."""
    found = IMPLEMENTATIONS.get(model_type)
    return found is not None and find_spec(found.library) is not None


def implementation(model_type: ModelType, plugin: str | None = None) -> Implementation:
    """
    Raises:
        MissingExtra: the library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    if plugin is not None:
        return _of_plugin(plugins.find(plugin))
    found = IMPLEMENTATIONS.get(model_type)
    if found is None:
        raise ModelError(
            f"{model_type.value} has no implementation yet; choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    if find_spec(found.library) is None:
        raise MissingExtra(found.library, found.extra)
    return found


def origin(of: Model | Recipe) -> PluginOrigin | None:
    """The plug-in that made it; None for what is ours."""
    return of.origin if isinstance(of, plugins.PluginModel | plugins.PluginRecipe) else None


def seeds(recipe: Recipe) -> int:
    """Walk-forwards it takes to tell its models from their seeds."""
    return max(found.seeds for found in _behind(recipe))


def tolerance(model: Model) -> float:
    """How far an answer may lie from what the same bundle answered on another machine; 0.0: not at all."""
    return max(found.tolerance for found in _behind(model))


def distributions(of: Model | Recipe) -> tuple[str, ...]:
    """What has to be installed to fit or load it, besides us."""
    brought = [made_by.distribution for part in _parts(of) if (made_by := origin(part))]
    ours = [name for found in _behind(of) for name in (found.library, *found.beside)]
    return tuple(dict.fromkeys([*ours, *brought]))


def plugin_code(of: Model | Recipe) -> dict[str, str]:
    """Digest of the source of each plug-in it takes, by name: a version does not tell of every change."""
    names = [made_by.name for part in _parts(of) if (made_by := origin(part))]
    return {name: plugins.code_digest(name) for name in names}


def _parts(of: Model | Recipe) -> tuple[Model | Recipe, ...]:
    """Itself, and the members of an ensemble."""
    from clm_core.models.ensemble import EnsembleModel, EnsembleRecipe

    return (of, *of.parts) if isinstance(of, EnsembleModel | EnsembleRecipe) else (of,)


def _behind(of: Model | Recipe) -> list[Implementation]:
    """What made it, and its members."""
    return [
        implementation(part.model_type, made_by.name if (made_by := origin(part)) else None)
        for part in _parts(of)
    ]


def _of_plugin(found: plugins.Installed) -> Implementation:
    plugin = found.plugin

    def recipe(params: Mapping[str, Any], costs: Costs) -> Recipe:
        return found.recipe(plugin.params.parse(params, kind=found.origin.name), costs)

    return Implementation(
        recipe=recipe,
        load=found.load,
        library=plugin.library,
        extra=None,
        seeds=plugin.seeds,
        tolerance=plugin.tolerance,
        space=plugin.params.search_space,
    )


def _xgboost(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.trees.boosting import BoostingRecipe, XGBoostParams, found_device

    parsed = XGBoostParams.parse(params)
    if parsed.device == "cuda":
        found_device(parsed.device)
    return BoostingRecipe(parsed)


def _lightgbm(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.trees.boosting import BoostingRecipe, LightGBMParams

    return BoostingRecipe(LightGBMParams.parse(params))


def _xgboost_space() -> SearchSpace:
    from clm_core.models.trees.boosting import XGBoostParams

    return XGBoostParams.search_space()


def _lightgbm_space() -> SearchSpace:
    from clm_core.models.trees.boosting import LightGBMParams

    return LightGBMParams.search_space()


def _rl_v2(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.policies.reinforcement import recipe

    return recipe(ModelType.RL_V2, params, costs)


def _rl_v3(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.policies.reinforcement import recipe

    return recipe(ModelType.RL_V3, params, costs)


def _rl_v2_space() -> SearchSpace:
    from clm_core.models.policies.reinforcement import DQNParams

    return DQNParams.search_space()


def _rl_v3_space() -> SearchSpace:
    from clm_core.models.policies.reinforcement import PPOParams

    return PPOParams.search_space()


def _load_policy(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.policies.reinforcement import load

    return load(folder, card)


def _ensemble(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.ensemble import EnsembleParams, EnsembleRecipe

    return EnsembleRecipe.of(EnsembleParams.parse(params), costs)


def _load_ensemble(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.ensemble import load

    return load(folder, card)


def _nhits(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.networks.forecast_params import NHITSParams
    from clm_core.models.networks.forecasting import recipe_of

    return recipe_of(NHITSParams.parse(params), costs)


def _patchtst(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.networks.forecast_params import PatchTSTParams
    from clm_core.models.networks.forecasting import recipe_of

    return recipe_of(PatchTSTParams.parse(params), costs)


def _nhits_space() -> SearchSpace:
    from clm_core.models.networks.forecast_params import NHITSParams

    return NHITSParams.search_space()


def _patchtst_space() -> SearchSpace:
    from clm_core.models.networks.forecast_params import PatchTSTParams

    return PatchTSTParams.search_space()


def _load_trees(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.trees.boosting import load

    return load(folder, card)


def _load_forecaster(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.networks.forecasting import load

    return load(folder, card)


IMPLEMENTATIONS: dict[ModelType, Implementation] = {
    ModelType.XGBOOST: Implementation(_xgboost, _load_trees, "xgboost", extra=None, space=_xgboost_space),
    ModelType.LIGHTGBM: Implementation(_lightgbm, _load_trees, "lightgbm", extra=None, space=_lightgbm_space),
    ModelType.RL_V2: Implementation(
        _rl_v2,
        _load_policy,
        "stable_baselines3",
        "rl",
        seeds=5,
        tolerance=1e-5,
        space=_rl_v2_space,
        beside=("torch",),
    ),
    ModelType.RL_V3: Implementation(
        _rl_v3,
        _load_policy,
        "stable_baselines3",
        "rl",
        seeds=5,
        tolerance=1e-5,
        space=_rl_v3_space,
        beside=("torch",),
    ),
    ModelType.ENSEMBLE: Implementation(_ensemble, _load_ensemble, "scipy", extra=None),
    ModelType.NHITS: Implementation(
        _nhits,
        _load_forecaster,
        "neuralforecast",
        "forecast",
        seeds=3,
        tolerance=1e-5,
        space=_nhits_space,
        beside=("torch",),
    ),
    ModelType.PATCHTST: Implementation(
        _patchtst,
        _load_forecaster,
        "neuralforecast",
        "forecast",
        seeds=3,
        tolerance=1e-5,
        space=_patchtst_space,
        beside=("torch",),
    ),
}
