"""Recipe and model shared by the forecasting networks of neuralforecast.

Input: at the close of bar t, the last `input_size` one-bar log returns, each over the volatility v of the
trailing 96 bars, and the features of the kind, if any (NHITS has features).

Output: quantiles of the log return from the next open to the open k bars later, k = 1..`horizon`, each over
v * sqrt(k). All of them are learnt together by quantile loss.

Shrinkage: the difference between a forecast and the quantiles of all the fitted returns is multiplied by the
share, 0..1, with the least loss on the validation windows. The share is 0 for a network that has only learnt
noise (`shrink`).

Positions follow from the distribution over the whole horizon, in units of u = v * sqrt(horizon):

- forecast: the probability of a rise, read off the quantiles with linear interpolation; never beyond the
  outermost level.
- edge: the mean of the distribution beyond the cost of a round trip, max(|mean| - cost / u, 0), with the
  sign of the mean; in other words the expected return over cost, scaled by volatility.
- signal: edge / `full_edge`, clipped to -1..1; 0 in rows without a full window; negative values become 0
  with `long_only`. The signal is continuous: a small change of the forecast is a small change of the signal.
- position: the mean of the last `horizon` signals of the unbroken stretch, where signals before the start of
  the stretch count as 0. Each signal is thereby held for the horizon of its forecast.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import memory_of, select_features
from clm_core.market.signals import accuracy
from clm_core.market.splits import bars_for_tail, purged_tail
from clm_core.models.contract import Change, Model, ModelCard, Progress, TrainedOn
from clm_core.models.exclusive_torch import torch_device
from clm_core.models.networks.forecast_params import ForecastParams
from clm_core.models.networks.windows import (
    RETURN,
    VOLATILITY,
    TrainingWindows,
    Windows,
    targets_of,
    windows_of,
)
from clm_core.models.params import require_features
from clm_core.models.skill import skill_metrics

if TYPE_CHECKING:
    from clm_core.models.networks.architecture import Forecaster

FILE = "weights.safetensors"
MIN_ROWS = 200
"""Minimum number of windows to train on; a quarter of the number is needed for validation."""
LEVELS: Floats = (np.arange(9) + 0.5) / 9
"""Levels of the quantiles: the middles of nine equal parts, for quantiles whose mean is the mean of the
distribution."""
SIZING = Sizing(smoothing_half_life=24.0, scale_half_life=40.0, min_scale=0.001)
"""Signals are forecasts beyond their cost, held for their horizon: smooth, and faint without being unsure."""
KEPT_SHARES: Floats = np.linspace(0, 1, 21)
"""Shares of a forecast compared on the validation windows."""


@dataclass(frozen=True, eq=False)
class ForecastModel:
    """Fitted forecasting network; the module's docstring defines the positions."""

    params: ForecastParams
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    forecaster: "Forecaster"
    learning_curve: tuple[float, ...] = ()
    change: Change | None = None
    """Change of the windows (`Windows.changed`); None for the windows themselves."""

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def bars_needed(self) -> int:
        # the oldest of the signals held has a whole window, the first bar of which has every feature
        memory = memory_of((RETURN, VOLATILITY, *self.params.input_features))
        return memory + self.params.input_size - 1 + self.params.horizon

    def positions(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        windows, quantiles = self._quantiles(bars)
        signals = np.zeros(len(bars))
        unit = windows.volatility[windows.rows] * math.sqrt(self.params.horizon)
        signals[windows.rows] = self._signals(quantiles.mean(axis=1), unit)
        return trailing_mean(signals, bars, self.params.horizon, windows)

    def forecast(self, bars: Bars) -> Floats:
        windows, quantiles = self._quantiles(self.trained_on.accept(bars))
        probability = np.full(len(bars), np.nan)
        probability[windows.rows] = probability_of_rise(quantiles)
        return probability

    def expected_return(self, bars: Bars) -> Floats:
        """Mean of the distribution over the horizon as a simple return, NaN in rows without a full window."""
        windows, quantiles = self._quantiles(self.trained_on.accept(bars))
        unit = windows.volatility[windows.rows] * math.sqrt(self.params.horizon)
        expected = np.full(len(bars), np.nan)
        expected[windows.rows] = np.expm1(quantiles.mean(axis=1) * unit)
        return expected

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        return tuple(LEVELS.tolist())

    def quantiles(self, bars: Bars) -> Floats:
        """Quantiles of the simple return over the horizon, NaN in rows without a full window."""
        windows, scaled = self._quantiles(self.trained_on.accept(bars))
        unit = windows.volatility[windows.rows] * math.sqrt(self.params.horizon)
        quantiles = np.full((len(bars), len(LEVELS)), np.nan)
        quantiles[windows.rows] = np.expm1(scaled * unit[:, None])
        return quantiles

    def importances(self) -> dict[str, float]:
        return {}

    @property
    def inputs(self) -> tuple[str, ...]:
        return (RETURN, *self.params.input_features)

    def with_changed_inputs(self, change: Change) -> "ForecastModel":
        return replace(self, change=change)

    def save(self, folder: Path) -> None:
        from clm_core.models.networks import architecture

        architecture.save(self.forecaster, folder / FILE)

    def _quantiles(self, bars: Bars) -> tuple[Windows, Floats]:
        """Windows of the bars, and the quantiles over the whole horizon for each window."""
        from clm_core.models.networks import architecture

        windows = windows_of(bars, self.params.input_size, self.params.input_features).changed(self.change)
        return windows, architecture.quantiles(self.forecaster, windows)

    def _signals(self, mean: Floats, unit: Floats) -> Floats:
        assert self.params.round_trip_bps is not None
        cost = self.params.round_trip_bps / 1e4 / unit
        edge = np.sign(mean) * np.maximum(np.abs(mean) - cost, 0.0)
        lowest = 0.0 if self.params.long_only else -1.0
        return np.asarray(np.clip(edge / self.params.full_edge, lowest, 1.0))


def trailing_mean(signals: Floats, bars: Bars, horizon: int, windows: Windows) -> Floats:
    """Mean of the last `horizon` signals within each unbroken stretch, 0.0 in rows without a window.

    Each mean is summed separately, without a running total: no mean depends on earlier signals.
    """
    positions = np.zeros(len(signals))
    for rows in bars.stretches():
        padded = np.concatenate([np.zeros(horizon - 1), signals[rows]])
        positions[rows] = sliding_window_view(padded, horizon).mean(axis=1)
    has_window = np.zeros(len(signals), dtype=bool)
    has_window[windows.rows] = True
    return np.where(has_window, positions, 0.0)


def probability_of_rise(quantiles: Floats) -> Floats:
    """1 - the level at which the quantiles pass 0, linear between two levels.

    Quantiles of exactly 0, as of a market that often stands still, count half as rises and half as falls.

    Args:
        quantiles: ascending along the second axis, shape (n_rows, n_levels).
    """
    without_ties = _share_above(quantiles, (quantiles <= 0).sum(axis=1))
    with_ties = _share_above(quantiles, (quantiles < 0).sum(axis=1))
    return np.asarray((without_ties + with_ties) / 2)


def _share_above(quantiles: Floats, below: NDArray[np.int64]) -> Floats:
    """1 - the level at which the line from the last of the `below` lowest quantiles to the next passes 0."""
    last = len(LEVELS) - 1
    rows = np.arange(len(quantiles))
    lower = np.clip(below - 1, 0, last)
    upper = np.clip(below, 0, last)
    low = quantiles[rows, lower]
    high = quantiles[rows, upper]
    inside = (below > 0) & (below <= last)
    share = np.where(inside, -low / np.where(inside, high - low, 1.0), 0.0)
    return np.asarray(1.0 - LEVELS[lower] - share * (LEVELS[upper] - LEVELS[lower]))


@dataclass(frozen=True)
class ForecastRecipe:
    """Validated training parameters of a forecasting network."""

    params: ForecastParams

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def warm_start(self) -> bool:
        return self.params.warm_start_steps > 0

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def bars_to_fit(self, bars: Bars) -> int:
        return _bars_needed(self.params)

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> ForecastModel:
        """Train with early stopping on the newest, purged `validation_fraction` of the windows.

        The weights with the least validation loss are kept. Training metrics: windows in each part, steps
        until the best weights, share of the forecasts kept, quantile loss over the horizon with the forecasts
        and with the quantiles of the fitted returns alone, share of validation windows with the right
        direction, and 1 if trained on a GPU.
        """
        material = training_windows(bars, self.params)
        forecaster = self._untrained(material, seed)
        return self._train(bars, material, forecaster, self.params.steps, seed, progress)

    def fit_after(
        self, older: Model, bars: Bars, seed: int, progress: Progress | None = None
    ) -> ForecastModel:
        """Continue, for `warm_start_steps`, a model fitted on the first part of the bars.

        Base quantiles and feature scales stay those of the older model.
        """
        from clm_core.models.networks import architecture

        assert isinstance(older, ForecastModel)
        material = training_windows(bars, self.params)
        forecaster = architecture.untrained(self.params, LEVELS, seed)
        forecaster.load_state_dict(older.forecaster.state_dict())
        return self._train(bars, material, forecaster, self.params.warm_start_steps, seed, progress)

    def _untrained(self, material: TrainingWindows, seed: int) -> "Forecaster":
        import torch

        from clm_core.models.networks import architecture

        forecaster = architecture.untrained(self.params, LEVELS, seed)
        targets = material.targets[material.fit]
        features = material.windows.features[material.fit]
        # with mirror images: the trend of the fitted bars is no forecast
        base = np.quantile(np.concatenate([targets, -targets]), LEVELS, axis=0).T
        deviation = features.std(axis=0)
        forecaster.base.copy_(torch.from_numpy(base))
        forecaster.centre.copy_(torch.from_numpy(features.mean(axis=0)))
        forecaster.scale.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))
        return forecaster

    def _train(
        self,
        bars: Bars,
        material: TrainingWindows,
        forecaster: "Forecaster",
        steps: int,
        seed: int,
        progress: Progress | None,
    ) -> ForecastModel:
        from clm_core.models.networks.training import train

        report = progress or (lambda done: None)
        device = torch_device(self.params.device)
        forecaster.trust.fill_(1.0)
        losses = train(forecaster, material, self.params, steps, device, seed, report)
        metrics = _validation_metrics(forecaster, material, self.params.shrink) | {
            "steps": float(min((int(np.argmin(losses)) + 1) * self.params.check_steps, steps)),
            "gpu": float(device == "cuda"),
        }
        forecaster.trust.fill_(metrics["trust"])
        report(1.0)
        return ForecastModel(self.params, TrainedOn.of(bars, seed), metrics, forecaster, losses)


