"""PatchTST of neuralforecast: a transformer whose attention runs over patches of the window's returns."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from clm_core.domain.costs import Costs
from clm_core.domain.search_space import Between, OneOf
from clm_core.domain.vocabulary import ModelType
from clm_core.models.contract import Model, ModelCard, Recipe
from clm_core.models.kind import EXPENSIVE_FOLDS, ModelKind
from clm_core.models.networks import forecasting
from clm_core.models.networks.forecast_params import ForecastParams

if TYPE_CHECKING:
    from neuralforecast.losses.pytorch import MQLoss
    from torch import nn


class PatchTSTParams(ForecastParams):
    """Training parameters of PatchTST."""

    model_type: ClassVar[ModelType] = ModelType.PATCHTST

    input_size: Annotated[int, Between(24, 240, log=True)] = Field(default=96, ge=4, le=1000)
    """Bars in a window; 4..1000."""
    batch_size: int = Field(default=128, ge=1, le=65_536)
    """Windows per training step; 1..65,536."""
    patch_len: int = Field(default=16, ge=1, le=1000)
    """Bars in a patch, at most `input_size`; 1..1000."""
    stride: int = Field(default=8, ge=1, le=1000)
    """Bars from the start of a patch to the start of the next; 1..1000."""
    hidden_size: Annotated[int, OneOf((16, 32, 64))] = Field(default=32, ge=1, le=1024)
    """Width of the encoder, a multiple of `heads`; 1..1024."""
    heads: int = Field(default=4, ge=1, le=64)
    """Attention heads; 1..64."""
    layers: int = Field(default=2, ge=1, le=16)
    """Layers of the encoder; 1..16."""

    @model_validator(mode="after")
    def _require_consistent_sizes(self) -> Self:
        if self.patch_len > self.input_size:
            raise ValueError(f"patch_len {self.patch_len} is longer than input_size {self.input_size}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        return self

    def build(self, loss: "MQLoss", seed: int) -> "nn.Module":
        from neuralforecast.models.patchtst import PatchTST

        network: nn.Module = PatchTST(
            h=self.horizon,
            input_size=self.input_size,
            encoder_layers=self.layers,
            n_heads=self.heads,
            hidden_size=self.hidden_size,
            linear_hidden_size=2 * self.hidden_size,
            patch_len=self.patch_len,
            stride=self.stride,
            dropout=self.dropout,
            # returns over their volatility are on a single scale already
            revin=False,
            loss=loss,
            random_seed=seed,
        )
        return network

    def output_layers(self, network: Any) -> "list[nn.Linear]":
        return [network.model.head.linear]


def _recipe(params: Mapping[str, Any], costs: Costs) -> Recipe:
    return forecasting.recipe_of(PatchTSTParams.parse(params), costs)


def _load(folder: Path, card: ModelCard) -> Model:
    return forecasting.load(folder, card, PatchTSTParams)


KIND = ModelKind(
    recipe=_recipe,
    load=_load,
    library="neuralforecast",
    extra="forecast",
    seeds=3,
    tolerance=1e-5,
    search_space=PatchTSTParams.search_space,
    depends_on=("torch",),
    max_folds=EXPENSIVE_FOLDS,
    retrain_every=timedelta(hours=336),
    sizing=forecasting.SIZING,
)
