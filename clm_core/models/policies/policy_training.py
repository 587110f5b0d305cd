"""PPO and DQN by stable-baselines3, and a bare network out of either."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from clm_core.market.bars import Floats
from clm_core.models.policies.reinforcement import DQNParams, Params, PPOParams
from clm_core.models.policies.trading import Net
from clm_core.models.policies.trading_env import TradingEpisodes, VectorTradingEnv

NEVER = 2**62
"""Updates or episodes between two lines of stable-baselines3's own log."""

# whoever has a GPU wants it used; `device` says otherwise
warnings.filterwarnings("ignore", message="You are trying to run PPO on the GPU")

Tried = Callable[[Net, float], bool]
"""Called with the policy as it is by now, and the finished share of the training, 0..1; answers whether to go
on."""


def train(params: Params, arena: TradingEpisodes, seed: int, device: str, tried: Tried) -> None:
    """Learn to trade in the arena; to be called within `torch_alone`."""
    rng = np.random.default_rng(seed)
    env = VectorTradingEnv(arena, params.players, rng)
    trial = _Trial(params, tried)
    if isinstance(params, PPOParams):
        ppo(params, env, device).learn(params.bars_played, trial, log_interval=NEVER)
    else:
        dqn(params, env, device, rng).learn(params.bars_played, trial, log_interval=NEVER)


def ppo(params: PPOParams, env: VectorTradingEnv, device: str) -> PPO:
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=_falling(params),
        n_steps=params.rollout,
        batch_size=params.batch_size,
        n_epochs=params.epochs,
        gamma=params.discount,
        ent_coef=params.entropy,
        policy_kwargs=_layers(params) | {"log_std_init": math.log(params.deviation)},
        device=device,
    )


def dqn(params: DQNParams, env: VectorTradingEnv, device: str, rng: np.random.Generator) -> DQN:
    return _Explorer(
        "MlpPolicy",
        env,
        rng=rng,
        learning_rate=_falling(params),
        buffer_size=params.buffer,
        learning_starts=params.batch_size,
        batch_size=params.batch_size,
        gamma=params.discount,
        train_freq=1,
        gradient_steps=params.updates,
        target_update_interval=params.target_interval,
        exploration_fraction=params.explored,
        policy_kwargs=_layers(params),
        device=device,
    )


def _falling(params: Params) -> Callable[[float], float]:
    """The learning rate, by the share of the training that is left."""
    return lambda left: params.learning_rate * left


def _layers(params: Params) -> dict[str, Any]:
    return {
        "net_arch": [params.hidden, params.hidden],
        "activation_fn": nn.ReLU,
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": params.weight_decay, "eps": 1e-5},
    }


def exported(policy: Any) -> Net:
    """What a policy of stable-baselines3 decides by, and nothing else of it."""
    if isinstance(policy, DQNPolicy):
        layers = list(policy.q_net.q_net)
    else:
        layers = [*policy.mlp_extractor.policy_net, policy.action_net]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return Net(*(values for layer in linear for values in (_array(layer.weight.T), _array(layer.bias))))


def _array(tensor: torch.Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float64)


class _Explorer(DQN):
    """Every player explores for itself; the original draws once for all of them."""

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


class _Trial(BaseCallback):
    """Has the policy tried from time to time, and at the end."""

    def __init__(self, params: Params, tried: Tried) -> None:
        super().__init__()
        self._tried, self._total = tried, params.bars_played
        self._every = self._next = params.bars_played / params.checks
        self._goes_on = True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self._next += self._every
            share = min(1.0, self.num_timesteps / self._total)
            self._goes_on = self._tried(exported(self.model.policy), share)

    def _on_training_end(self) -> None:
        if self._goes_on:
            self._tried(exported(self.model.policy), 1.0)

    def _on_step(self) -> bool:
        return self._goes_on
