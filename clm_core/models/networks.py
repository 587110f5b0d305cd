"""NHITS and PatchTST of neuralforecast, trained by Lightning on our windows; import it inside functions only.

neuralforecast gives the architectures and the quantile loss. Its own fit seeds the generators of the whole
process and cuts every window anew at each step, so the windows, their order and the dropout are ours: fits
can run side by side, and a fit depends on its seed alone.
"""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from neuralforecast.losses.pytorch import MQLoss
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from clm_core.domain.errors import BundleCorrupt, ModelError
from clm_core.market.bars import Floats
from clm_core.models.contract import Progress
from clm_core.models.threads import one_thread
from clm_core.models.torch_alone import torch_alone
from clm_core.models.windows import Windows

CHUNK = 256
"""Windows answered at once; always as many, so that no answer depends on how many others are wanted."""
OUTLIER = 10.0
"""Standard deviations at which inputs are cut off."""

Build = Callable[[MQLoss], nn.Module]
Batch = tuple[dict[str, Tensor | None], Tensor]
Rows = NDArray[np.int64]

for _talkative in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)
# Lightning calls a function of torch by its old name
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")


@dataclass(frozen=True)
class Training:
    """How a network is trained."""

    steps: int
    check_steps: int
    """Steps between two looks at the validation loss."""
    patience: int
    """Looks without a better one after which training ends."""
    batch_size: int
    """Windows a step."""
    learning_rate: float
    weight_decay: float
    device: str
    """"cpu" or "cuda"."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a network learns from."""

    windows: Windows
    futures: Floats
    """Standardised returns that followed, shape (n_bars, horizon)."""
    fit: Rows
    validation: Rows


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own: nn.Dropout shares the process's."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share, self._seed = share, seed
        self._generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.share == 0.0:
            return values
        if self._generator is None or self._generator.device != values.device:
            self._generator = torch.Generator(values.device).manual_seed(self._seed)
        kept = torch.empty_like(values).bernoulli_(1.0 - self.share, generator=self._generator)
        return values * kept.div_(1.0 - self.share)


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


def build(make: Build, levels: Floats, horizon: int, features: int, seed: int) -> Forecaster:
    """An untrained forecaster; leaves every generator of the process as it was."""
    # neuralforecast seeds Python's, NumPy's and torch's generators
    with one_thread(), torch_alone(seed):
        network = make(MQLoss(quantiles=levels.tolist()))
    _own_dropout(network, seed)
    _begin_silent(network)
    return Forecaster(network, horizon, len(levels), features)


def train(
    forecaster: Forecaster, material: Material, training: Training, seed: int, progress: Progress
) -> tuple[float, ...]:
    """Fit on `material.fit` until the loss on `material.validation` stops falling; keeps the best weights.

    Returns:
        The validation loss after each `check_steps` steps.

    Raises:
        ModelError: the loss is no number any more.
        KeyboardInterrupt: as it came; Lightning would end the process.
    """
    with one_thread():
        forecaster.to(training.device)
        lesson = _Lesson(forecaster, material, training, seed)
        watch = _Watch(lesson, training, progress)
        trainer = pl.Trainer(
            accelerator="gpu" if training.device == "cuda" else "cpu",
            devices=1,
            max_steps=training.steps,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[watch],
            # whatever variables of SLURM or torchrun there are: one process trains alone
            plugins=[LightningEnvironment()],
        )
        _run(trainer, lesson, watch)
        forecaster.load_state_dict(watch.best)
        forecaster.to("cpu").eval().requires_grad_(False)
    return tuple(watch.losses)


def quantiles(forecaster: Forecaster, windows: Windows) -> Floats:
    """The forecast over the whole horizon for each of `windows.rows`, ascending, shape (n_rows, n_levels)."""
    count = len(windows.rows)
    if not count:
        return np.empty((0, forecaster.base.shape[1]))
    padded = np.pad(windows.rows, (0, -count % CHUNK), mode="edge")
    with one_thread(), torch.inference_mode():
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


class _Lesson(pl.LightningModule):
    def __init__(self, forecaster: Forecaster, material: Material, training: Training, seed: int) -> None:
        super().__init__()
        self.forecaster = forecaster
        self._loss = MQLoss(quantiles=_levels(forecaster)).to(training.device)
        self._training = training
        self._views = Views(material.windows, forecaster, training.device)
        futures = np.clip(np.nan_to_num(material.futures), -OUTLIER, OUTLIER).astype(np.float32)
        self._futures = torch.from_numpy(futures).to(training.device)[:, :, None]
        self._fit, self._validation = (
            torch.from_numpy(rows).to(training.device) for rows in (material.fit, material.validation)
        )
        self._order = torch.Generator().manual_seed(seed)

    def batches(self) -> Iterator[Batch]:
        """Without end: each window once before any comes again."""
        size = min(self._training.batch_size, len(self._fit))
        while True:
            order = torch.randperm(len(self._fit), generator=self._order).to(self._fit.device)
            for chosen in torch.split(order, size):
                if len(chosen) == size:
                    yield self._batch(self._fit[chosen])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._loss_of(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learnt = [weight for weight in self.forecaster.parameters() if weight.requires_grad]
        return torch.optim.AdamW(
            learnt, lr=self._training.learning_rate, weight_decay=self._training.weight_decay
        )

    def validation_loss(self) -> float:
        self.forecaster.eval()
        with torch.no_grad():
            losses = [
                self._loss_of(self._batch(rows)) * len(rows)
                for rows in torch.split(self._validation, 4 * CHUNK)
            ]
        self.forecaster.train()
        return float(torch.stack(losses).sum()) / len(self._validation)

    def _batch(self, rows: Tensor) -> Batch:
        return self._views.at(rows), self._futures[rows]

    def _loss_of(self, batch: Batch) -> Tensor:
        inputs, futures = batch
        # neuralforecast sums over the levels
        loss: Tensor = self._loss(y=futures, y_hat=self.forecaster(inputs)[:, :, None])
        return loss / self.forecaster.base.shape[1]


class _Watch(pl.Callback):
    """Progress, early stopping, and what became of an interruption."""

    def __init__(self, lesson: _Lesson, training: Training, progress: Progress) -> None:
        self._lesson, self._training, self._progress = lesson, training, progress
        self.losses: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.interrupted = False

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        self._progress(step / self._training.steps)
        if step % self._training.check_steps == 0 or step == self._training.steps:
            self._look(trainer)

    def on_exception(self, trainer: pl.Trainer, _: pl.LightningModule, error: BaseException) -> None:
        self.interrupted = isinstance(error, KeyboardInterrupt)

    def _look(self, trainer: pl.Trainer) -> None:
        loss = self._lesson.validation_loss()
        if not np.isfinite(loss):
            raise ModelError("the training diverged, its loss is no number any more: lower learning_rate")
        self.losses.append(loss)
        if loss <= min(self.losses):
            state = self._lesson.forecaster.state_dict()
            self.best = {name: value.clone() for name, value in state.items()}
        since_best = len(self.losses) - 1 - int(np.argmin(self.losses))
        trainer.should_stop = since_best >= self._training.patience


def _run(trainer: pl.Trainer, lesson: _Lesson, watch: _Watch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(lesson, train_dataloaders=lesson.batches())
    except SystemExit:
        # Lightning makes an exit of Ctrl+C, and has the next one ignored
        if watch.interrupted:
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


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


def _levels(forecaster: Forecaster) -> list[float]:
    network: Any = forecaster.network
    levels: list[float] = network.loss.quantiles.tolist()
    return levels