def recipe_of(params: ForecastParams, costs: Costs) -> ForecastRecipe:
    """Recipe with the cost of a round trip filled in.

    Raises:
        InvalidTrainingParams: the parameters require a GPU and none is available.
    """
    if params.device == "cuda":
        torch_device(params.device)
    return ForecastRecipe(params.with_costs(costs))


def load(folder: Path, card: ModelCard, params_class: type[ForecastParams]) -> ForecastModel:
    """Model of a verified bundle.

    Raises:
        BundleCorrupt: the weights cannot be read, or belong to another network.
        FeatureMismatch: the model needs features unknown to the installed release.
    """
    from clm_core.models.networks import architecture

    if "features" in params_class.model_fields:
        require_features(card.params["features"])
    params = params_class.parse(card.params)
    forecaster = architecture.untrained(params, LEVELS, card.trained_on.seed)
    architecture.restore(forecaster, folder / FILE)
    return ForecastModel(params, card.trained_on, card.train_metrics, forecaster)


def training_windows(bars: Bars, params: ForecastParams) -> TrainingWindows:
    """Windows to train on and newer windows for early stopping, purged by the end of the targets.

    Raises:
        NotEnoughBars: fewer than `MIN_ROWS` windows to train on, or a quarter of `MIN_ROWS` to validate on.
    """
    windows = windows_of(bars, params.input_size, params.input_features)
    targets, end = targets_of(bars, windows.volatility, params.horizon)
    target_end = np.full(len(bars), -1)
    target_end[windows.rows] = end[windows.rows]
    needed = _bars_needed(params)
    try:
        tail = purged_tail(target_end, params.validation_fraction, embargo=0)
    except NotEnoughBars as error:
        raise NotEnoughBars(f"{bars.symbol} {bars.timeframe}: {error}", needed) from error
    if len(tail.fit) < MIN_ROWS or len(tail.validation) < MIN_ROWS // 4:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(tail.fit)} windows to fit on and "
            f"{len(tail.validation)} to validate on; {MIN_ROWS} and {MIN_ROWS // 4} are needed. "
            "Give more days of bars, a shorter horizon or input_size, or fewer folds",
            needed,
        )
    return TrainingWindows(windows, targets, tail.fit, tail.validation)


