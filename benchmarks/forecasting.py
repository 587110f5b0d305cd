"""Overhead of training a forecasting network through Lightning, against a bare torch loop; and the gain of
predicting many bars in a batch.

The loop is plain torch: the same network and quantile loss of neuralforecast, windows cut beforehand, the
same number of steps, windows and validations, and a single thread. The fit under test also computes features,
cuts the windows, reports progress and measures the outcome.
"""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.table import Row, faster, overhead, side_by_side
from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.models.catalog import recipe
from clm_core.models.networks.forecast_params import ForecastParams
from clm_core.models.networks.nhits import NHITSParams
from clm_core.models.networks.patchtst import PatchTSTParams

FORECASTERS: dict[ModelType, type[ForecastParams]] = {
    ModelType.NHITS: NHITSParams,
    ModelType.PATCHTST: PatchTSTParams,
}
BARS = 8760
PARAMS = {"steps": 200, "patience": 200}
MAX_OVERHEADS = {ModelType.NHITS: 30.0, ModelType.PATCHTST: 20.0}
"""Overhead of each kind, percent."""
PREDICTED_BARS = 1000
MIN_GAIN = 5.0
ROUNDS = 3


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        bars = MarketData(Path(folder)).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[-BARS:]
    return [
        *(_fit_against_loop(model_type, bars) for model_type in MAX_OVERHEADS),
        *(_batch_against_single_bars(model_type, bars[-PREDICTED_BARS:]) for model_type in MAX_OVERHEADS),
    ]


def _fit_against_loop(model_type: ModelType, bars: Bars) -> Row:
    fitted = recipe(model_type, PARAMS, Costs())
    ours, peers = side_by_side(lambda: fitted.fit(bars, seed=0), bare_loop(model_type, bars), ROUNDS)
    return overhead(
        f"fit of {model_type.value}, {PARAMS['steps']} steps on {BARS:,} bars",
        ours,
        f"bare loop (torch {version('torch')}, neuralforecast {version('neuralforecast')})",
        peers,
        MAX_OVERHEADS[model_type],
    )


def _batch_against_single_bars(model_type: ModelType, bars: Bars) -> Row:
    import torch

    from clm_core.models.networks.architecture import WindowTensors
    from clm_core.models.networks.forecasting import ForecastRecipe
    from clm_core.models.networks.windows import windows_of
    from clm_core.models.threads import single_threaded_torch

    params = FORECASTERS[model_type].parse({"steps": 1}).with_costs(Costs())
    model = ForecastRecipe(params).fit(bars, seed=0)
    windows = windows_of(bars, params.input_size, params.input_features)

    def single_bars() -> None:
        with single_threaded_torch(), torch.inference_mode():
            tensors = WindowTensors(windows, model.forecaster, "cpu")
            for row in torch.from_numpy(windows.rows):
                model.forecaster(tensors.batch(row[None]))

    ours, peers = side_by_side(lambda: model.positions(bars), single_bars, ROUNDS)
    return faster(
        f"positions of {model_type.value} on {PREDICTED_BARS:,} bars",
        ours,
        "the same network, a bar at a time",
        peers,
        MIN_GAIN,
    )


def bare_loop(model_type: ModelType, bars: Bars) -> Callable[[], object]:
    """Training loop over the windows of the bars; cutting the windows is not timed."""
    import torch
    from neuralforecast.losses.pytorch import MQLoss

    from clm_core.models.networks.forecasting import LEVELS, training_windows
    from clm_core.models.threads import single_threaded_torch

    params = FORECASTERS[model_type].parse(PARAMS)
    material = training_windows(bars, params)
    windows = material.windows
    length = params.input_size

    def cut(chosen: np.ndarray) -> tuple[torch.Tensor, ...]:
        at = chosen[:, None] + np.arange(1 - length, 1)
        returns = windows.returns[at] / windows.volatility[chosen][:, None]
        parts = returns[:, :, None], windows.features[at], material.targets[chosen][:, :, None]
        return tuple(torch.from_numpy(part.astype(np.float32)) for part in parts)

    fit = cut(material.fit)
    validation = cut(material.validation)

    def loop() -> None:
        loss_of = MQLoss(quantiles=LEVELS.tolist())
        network = params.build(loss_of, 0)
        optimizer = torch.optim.AdamW(
            [weight for weight in network.parameters() if weight.requires_grad], lr=params.learning_rate
        )

        def loss(sample: tuple[torch.Tensor, ...]) -> torch.Tensor:
            returns, features, targets = sample
            inputs = {
                "insample_y": returns,
                "insample_mask": torch.ones_like(returns),
                "hist_exog": features if features.shape[2] else None,
                "futr_exog": None,
                "stat_exog": None,
            }
            return loss_of(y=targets, y_hat=network(inputs)[:, :, None])

        step = 0
        while step < params.steps:
            for chosen in torch.randperm(len(fit[0])).split(params.batch_size)[:-1]:
                optimizer.zero_grad()
                loss(tuple(part[chosen] for part in fit)).backward()
                optimizer.step()
                step += 1
                if step % params.check_steps == 0:
                    network.eval()
                    with torch.no_grad():
                        float(loss(validation))
                    network.train()
                if step == params.steps:
                    break

    def on_single_thread() -> None:
        with single_threaded_torch():
            loop()

    return on_single_thread
