"""NHITS and PatchTST of neuralforecast, as torch modules; import it inside functions only.

neuralforecast gives the architectures. Its own fit and predict seed the generators of the whole process and
cut every window anew at each step, so the windows, their order and the dropout are ours: fits can run side
by side, and a fit depends on its seed alone.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models.nhits import NHITS
from neuralforecast.models.patchtst import PatchTST
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from clm_core.domain.errors import BundleCorrupt
from clm_core.market.bars import Floats
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.networks.forecast_params import NetworkParams, NHITSParams, PatchTSTParams
from clm_core.models.networks.windows import Windows
from clm_core.models.threads import single_threaded_torch

CHUNK = 256
"""Windows answered at once; always as many, so that no answer depends on how many others are wanted."""
OUTLIER = 10.0
"""Standard deviations at which inputs are cut off."""

for _talkative in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)
# Lightning calls a function of torch by its old name
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own, a byte a value: nn.Dropout shares the process's.

    The share left out is a multiple of 1/256.
    """

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self._left_out, self._seed = round(share * 256), seed
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

    What the network answers is added to the quantiles of all the fitted returns and their mirror images:
    before it has learnt anything it forecasts those, and no direction.
    """

    base: Tensor
    """Shape (horizon, n_levels)."""
    centre: Tensor
    """Mean of each feature, shape (n_features,)."""
    scale: Tensor
    """Standard deviation of each feature, shape (n_features,)."""
    trust: Tensor
    """Share of what the network says beyond the base that `quantiles` keeps, 0..1, shape ()."""

    def __init__(self, network: nn.Module, horizon: int, levels: int, features: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("base", torch.zeros(horizon, levels))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("trust", torch.ones(()))
        # NHITS continues the last value seen: right for prices, nothing to go by for returns
        self._continues = hasattr(network, "blocks")

    @property
    def loss(self) -> MQLoss:
        """Of quantiles, summed over the levels."""
        return self.network.loss

    def forward(self, inputs: Mapping[str, Tensor | None]) -> Tensor:
        answer: Tensor = self.network(inputs) + self.base
        shown = inputs["insample_y"]
        assert shown is not None
        return answer - shown[:, -1:] if self._continues else answer


class Views:
    """Windows of a series, cut out when they are asked for: side by side they would fill the memory."""

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
        self._seen = torch.ones(1, windows.length, 1, device=device)

    def at(self, rows: Tensor) -> dict[str, Tensor | None]:
        first = rows - (self._length - 1)
        returns = (self._returns[first] / self._volatility[rows]).clamp(-OUTLIER, OUTLIER)
        return {
            "insample_y": returns[:, :, None],
            "insample_mask": self._seen.expand(len(rows), -1, -1),
            "hist_exog": None if self._features is None else self._features[first].transpose(1, 2),
            "futr_exog": None,
            "stat_exog": None,
        }


def untrained(params: NetworkParams, levels: Floats, seed: int) -> Forecaster:
    """A forecaster that has learnt nothing; leaves every generator of the process as it was."""
    # neuralforecast holds its seeds in 32 bits
    native_seed = seed % 2**31
    with exclusive_torch(native_seed):
        network = network_of(params, MQLoss(quantiles=levels.tolist()), native_seed)
    _own_dropout(network, native_seed)
    _begin_silent(network)
    return Forecaster(network, params.horizon, len(levels), len(params.shown))


def network_of(params: NetworkParams, loss: MQLoss, seed: int) -> NHITS | PatchTST:
    """As neuralforecast makes it, which seeds the generators of the whole process."""
    return _nhits(params, loss, seed) if isinstance(params, NHITSParams) else _patchtst(params, loss, seed)


def _nhits(params: NHITSParams, loss: MQLoss, seed: int) -> NHITS:
    return NHITS(
        h=params.horizon,
        input_size=params.input_size,
        hist_exog_list=list(params.features),
        mlp_units=3 * [[params.hidden_size, params.hidden_size]],
        # from the coarse to the fine: returns of 8, of 4 and of single bars
        n_pool_kernel_size=[8, 4, 1],
        n_freq_downsample=[12, 4, 1],
        # of returns a mean says how far the price went, a maximum does not
        pooling_mode="AvgPool1d",
        dropout_prob_theta=params.dropout,
        loss=loss,
        random_seed=seed,
    )


def _patchtst(params: PatchTSTParams, loss: MQLoss, seed: int) -> PatchTST:
    return PatchTST(
        h=params.horizon,
        input_size=params.input_size,
        encoder_layers=params.layers,
        n_heads=params.heads,
        hidden_size=params.hidden_size,
        linear_hidden_size=2 * params.hidden_size,
        patch_len=params.patch_len,
        stride=params.stride,
        dropout=params.dropout,
        # returns over their volatility are of one scale already
        revin=False,
        loss=loss,
        random_seed=seed,
    )


def quantiles(forecaster: Forecaster, windows: Windows) -> Floats:
    """The forecast over the whole horizon for each of `windows.rows`, ascending, shape (n_rows, n_levels)."""
    count = len(windows.rows)
    if not count:
        return np.empty((0, forecaster.base.shape[1]))
    padded = np.pad(windows.rows, (0, -count % CHUNK), mode="edge")
    with single_threaded_torch(), torch.inference_mode():
        views = Views(windows, forecaster, "cpu")
        answers = [forecaster(views.at(rows))[:, -1] for rows in torch.split(torch.from_numpy(padded), CHUNK)]
        # quantiles may cross while each is learnt for itself: in order they are no worse (Chernozhukov 2010)
        said = torch.cat(answers)[:count].sort(dim=1).values
        answer = forecaster.base[-1] + forecaster.trust * (said - forecaster.base[-1])
    return answer.double().numpy()


def save(forecaster: Forecaster, path: Path) -> None:
    # copies: the loss stands in it twice, and safetensors takes no tensors that share memory
    save_file({name: value.numpy().copy() for name, value in forecaster.state_dict().items()}, path)


def restore(forecaster: Forecaster, path: Path) -> None:
    """
    Raises:
        BundleCorrupt: the tensors cannot be read, are of another network, or not all finite.
    """
    try:
        tensors = {name: torch.from_numpy(value) for name, value in load_file(path).items()}
        forecaster.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise BundleCorrupt(
            f"{path.name} does not hold the weights its model.json asks for: train the model again ({error})"
        ) from error
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise BundleCorrupt(f"{path.name} holds weights that are no numbers: train the model again")
    forecaster.eval().requires_grad_(False)


def _own_dropout(network: nn.Module, seed: int) -> None:
    for number, (name, module) in enumerate(list(network.named_modules())):
        if isinstance(module, nn.Dropout):
            network.set_submodule(name, Dropout(module.p, seed + number))


def _begin_silent(network: Any) -> None:
    """The last layers begin at zero: whatever is forecast has been learnt."""
    blocks = getattr(network, "blocks", None)
    last = [block.layers[-1] for block in blocks] if blocks is not None else [network.model.head.linear]
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
