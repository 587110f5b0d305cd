"""Training parameters of the forecasting networks; see `forecasting` for what they do."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from clm_core.domain.costs import Costs
from clm_core.domain.search_space import Between, OneOf
from clm_core.domain.vocabulary import ModelType
from clm_core.models.params import Device, FeatureNames, TrainingParams

SHOWN = ("mean_gap_96", "volatility_ratio_12_96", "volume_z_24", "hour_sin", "hour_cos")
"""Features NHITS sees by default. Each is another input for every bar of the window: with many, what the
returns say drowns in them."""


class ForecastParams(TrainingParams):
    """Training parameters both networks share."""

    horizon: Annotated[int, Between(6, 72, log=True)] = Field(default=24, ge=1, le=500)
    """Bars forecast, and for which each signal is held; 1..500."""
    input_size: Annotated[int, Between(8, 96, log=True)] = Field(default=24, ge=4, le=1000)
    """Bars seen; 4..1000."""
    steps: int = Field(default=300, ge=1, le=100_000)
    """Most training steps; 1..100,000."""
    check_steps: int = Field(default=20, ge=1, le=10_000)
    """Steps between two looks at the validation loss; 1..10,000."""
    patience: int = Field(default=5, ge=1, le=10_000)
    """Looks without a better loss after which training ends; 1..10,000."""
    batch_size: int = Field(default=256, ge=1, le=65_536)
    """Windows a step; 1..65,536."""
    learning_rate: Annotated[float, Between(1e-4, 1e-2, log=True)] = Field(default=1e-3, gt=0, le=1)
    """Of AdamW; 0..1."""
    weight_decay: Annotated[float, Between(1e-3, 1.0, log=True)] = Field(default=0.01, ge=0, le=10)
    """Of AdamW; 0..10."""
    dropout: Annotated[float, Between(0.0, 0.6)] = Field(default=0.1, ge=0, lt=1)
    """Share of activations left out at random in each step; 0..1."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the windows, the newest, that decides when training stops; 0..0.5."""
    shrink: bool = True
    """Whether only the share of each forecast is kept that helped on the validation windows."""
    warm_start_steps: int = Field(default=0, ge=0, le=100_000)
    """Steps for which a fold of a walk-forward continues the model of the one before; 0: each begins anew."""
    full_edge: Annotated[float, Between(0.02, 0.5, log=True)] = Field(default=0.1, gt=0, le=10)
    """Edge, in standard deviations of the horizon's return, from which the position is whole; 0..10."""
    round_trip_bps: float | None = Field(default=None, ge=0, lt=10_000)
    """Cost of going in and out that a forecast has to beat, in basis points; default: by the settings."""
    long_only: bool = False
    """Whether falling prices are sat out instead of sold short."""
    device: Device = "auto"
    """Where to train: auto is a GPU where there is one. Answers are always computed on the processor."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the features in a window."""
        return ()

    def priced(self, costs: Costs) -> Self:
        """With the cost of a round trip filled in."""
        if self.round_trip_bps is not None:
            return self
        return self.model_copy(update={"round_trip_bps": 2 * (costs.fee_bps + costs.slippage_bps)})


class NHITSParams(ForecastParams):
    model_type: ClassVar[ModelType] = ModelType.NHITS

    dropout: Annotated[float, Between(0.0, 0.6)] = Field(default=0.3, ge=0, lt=1)
    """Share of activations left out at random in each step; 0..1."""
    hidden_size: Annotated[int, Between(8, 256, log=True)] = Field(default=64, ge=1, le=4096)
    """Units of both layers of each of the three blocks; 1..4096."""
    features: FeatureNames = SHOWN
    """Names of the features seen besides returns (as text: separated by commas); may be none."""

    @property
    def shown(self) -> tuple[str, ...]:
        return self.features


class PatchTSTParams(ForecastParams):
    model_type: ClassVar[ModelType] = ModelType.PATCHTST

    input_size: Annotated[int, Between(24, 240, log=True)] = Field(default=96, ge=4, le=1000)
    """Bars seen; 4..1000."""
    batch_size: int = Field(default=128, ge=1, le=65_536)
    """Windows a step; 1..65,536."""
    patch_len: int = Field(default=16, ge=1, le=1000)
    """Bars in a patch, at most `input_size`; 1..1000."""
    stride: int = Field(default=8, ge=1, le=1000)
    """Bars from one patch to the next; 1..1000."""
    hidden_size: Annotated[int, OneOf((16, 32, 64))] = Field(default=32, ge=1, le=1024)
    """Width of the encoder, a multiple of `heads`; 1..1024."""
    heads: int = Field(default=4, ge=1, le=64)
    """Of the attention; 1..64."""
    layers: int = Field(default=2, ge=1, le=16)
    """Of the encoder; 1..16."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.patch_len > self.input_size:
            raise ValueError(f"patch_len {self.patch_len} is longer than input_size {self.input_size}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        return self


NetworkParams = NHITSParams | PatchTSTParams

PARAMS: dict[ModelType, type[NHITSParams] | type[PatchTSTParams]] = {
    ModelType.NHITS: NHITSParams,
    ModelType.PATCHTST: PatchTSTParams,
}
