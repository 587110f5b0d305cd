"""How a network learns: Lightning takes the steps, what it learns from and when it ends are ours; import it
inside functions only."""

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
from clm_core.models.networks.forecast_params import NetworkParams
from clm_core.models.networks.networks import CHUNK, OUTLIER, Forecaster, Views
from clm_core.models.networks.windows import Material
from clm_core.models.threads import exclusive_gpu, single_threaded_torch

Batch = tuple[dict[str, Tensor | None], Tensor]


def train(
    forecaster: Forecaster,
    material: Material,
    params: NetworkParams,
    steps: int,
    device: str,
    seed: int,
    progress: Progress,
) -> tuple[float, ...]:
    """Fit on `material.fit` until the loss on `material.validation` stops falling; keeps the best weights.

    Args:
        steps: most of them, whatever the parameters say.
        device: "cpu" or "cuda"; the forecaster is back on the processor afterwards.

    Returns:
        The validation loss after each `check_steps` steps.

    Raises:
        ModelError: the loss is no number any more.
        KeyboardInterrupt: as it came; Lightning would end the process.
    """
    with exclusive_gpu(device), single_threaded_torch():
        forecaster.to(device)
        lesson = WindowSet(forecaster, material, params, device, seed)
        watch = _Watch(lesson, params, steps, progress)
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
            callbacks=[watch],
            # whatever variables of SLURM or torchrun there are: one process trains alone
            plugins=[LightningEnvironment()],
        )
        _run(trainer, lesson, watch, seed)
        forecaster.load_state_dict(watch.best)
        forecaster.to("cpu").eval().requires_grad_(False)
    return tuple(watch.losses)


class WindowSet(pl.LightningModule):
    """What Lightning is given to train: forecaster and windows, on one device."""

    def __init__(
        self, forecaster: Forecaster, material: Material, params: NetworkParams, device: str, seed: int
    ) -> None:
        super().__init__()
        self.forecaster = forecaster
        self._loss = forecaster.loss
        self._params = params
        self._views = Views(material.windows, forecaster, device)
        futures = np.clip(np.nan_to_num(material.futures), -OUTLIER, OUTLIER).astype(np.float32)
        self._futures = torch.from_numpy(futures).to(device)[:, :, None]
        self._fit, self._validation = (
            torch.from_numpy(rows).to(device) for rows in (material.fit, material.validation)
        )
        self._order = torch.Generator().manual_seed(seed)

    def batches(self) -> Iterator[Batch]:
        """Without end: each window once before any comes again."""
        size = min(self._params.batch_size, len(self._fit))
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
            learnt, lr=self._params.learning_rate, weight_decay=self._params.weight_decay
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

    def __init__(self, lesson: WindowSet, params: NetworkParams, steps: int, progress: Progress) -> None:
        self._lesson, self._params, self._steps, self._progress = lesson, params, steps, progress
        self.losses: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.interrupted = False
        self.begun = ExitStack()
        """Closed when the first step is about to be taken."""

    def on_train_start(self, *_: Any) -> None:
        self.begun.close()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        self._progress(step / self._steps)
        if step % self._params.check_steps == 0 or step == self._steps:
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
        trainer.should_stop = since_best >= self._params.patience


def _run(trainer: pl.Trainer, lesson: WindowSet, watch: _Watch, seed: int) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        # Lightning begins by putting the process's generators back to where it found them a moment ago, of
        # which a network that is being made beside it would get its weights
        with watch.begun:
            watch.begun.enter_context(exclusive_torch(seed))
            trainer.fit(lesson, train_dataloaders=lesson.batches())
    except SystemExit:
        # Lightning makes an exit of Ctrl+C, and has the next one ignored
        if watch.interrupted:
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise
