"""RL v2: a policy that chooses short, flat or long, trained by DQN of stable-baselines3."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from clm_core.domain.costs import MarketCosts
from clm_core.domain.search_space import Between
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.models.contract import Model, ModelCard, Recipe
from clm_core.models.kind import EXPENSIVE_FOLDS, ModelKind
from clm_core.models.policies.policy_params import PolicyParams

if TYPE_CHECKING:
    import numpy as np
    from stable_baselines3 import DQN

    from clm_core.models.policies.trading_env import VectorTradingEnv


SIZING = Sizing(scale_half_life=40.0, max_turnover=50.0)
"""The policy is flat most of the time: the size of its older signals says little. A side saves little by
trading less often, so that the turnover is bounded instead of smoothed away."""


class DQNParams(PolicyParams):
    """Training parameters of RL v2."""

    model_type: ClassVar[ModelType] = ModelType.RL_V2
    discrete: ClassVar[bool] = True

    hidden: Annotated[int, Between(8, 128, log=True)] = Field(default=16, ge=1, le=512)
    """Units in each of the two hidden layers; 1..512."""
    bars_played: int = Field(default=65_536, ge=1, le=1_000_000_000)
    """Maximum number of bars played in training, over all parallel episodes."""
    batch_size: int = Field(default=512, ge=2)
    """Bars per update."""
    buffer: int = Field(default=100_000, ge=100)
    """Bars kept in the replay buffer."""
    updates: Annotated[int, Between(1, 8, log=True)] = Field(default=2, ge=1, le=1000)
    """Updates after every bar of all parallel episodes."""
    target_interval: int = Field(default=8_000, ge=1)
    """Bars played between two updates of the target network."""
    margin: Annotated[float, Between(0.0, 1.0)] = Field(default=0.3, ge=0, le=100)
    """Extra value required of another position before the policy gives up the current position, in standard
    deviations of a bar's return: value estimates are noisy, and each change of position costs."""
    explored: float = Field(default=0.5, gt=0, le=1)
    """Fraction of the training over which random actions become rare."""

    @property
    def switching_margin(self) -> float:
        return self.margin

    def learner(self, env: "VectorTradingEnv", device: str, rng: "np.random.Generator") -> "DQN":
        from clm_core.models.policies import learners

        return learners.ExploringDQN(
            "MlpPolicy",
            env,
            rng=rng,
            learning_rate=learners.falling(self.learning_rate),
            buffer_size=self.buffer,
            learning_starts=self.batch_size,
            batch_size=self.batch_size,
            gamma=self.discount,
            train_freq=1,
            gradient_steps=self.updates,
            target_update_interval=self.target_interval,
            exploration_fraction=self.explored,
            policy_kwargs=learners.layers(self),
            device=device,
        )


def _recipe(params: Mapping[str, Any], costs: MarketCosts) -> Recipe:
    from clm_core.models.policies import reinforcement

    return reinforcement.recipe_of(DQNParams, params, costs)


def _load(folder: Path, card: ModelCard) -> Model:
    from clm_core.models.policies import reinforcement

    return reinforcement.load(folder, card, DQNParams)


KIND = ModelKind(
    recipe=_recipe,
    load=_load,
    library="stable_baselines3",
    extra="rl",
    seeds=5,
    tolerance=1e-5,
    search_space=DQNParams.search_space,
    depends_on=("torch",),
    max_folds=EXPENSIVE_FOLDS,
    sizing=SIZING,
)
