"""NHITS of neuralforecast: three blocks that forecast from returns pooled coarsely to finely."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from clm_core.domain.costs import Costs
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.models.contract import Model, ModelCard, Recipe
from clm_core.models.kind import EXPENSIVE_FOLDS, ModelKind
from clm_core.models.networks import forecasting
from clm_core.models.networks.forecast_params import ForecastParams
from clm_core.models.params import FeatureNames

if TYPE_CHECKING:
    from neuralforecast.losses.pytorch import MQLoss
    from torch import nn

DEFAULT_FEATURES = ("mean_gap_96", "volatility_ratio_12_96", "volume_z_24", "hour_sin", "hour_cos")
"""Features used by default. Every feature is another input per bar of the window: many features drown the
signal in the returns."""


class NHITSParams(ForecastParams):
    """Training parameters of NHITS."""

    model_type: ClassVar[ModelType] = ModelType.NHITS
    continues_last_value: ClassVar[bool] = True

    dropout: Annotated[float, Between(0.0, 0.6)] = Field(default=0.3, ge=0, lt=1)
    """Fraction of activations left out at random in each step; 0..1."""
    hidden_size: Annotated[int, Between(8, 256, log=True)] = Field(default=64, ge=1, le=4096)
    """Units in each of the two layers of each of the three blocks; 1..4096."""
    features: FeatureNames = DEFAULT_FEATURES
    """Names of the features used besides returns (as text: separated by commas); may be empty."""

    @property
    def input_features(self) -> tuple[str, ...]:
        return self.features

    def build(self, loss: "MQLoss", seed: int) -> "nn.Module":
        from neuralforecast.models.nhits import NHITS

        network: nn.Module = NHITS(
            h=self.horizon,
            input_size=self.input_size,
            hist_exog_list=list(self.features),
            mlp_units=3 * [[self.hidden_size, self.hidden_size]],
            # from coarse to fine: returns over 8, over 4 and over single bars
            n_pool_kernel_size=[8, 4, 1],
            n_freq_downsample=[12, 4, 1],
            # the mean of returns tells how far the price went, the maximum does not
            pooling_mode="AvgPool1d",
            dropout_prob_theta=self.dropout,
            loss=loss,
            random_seed=seed,
        )
        return network

    def output_layers(self, network: Any) -> "list[nn.Linear]":
        return [block.layers[-1] for block in network.blocks]


def _recipe(params: Mapping[str, Any], costs: Costs) -> Recipe:
    return forecasting.recipe_of(NHITSParams.parse(params), costs)


def _load(folder: Path, card: ModelCard) -> Model:
    return forecasting.load(folder, card, NHITSParams)


KIND = ModelKind(
    recipe=_recipe,
    load=_load,
    library="neuralforecast",
    extra="forecast",
    seeds=3,
    tolerance=1e-5,
    search_space=NHITSParams.search_space,
    depends_on=("torch",),
    max_folds=EXPENSIVE_FOLDS,
    retrain_every=timedelta(hours=336),
    sizing=forecasting.SIZING,
)
