"""Training parameters common to all reinforcement learning policies."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from clm_core.domain.costs import HoldingCosts
from clm_core.domain.search_space import Between
from clm_core.market.features import FEATURES
from clm_core.models.params import Device, FeatureNames, TrainingParams

if TYPE_CHECKING:
    import numpy as np

    from clm_core.models.policies.trading_env import VectorTradingEnv


class PolicyParams(TrainingParams):
    """Training parameters of a policy, and the learner built from the parameters.

    Each kind of policy is a subclass with a file for itself, such as `rl_v3`.
    """

    discrete: ClassVar[bool]
    """True for a policy that chooses short, flat or long; False for any position in [-1, 1]."""

    features: FeatureNames = Field(default_factory=lambda: tuple(FEATURES), min_length=1)
    """Names of the features used (as text: separated by commas); default all."""
    fee_bps: float = Field(ge=0, lt=10_000)
    """Fee during training, in basis points; default: the market's fee."""
    slippage_bps: float = Field(ge=0, lt=10_000)
    """Slippage during training, in basis points; default: the market's slippage."""
    memory: int = Field(default=168, ge=2, le=300)
    """Bars of an episode, after which a policy forgets its position; 2..300."""
    drawdown_penalty: Annotated[float, Between(0.0, 1.0)] = Field(default=0.0, ge=0, le=100)
    """Multiple of an episode's deepest drawdown (log) subtracted from the reward: 0 rewards growth alone."""
    discount: Annotated[float, Between(0.8, 0.99)] = Field(default=0.95, ge=0, lt=1)
    """Weight of the next bar's reward relative to the current bar's; 0..1."""
    hidden: Annotated[int, Between(8, 128, log=True)] = Field(default=32, ge=1, le=512)
    """Units in each of the two hidden layers; 1..512."""
    learning_rate: Annotated[float, Between(1e-4, 1e-2, log=True)] = Field(default=1e-3, gt=0, le=1)
    """Initial learning rate of AdamW, falling linearly to 0; 0..1."""
    weight_decay: Annotated[float, Between(0.1, 20.0, log=True)] = Field(default=5.0, ge=0, le=1000)
    """Weight decay of AdamW (times the learning rate, per update); high values suit noisy rewards."""
    players: int = Field(default=64, ge=1, le=4096)
    """Episodes played in parallel; 1..4,096."""
    bars_played: int = Field(ge=1, le=1_000_000_000)
    """Maximum number of bars played in training, over all parallel episodes."""
    checks: int = Field(default=20, ge=1, le=10_000)
    """Number of times the policy is evaluated on the validation bars."""
    patience: int = Field(default=10, ge=1, le=10_000)
    """Checks without a better policy after which training stops."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Fraction of the bars with features, the newest, used to choose the policy to keep; 0..0.5."""
    device: Device = "auto"
    """Device used for training: "cpu", "cuda", or "auto" for a GPU if available."""
    funding_bps_per_8h: float = Field(default=0.0, gt=-1_000, lt=1_000, allow_inf_nan=False)
    """Constant funding rate during training: longs pay, shorts receive; default: the market's constant."""
    borrow_bps_per_year: float = Field(default=0.0, ge=0, lt=100_000, allow_inf_nan=False)
    """Cost of borrowing units sold short during training; default: the market's."""
    long_only: bool = False
    """True for a policy without short positions; default: the market's rule."""

    @property
    def holding(self) -> HoldingCosts:
        """Costs of holding during training."""
        return HoldingCosts(
            funding_bps_per_8h=self.funding_bps_per_8h, borrow_bps_per_year=self.borrow_bps_per_year
        )

    @property
    def position_step(self) -> float:
        """Step to whose whole multiples target positions are rounded."""
        return 1.0

    @property
    def switching_margin(self) -> float:
        """Extra value required of another position before the policy gives up the current position."""
        return 0.0

    @abstractmethod
    def learner(self, env: "VectorTradingEnv", device: str, rng: "np.random.Generator") -> Any:
        """Untrained learner of stable-baselines3; weights come from the global torch generator."""
