"""Parts of stable-baselines3 learners that all kinds of policy share.

The module imports torch and stable-baselines3; import the module inside functions only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from clm_core.market.bars import Floats
from clm_core.models.policies.policy_params import PolicyParams
from clm_core.models.policies.trading import PolicyNetwork


class ExploringDQN(DQN):
    """DQN in which each parallel episode explores independently; DQN itself draws once for all episodes."""

    def __init__(self, *args: Any, rng: np.random.Generator, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rng = rng

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        assert self._last_obs is not None
        greedy, _ = self.policy.predict(self._last_obs, deterministic=True)
        explores = self._rng.random(n_envs) < self.exploration_rate
        actions = np.where(explores, self._rng.integers(3, size=n_envs), greedy)
        return actions, actions


def falling(learning_rate: float) -> Callable[[float], float]:
    """Learning rate as a function of the fraction of the training that is left."""
    return lambda left: learning_rate * left


def layers(params: PolicyParams) -> dict[str, Any]:
    """Keyword arguments of a stable-baselines3 policy: two hidden layers of rectified units, AdamW."""
    return {
        "net_arch": [params.hidden, params.hidden],
        "activation_fn": nn.ReLU,
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": params.weight_decay, "eps": 1e-5},
    }


def exported(policy: Any) -> PolicyNetwork:
    """Copy of the network that chooses a stable-baselines3 policy's actions."""
    if isinstance(policy, DQNPolicy):
        modules = list(policy.q_net.q_net)
    else:
        modules = [*policy.mlp_extractor.policy_net, policy.action_net]
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    return PolicyNetwork(
        *(values for layer in linear for values in (_array(layer.weight.T), _array(layer.bias)))
    )


def _array(tensor: torch.Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float64)
