"""Which model types there are, and what fits and loads each; libraries are imported when one is used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core.domain.costs import Costs
from clm_core.domain.errors import MissingExtra, ModelError
from clm_core.domain.vocabulary import ModelType
from clm_core.models.contract import Model, ModelCard, Recipe
from clm_core.models.params import SearchSpace


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


def recipe(model_type: ModelType, params: Mapping[str, Any], costs: Costs) -> Recipe:
    """Validated training parameters of a model type, defaults filled in; loads no data.

    Args:
        costs: what the trades will cost, for the kinds of model that weigh it.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation.
    """
    return implementation(model_type).recipe(params, costs)


def search_space(model_type: ModelType) -> SearchSpace:
    """What a tuning of this kind of model tries.

    Raises:
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation, or nothing to tune.
    """
    if not (space := implementation(model_type).space()):
        raise ModelError(
            f"{model_type.value} names no parameter to tune: mark those worth it in its training parameters, "
            "as `Annotated[int, Between(2, 6)]`"
        )
    return space


def is_installed(model_type: ModelType) -> bool:
    """Whether models of this type can be trained here."""
    found = IMPLEMENTATIONS.get(model_type)
    return found is not None and find_spec(found.library) is not None


def implementation(model_type: ModelType) -> Implementation:
    found = IMPLEMENTATIONS.get(model_type)
    if found is None:
        raise ModelError(
            f"{model_type.value} has no implementation yet; choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    if find_spec(found.library) is None:
        raise MissingExtra(found.library, found.extra)
    return found


def _xgboost(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.boosting import BoostingRecipe, XGBoostParams

    return BoostingRecipe(XGBoostParams.parse(params))


def _lightgbm(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.boosting import BoostingRecipe, LightGBMParams

    return BoostingRecipe(LightGBMParams.parse(params))


def _xgboost_space() -> SearchSpace:
    from clm_core.models.boosting import XGBoostParams

    return XGBoostParams.search_space()


def _lightgbm_space() -> SearchSpace:
    from clm_core.models.boosting import LightGBMParams

    return LightGBMParams.search_space()


def _rl_v2(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.reinforcement import recipe

    return recipe(ModelType.RL_V2, params, costs)


def _rl_v3(params: Mapping[str, Any], costs: Costs) -> Recipe:
    from clm_core.models.reinforcement import recipe

    return recipe(ModelType.RL_V3, params, costs)


def _rl_v2_space() -> SearchSpace:
    from clm_core.models.reinforcement import DQNParams

    return DQNParams.search_space()


def _rl_v3_space() -> SearchSpace:
    from clm_core.models.reinforcement import PPOParams

    return PPOParams.search_space()


def _load_policy(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.reinforcement import load

    return load(folder, card)


def _load_trees(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.boosting import load

    return load(folder, card)


IMPLEMENTATIONS: dict[ModelType, Implementation] = {
    ModelType.XGBOOST: Implementation(_xgboost, _load_trees, "xgboost", extra=None, space=_xgboost_space),
    ModelType.LIGHTGBM: Implementation(_lightgbm, _load_trees, "lightgbm", extra=None, space=_lightgbm_space),
    ModelType.RL_V2: Implementation(
        _rl_v2, _load_policy, "stable_baselines3", "rl", seeds=5, tolerance=1e-5, space=_rl_v2_space
    ),
    ModelType.RL_V3: Implementation(
        _rl_v3, _load_policy, "stable_baselines3", "rl", seeds=5, tolerance=1e-5, space=_rl_v3_space
    ),
}
