"""RL v3: a policy that chooses any position in [-1, 1], trained by PPO of stable-baselines3."""

import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from clm_core.domain.costs import MarketCosts
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.models.contract import Model, ModelCard, Recipe
from clm_core.models.kind import EXPENSIVE_FOLDS, ModelKind
from clm_core.models.policies.policy_params import PolicyParams

if TYPE_CHECKING:
    import numpy as np
    from stable_baselines3 import PPO

    from clm_core.models.policies.trading_env import VectorTradingEnv


class PPOParams(PolicyParams):
    """Training parameters of RL v3."""

    model_type: ClassVar[ModelType] = ModelType.RL_V3
    discrete: ClassVar[bool] = False

    bars_played: int = Field(default=65_536, ge=1, le=1_000_000_000)
    """Maximum number of bars played in training, over all parallel episodes."""
    step: float = Field(default=0.25, gt=0, le=1)
    """Step to whose whole multiples target positions are rounded; 0..1."""
    rollout: int = Field(default=16, ge=2, le=10_000)
    """Bars per parallel episode between two updates."""
    batch_size: int = Field(default=512, ge=2)
    """Bars per minibatch of an update."""
    epochs: int = Field(default=4, ge=1, le=100)
    """Passes of an update over the bars."""
    entropy: Annotated[float, Between(0.0, 0.03)] = Field(default=0.0, ge=0, le=1)
    """Coefficient of the entropy bonus."""
    deviation: Annotated[float, Between(0.3, 1.5)] = Field(default=1.0, gt=0, le=10)
    """Initial standard deviation of the explored positions."""

    @property
    def position_step(self) -> float:
        return self.step

    def learner(self, env: "VectorTradingEnv", device: str, rng: "np.random.Generator") -> "PPO":
        from stable_baselines3 import PPO

        from clm_core.models.policies import learners

        return PPO(
            "MlpPolicy",
            env,
            learning_rate=learners.falling(self.learning_rate),
            n_steps=self.rollout,
            batch_size=self.batch_size,
            n_epochs=self.epochs,
            gamma=self.discount,
            ent_coef=self.entropy,
            policy_kwargs=learners.layers(self) | {"log_std_init": math.log(self.deviation)},
            device=device,
        )


def _recipe(params: Mapping[str, Any], costs: MarketCosts) -> Recipe:
    from clm_core.models.policies import reinforcement

    return reinforcement.recipe_of(PPOParams, params, costs)


def _load(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.policies import reinforcement

    return reinforcement.load(folder, card, PPOParams)


KIND = ModelKind(
    recipe=_recipe,
    load=_load,
    library="stable_baselines3",
    extra="rl",
    seeds=5,
    tolerance=1e-5,
    search_space=PPOParams.search_space,
    depends_on=("torch",),
    max_folds=EXPENSIVE_FOLDS,
    retrain_every=timedelta(hours=24),
)