def _bars_needed(params: ForecastParams) -> int:
    look_back = max(each.warm_up for each in select_features((RETURN, VOLATILITY, *params.input_features)))
    return bars_for_tail(
        MIN_ROWS, MIN_ROWS // 4, params.validation_fraction, look_back + params.input_size - 1, params.horizon
    )


def _validation_metrics(
    forecaster: "Forecaster", material: TrainingWindows, shrink: bool
) -> dict[str, float]:
    """Metrics on the validation windows, at the share of the forecasts with the least loss."""
    from clm_core.models.networks import architecture

    forecast = architecture.quantiles(forecaster, replace(material.windows, rows=material.validation))
    actual = material.targets[material.validation, -1]
    base = forecaster.base[-1].double().numpy()
    shares = KEPT_SHARES if shrink else KEPT_SHARES[-1:]
    by_share = [_quantile_losses(base + share * (forecast - base), actual) for share in shares]
    losses = [float(np.mean(each)) for each in by_share]
    best = int(np.argmin(losses))
    of_constant = _quantile_losses(base[None], actual)
    return {
        "fit_rows": float(len(material.fit)),
        "validation_rows": float(len(material.validation)),
        "validation_quantile_loss": losses[best],
        "validation_quantile_loss_of_constant": float(np.mean(of_constant)),
        "validation_accuracy": accuracy(probability_of_rise(forecast) - 0.5, actual),
        "trust": float(shares[best]),
        **skill_metrics(
            by_share[best].mean(axis=1),
            of_constant.mean(axis=1),
            len(actual) / material.targets.shape[1],
        ),
    }


def _quantile_losses(quantiles: Floats, actual: Floats) -> Floats:
    """max(level * miss, (level - 1) * miss), miss = actual - quantile, shape (n_rows, n_levels)."""
    miss = actual[:, None] - quantiles
    return np.asarray(np.maximum(LEVELS * miss, (LEVELS - 1) * miss))
