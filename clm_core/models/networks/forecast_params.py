"""Training parameters common to all forecasting networks."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from clm_core.domain.costs import Costs
from clm_core.domain.search_space import Between
from clm_core.models.params import Device, TrainingParams

if TYPE_CHECKING:
    from neuralforecast.losses.pytorch import MQLoss
    from torch import nn


class ForecastParams(TrainingParams):
    """Training parameters of a forecasting network, and the architecture built from the parameters.

    Each kind of network is a subclass with a file for itself, such as `nhits`.
    """

    continues_last_value: ClassVar[bool] = False
    """True if the architecture adds the last value of the window to every output."""

    horizon: Annotated[int, Between(6, 72, log=True)] = Field(default=24, ge=1, le=500)
    """Bars forecast, and bars for which each signal is held; 1..500."""
    input_size: Annotated[int, Between(8, 96, log=True)] = Field(default=24, ge=4, le=1000)
    """Bars in a window; 4..1000."""
    steps: int = Field(default=300, ge=1, le=100_000)
    """Maximum number of training steps; 1..100,000."""
    check_steps: int = Field(default=20, ge=1, le=10_000)
    """Training steps between two measurements of the validation loss; 1..10,000."""
    patience: int = Field(default=5, ge=1, le=10_000)
    """Measurements without a better validation loss before training stops; 1..10,000."""
    batch_size: int = Field(default=256, ge=1, le=65_536)
    """Windows per training step; 1..65,536."""
    learning_rate: Annotated[float, Between(1e-4, 1e-2, log=True)] = Field(default=1e-3, gt=0, le=1)
    """Learning rate of AdamW; 0..1."""
    weight_decay: Annotated[float, Between(1e-3, 1.0, log=True)] = Field(default=0.01, ge=0, le=10)
    """Weight decay of AdamW; 0..10."""
    dropout: Annotated[float, Between(0.0, 0.6)] = Field(default=0.1, ge=0, lt=1)
    """Fraction of activations left out at random in each step; 0..1."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Fraction of the windows, the newest, used for early stopping; 0..0.5."""
    shrink: bool = True
    """Keep only the fraction of each forecast with the least loss on the validation windows."""
    warm_start_steps: int = Field(default=0, ge=0, le=100_000)
    """Steps for which a walk-forward fold continues the model of the fold before; 0 trains each fold anew."""
    full_edge: Annotated[float, Between(0.02, 0.5, log=True)] = Field(default=0.1, gt=0, le=10)
    """Edge, in standard deviations of the horizon's return, from which the position is full; 0..10."""
    round_trip_bps: float | None = Field(default=None, ge=0, lt=10_000)
    """Cost of entry and exit that a forecast has to beat, in basis points; default: costs in the settings."""
    long_only: bool = False
    """Stay flat instead of going short when prices are expected to fall."""
    device: Device = "auto"
    """Device used for training; auto is a GPU if available. Predictions always run on the CPU."""

    @property
    def input_features(self) -> tuple[str, ...]:
        """Names of the features in a window besides returns."""
        return ()

    @abstractmethod
    def build(self, loss: "MQLoss", seed: int) -> "nn.Module":
        """Build the network as neuralforecast does; seeds the random generators of the whole process."""

    @abstractmethod
    def output_layers(self, network: Any) -> "list[nn.Linear]":
        """Last linear layers of a network from `build`; their outputs sum to the forecast."""

    def with_costs(self, costs: Costs) -> Self:
        """Parameters with the cost of a round trip filled in."""
        if self.round_trip_bps is not None:
            return self
        return self.model_copy(update={"round_trip_bps": 2 * (costs.fee_bps + costs.slippage_bps)})
