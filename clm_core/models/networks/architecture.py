"""Forecasting networks as torch modules: construction, prediction and storage.

The module imports torch and neuralforecast; import the module inside functions only.

neuralforecast provides the architectures, not the training: `fit` and `predict` of neuralforecast seed the
random generators of the whole process and cut all windows anew at each step. Windows, batch order and
dropout of the project's own let fits run side by side, and let a fit depend on nothing but its seed.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from neuralforecast.losses.pytorch import MQLoss
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from clm_core.domain.errors import BundleCorrupt
from clm_core.market.bars import Floats
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.networks.forecast_params import ForecastParams
from clm_core.models.networks.windows import Windows
from clm_core.models.threads import single_threaded_torch

CHUNK = 256
"""Windows per forward pass of a prediction. A fixed number keeps each forecast independent of the number of
forecasts requested."""
OUTLIER = 10.0
"""Standard deviations at which inputs and targets are clipped."""

for _logger in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_logger).setLevel(logging.WARNING)
# Lightning calls a torch function by a deprecated name
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")


class Dropout(nn.Module):
    """Dropout with a random generator for itself, a byte per value; nn.Dropout uses the process's generator.

    The fraction left out is rounded to a multiple of 1/256.
    """

    def __init__(self, fraction: float, seed: int) -> None:
        super().__init__()
        self._left_out = round(fraction * 256)
        self._seed = seed
        self._generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self._left_out == 0:
            return values
        kept = self._bytes(values.numel(), values.device) >= self._left_out
        return values * kept.view(values.shape).to(values.dtype).mul_(256 / (256 - self._left_out))

    def _bytes(self, count: int, device: torch.device) -> Tensor:
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        words = torch.empty(-(-count // 8), dtype=torch.int64, device=device)
        return words.random_(-(2**63), None, generator=self._generator).view(torch.uint8)[:count]


class Forecaster(nn.Module):
    """Quantiles of the standardised returns over 1..horizon bars, shape (n_windows, horizon, n_levels).

    The network's output is added to the quantiles of all the fitted returns and their mirror images: an
    untrained forecaster forecasts the base quantiles, with no direction.
    """

    base: Tensor
    """Quantiles of the fitted returns and their mirror images, shape (horizon, n_levels)."""
    centre: Tensor
    """Mean of each feature, shape (n_features,)."""
    scale: Tensor
    """Standard deviation of each feature, shape (n_features,)."""
    trust: Tensor
    """Share of the network's output beyond the base kept by `quantiles`, 0..1, shape ()."""

    def __init__(self, network: nn.Module, params: ForecastParams, n_levels: int) -> None:
        super().__init__()
        n_features = len(params.input_features)
        self.network = network
        self.register_buffer("base", torch.zeros(params.horizon, n_levels))
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("trust", torch.ones(()))
        self._continues_last_value = params.continues_last_value

    @property
    def loss(self) -> MQLoss:
        """Quantile loss, summed over the levels."""
        return self.network.loss

    def forward(self, inputs: Mapping[str, Tensor | None]) -> Tensor:
        forecast: Tensor = self.network(inputs) + self.base
        returns = inputs["insample_y"]
        assert returns is not None
        # continuing the last value suits prices; the last return says nothing about later returns
        return forecast - returns[:, -1:] if self._continues_last_value else forecast


class WindowTensors:
    """Windows of a series as tensors, cut per batch: all windows at the same time would fill the memory."""

    def __init__(self, windows: Windows, forecaster: Forecaster, device: str) -> None:
        def tensor(values: Floats) -> Tensor:
            return torch.from_numpy(np.nan_to_num(values).astype(np.float32)).to(device)

        features = (tensor(windows.features) - forecaster.centre) / forecaster.scale
        self._length = windows.length
        self._volatility = tensor(windows.volatility)[:, None]
        self._returns = tensor(windows.returns).unfold(0, windows.length, 1)
        self._features = (
            features.clamp(-OUTLIER, OUTLIER).unfold(0, windows.length, 1) if len(features.T) else None
        )
        self._mask = torch.ones(1, windows.length, 1, device=device)

    def batch(self, rows: Tensor) -> dict[str, Tensor | None]:
        """Inputs of the network for the windows of these rows."""
        first = rows - (self._length - 1)
        returns = (self._returns[first] / self._volatility[rows]).clamp(-OUTLIER, OUTLIER)
        return {
            "insample_y": returns[:, :, None],
            "insample_mask": self._mask.expand(len(rows), -1, -1),
            "hist_exog": None if self._features is None else self._features[first].transpose(1, 2),
            "futr_exog": None,
            "stat_exog": None,
        }


def untrained(params: ForecastParams, levels: Floats, seed: int) -> Forecaster:
    """Untrained forecaster; the random generators of the process stay as they were."""
    # neuralforecast holds seeds in 32 bits
    native_seed = seed % 2**31
    with exclusive_torch(native_seed):
        network = params.build(MQLoss(quantiles=levels.tolist()), native_seed)
    _replace_dropout(network, native_seed)
    # output layers at zero: any forecast has been learnt
    for layer in params.output_layers(network):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return Forecaster(network, params, len(levels))


def quantiles(forecaster: Forecaster, windows: Windows) -> Floats:
    """Forecast over the whole horizon for each of `windows.rows`, ascending, shape (n_rows, n_levels)."""
    count = len(windows.rows)
    if not count:
        return np.empty((0, forecaster.base.shape[1]))
    padded = np.pad(windows.rows, (0, -count % CHUNK), mode="edge")
    with single_threaded_torch(), torch.inference_mode():
        tensors = WindowTensors(windows, forecaster, "cpu")
        outputs = [
            forecaster(tensors.batch(rows))[:, -1] for rows in torch.split(torch.from_numpy(padded), CHUNK)
        ]
        # independently learnt quantiles may cross; sorting never makes them worse (Chernozhukov 2010)
        ordered = torch.cat(outputs)[:count].sort(dim=1).values
        shrunk = forecaster.base[-1] + forecaster.trust * (ordered - forecaster.base[-1])
    return shrunk.double().numpy()


def save(forecaster: Forecaster, path: Path) -> None:
    # copies: the loss is in the state twice, and safetensors refuses tensors that share memory
    save_file({name: value.numpy().copy() for name, value in forecaster.state_dict().items()}, path)


def restore(forecaster: Forecaster, path: Path) -> None:
    """Load the weights of a saved forecaster.

    Raises:
        BundleCorrupt: the tensors cannot be read, belong to another network, or are not all finite.
    """
    try:
        tensors = {name: torch.from_numpy(value) for name, value in load_file(path).items()}
        forecaster.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise BundleCorrupt(
            f"{path.name} does not hold the weights described by model.json: train the model again ({error})"
        ) from error
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise BundleCorrupt(f"{path.name} holds weights that are not finite: train the model again")
    forecaster.eval().requires_grad_(False)


def _replace_dropout(network: nn.Module, seed: int) -> None:
    for number, (name, module) in enumerate(list(network.named_modules())):
        if isinstance(module, nn.Dropout):
            network.set_submodule(name, Dropout(module.p, seed + number))
