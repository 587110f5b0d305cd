"""Training loop of the forecasting networks: PyTorch Lightning with early stopping.

The module imports torch and Lightning; import the module inside functions only.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from clm_core.domain.errors import ModelError
from clm_core.models.contract import Progress
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.networks.architecture import CHUNK, OUTLIER, Forecaster, WindowTensors
from clm_core.models.networks.forecast_params import ForecastParams
from clm_core.models.networks.windows import TrainingWindows
from clm_core.models.threads import exclusive_gpu, single_threaded_torch

Batch = tuple[dict[str, Tensor | None], Tensor]
"""Inputs of the network and the targets, shape (n_windows, horizon, 1)."""


def train(
    forecaster: Forecaster,
    material: TrainingWindows,
    params: ForecastParams,
    steps: int,
    device: str,
    seed: int,
    progress: Progress,
) -> tuple[float, ...]:
    """Train on `material.fit` with early stopping on `material.validation`; the best weights are kept.

    Args:
        steps: maximum number of steps; replaces the number in the parameters.
        device: "cpu" or "cuda"; the forecaster is back on the CPU afterwards.

    Returns:
        The validation loss after each `check_steps` steps.

    Raises:
        ModelError: the loss is no longer finite.
        KeyboardInterrupt: passed on unchanged, where Lightning would exit the process.
    """
    with exclusive_gpu(device), single_threaded_torch():
        forecaster.to(device)
        window_set = WindowSet(forecaster, material, params, device, seed)
        monitor = _Monitor(window_set, params, steps, progress)
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[monitor],
            # a single process, whatever variables SLURM or torchrun have set
            plugins=[LightningEnvironment()],
        )
        _run(trainer, window_set, monitor, seed)
        forecaster.load_state_dict(monitor.best)
        forecaster.to("cpu").eval().requires_grad_(False)
    return tuple(monitor.losses)


class WindowSet(pl.LightningModule):
    """Lightning module of a fit: a forecaster and the windows, on a single device."""

    def __init__(
        self,
        forecaster: Forecaster,
        material: TrainingWindows,
        params: ForecastParams,
        device: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.forecaster = forecaster
        self._loss = forecaster.loss
        self._params = params
        self._inputs = WindowTensors(material.windows, forecaster, device)
        targets = np.clip(np.nan_to_num(material.targets), -OUTLIER, OUTLIER).astype(np.float32)
        self._targets = torch.from_numpy(targets).to(device)[:, :, None]
        self._fit = torch.from_numpy(material.fit).to(device)
        self._validation = torch.from_numpy(material.validation).to(device)
        self._order = torch.Generator().manual_seed(seed)

    def batches(self) -> Iterator[Batch]:
        """Endless batches; no window repeats before the next shuffle of all windows."""
        size = min(self._params.batch_size, len(self._fit))
        while True:
            order = torch.randperm(len(self._fit), generator=self._order).to(self._fit.device)
            for chosen in torch.split(order, size):
                if len(chosen) == size:
                    yield self._batch(self._fit[chosen])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._loss_of(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trainable = [weight for weight in self.forecaster.parameters() if weight.requires_grad]
        return torch.optim.AdamW(
            trainable, lr=self._params.learning_rate, weight_decay=self._params.weight_decay
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
        return self._inputs.batch(rows), self._targets[rows]

    def _loss_of(self, batch: Batch) -> Tensor:
        inputs, targets = batch
        # neuralforecast sums over the levels
        loss: Tensor = self._loss(y=targets, y_hat=self.forecaster(inputs)[:, :, None])
        return loss / self.forecaster.base.shape[1]


class _Monitor(pl.Callback):
    """Lightning callback for progress, early stopping and interruptions."""

    def __init__(self, window_set: WindowSet, params: ForecastParams, steps: int, progress: Progress) -> None:
        self._window_set = window_set
        self._params = params
        self._steps = steps
        self._progress = progress
        self.losses: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.interrupted = False
        self.until_first_step = ExitStack()
        """Contexts to leave right before the first training step."""

    def on_train_start(self, *_: Any) -> None:
        self.until_first_step.close()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        self._progress(step / self._steps)
        if step % self._params.check_steps == 0 or step == self._steps:
            self._validate(trainer)

    def on_exception(self, trainer: pl.Trainer, _: pl.LightningModule, error: BaseException) -> None:
        self.interrupted = isinstance(error, KeyboardInterrupt)

    def _validate(self, trainer: pl.Trainer) -> None:
        loss = self._window_set.validation_loss()
        if not np.isfinite(loss):
            raise ModelError("the training diverged, its loss is no longer finite: lower learning_rate")
        self.losses.append(loss)
        if loss <= min(self.losses):
            state = self._window_set.forecaster.state_dict()
            self.best = {name: value.clone() for name, value in state.items()}
        since_best = len(self.losses) - 1 - int(np.argmin(self.losses))
        trainer.should_stop = since_best >= self._params.patience


def _run(trainer: pl.Trainer, window_set: WindowSet, monitor: _Monitor, seed: int) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        # Lightning starts by restoring an earlier state of the process's random generators; without the lock
        # a network built in another thread meanwhile would draw its weights from that state
        with monitor.until_first_step:
            monitor.until_first_step.enter_context(exclusive_torch(seed))
            trainer.fit(window_set, train_dataloaders=window_set.batches())
    except SystemExit:
        # Lightning turns Ctrl+C into an exit, and has the next Ctrl+C ignored
        if monitor.interrupted:
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise
