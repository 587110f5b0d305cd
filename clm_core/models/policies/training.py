"""Training of a policy by a stable-baselines3 learner, with checks along the way.

The module imports torch and stable-baselines3; import the module inside functions only.
"""

import warnings
from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from clm_core.models.policies.learners import exported
from clm_core.models.policies.policy_params import PolicyParams
from clm_core.models.policies.trading import PolicyNetwork
from clm_core.models.policies.trading_env import TradingEpisodes, VectorTradingEnv

NEVER = 2**62
"""Updates or episodes between two lines of the stable-baselines3 log."""

# PPO runs on a GPU on purpose here; `device` decides
warnings.filterwarnings("ignore", message="You are trying to run PPO on the GPU")

PolicyCheck = Callable[[PolicyNetwork, float], bool]
"""Called with the current policy and the finished fraction of the training, 0..1; returns False to stop."""


def train(
    params: PolicyParams, episodes: TradingEpisodes, seed: int, device: str, check: PolicyCheck
) -> None:
    """Train a policy on the episodes; callers hold `exclusive_torch`."""
    rng = np.random.default_rng(seed)
    env = VectorTradingEnv(episodes, params.players, rng)
    callback = _CheckCallback(params, check)
    learner = params.learner(env, device, rng)
    # the logger by default makes a folder for temporary files, and leaves it
    learner.set_logger(Logger(folder=None, output_formats=[]))
    learner.learn(params.bars_played, callback, log_interval=NEVER)


class _CheckCallback(BaseCallback):
    """Callback of stable-baselines3 that runs the check `params.checks` times, the last at the end."""

    def __init__(self, params: PolicyParams, check: PolicyCheck) -> None:
        super().__init__()
        self._check = check
        self._total = params.bars_played
        self._interval = params.bars_played / params.checks
        self._next = self._interval
        self._continue = True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self._next += self._interval
            done = min(1.0, self.num_timesteps / self._total)
            self._continue = self._check(exported(self.model.policy), done)

    def _on_training_end(self) -> None:
        if self._continue:
            self._check(exported(self.model.policy), 1.0)

    def _on_step(self) -> bool:
        return self._continue
