"""Forecasting networks: NHITS and PatchTST of neuralforecast behind one recipe.

At the close of bar t the network sees the last `input_size` one-bar log returns, each over the volatility v
of the trailing 96 bars (NHITS also sees features), and forecasts quantiles of the log return from the next
open to the open k bars later, k = 1..`horizon`, each over v * sqrt(k). It learns all of them by quantile
loss. Of what it says beyond the quantiles of all the fitted returns, the share is kept that makes the loss on
the validation windows least, which is nothing where it has only learnt noise (`shrink`). What is acted on is
the distribution over the whole horizon, in units of u = v * sqrt(horizon):

- forecast: the probability that the price rises, read off the quantiles, linear between them; never beyond
  the outermost level.
- edge: the mean of the distribution beyond the cost of a round trip, max(|mean| - cost / u, 0), with the
  mean's sign. So the expected return over cost, scaled by volatility.
- signal: edge / `full_edge`, cut off at -1 and 1; 0 in rows without a full window; with `long_only`, what is
  negative becomes 0. Continuous: a little other forecast is a little other signal.
- position: the mean of the last `horizon` signals of the unbroken stretch, signals before its start counting
  as 0. Each signal is so held for the horizon it was forecast for.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.splits import purged_tail
from clm_core.models.contract import Model, ModelCard, Progress, TrainedOn
from clm_core.models.exclusive_torch import torch_device
from clm_core.models.networks.forecast_params import PARAMS, NetworkParams
from clm_core.models.networks.windows import Material, Windows, futures_of, windows_of
from clm_core.models.params import require_features

if TYPE_CHECKING:
    from clm_core.models.networks.networks import Forecaster

FILE = "weights.safetensors"
MIN_ROWS = 200
"""Fewest windows to fit on, and to stop early on a quarter of it."""
LEVELS: Floats = (np.arange(9) + 0.5) / 9
"""Quantiles forecast: the middles of nine equal parts, so that their mean is that of the distribution."""
SHARES: Floats = np.linspace(0, 1, 21)
"""Of a forecast, that are tried on the validation windows."""


@dataclass(frozen=True, eq=False)
class ForecastModel:
    """A fitted network; see the module's docstring for its positions."""

    params: NetworkParams
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    forecaster: "Forecaster"
    learning_curve: tuple[float, ...] = ()

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def positions(self, bars: Bars) -> Floats:
        windows, quantiles = self._look(bars)
        signals = np.zeros(len(bars))
        unit = windows.volatility[windows.rows] * math.sqrt(self.params.horizon)
        signals[windows.rows] = self._signals(quantiles.mean(axis=1), unit)
        return held(signals, bars, self.params.horizon, windows)

    def forecast(self, bars: Bars) -> Floats:
        windows, quantiles = self._look(bars)
        probability = np.full(len(bars), np.nan)
        probability[windows.rows] = probability_of_rise(quantiles)
        return probability

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        from clm_core.models.networks import networks

        networks.save(self.forecaster, folder / FILE)

    def _look(self, bars: Bars) -> tuple[Windows, Floats]:
        """The windows of the bars, and the quantiles over the horizon for each."""
        from clm_core.models.networks import networks

        self.trained_on.require_same_series(bars)
        windows = windows_of(bars, self.params.input_size, self.params.shown)
        return windows, networks.quantiles(self.forecaster, windows)

    def _signals(self, mean: Floats, unit: Floats) -> Floats:
        assert self.params.round_trip_bps is not None
        cost = self.params.round_trip_bps / 1e4 / unit
        edge = np.sign(mean) * np.maximum(np.abs(mean) - cost, 0.0)
        lowest = 0.0 if self.params.long_only else -1.0
        return np.asarray(np.clip(edge / self.params.full_edge, lowest, 1.0))


def held(signals: Floats, bars: Bars, horizon: int, windows: Windows) -> Floats:
    """Mean of the last `horizon` signals within each unbroken stretch, 0.0 in rows without a window.

    Each mean is summed for itself: it does not depend on what came before its signals.
    """
    positions = np.zeros(len(signals))
    for rows in bars.stretches():
        padded = np.concatenate([np.zeros(horizon - 1), signals[rows]])
        positions[rows] = sliding_window_view(padded, horizon).mean(axis=1)
    known = np.zeros(len(signals), dtype=bool)
    known[windows.rows] = True
    return np.where(known, positions, 0.0)


def probability_of_rise(quantiles: Floats) -> Floats:
    """1 - the level at which ascending quantiles, shape (n_rows, n_levels), pass 0; linear in between."""
    below = (quantiles <= 0).sum(axis=1)
    last, rows = len(LEVELS) - 1, np.arange(len(quantiles))
    lower, upper = np.clip(below - 1, 0, last), np.clip(below, 0, last)
    low, high = quantiles[rows, lower], quantiles[rows, upper]
    inside = (below > 0) & (below <= last)
    share = np.where(inside, -low / np.where(inside, high - low, 1.0), 0.0)
    return np.asarray(1.0 - LEVELS[lower] - share * (LEVELS[upper] - LEVELS[lower]))


@dataclass(frozen=True)
class ForecastRecipe:
    params: NetworkParams

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    @property
    def warm_start(self) -> bool:
        return self.params.warm_start_steps > 0

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> ForecastModel:
        """Train on the older windows until the loss on the newest, purged `validation_fraction` of them stops
        falling; the weights with the least loss are kept.

        Measures of itself: windows of both parts, steps until the best weights, the share of its forecasts
        that is kept, their quantile loss over the horizon and that of always answering with the fitted
        returns' quantiles, the share of validation windows whose direction it foresaw, and whether a GPU
        trained it.
        """
        learn = material_of(bars, self.params)
        return self._train(bars, learn, self._begin(learn, seed), self.params.steps, seed, progress)

    def fit_after(
        self, older: Model, bars: Bars, seed: int, progress: Progress | None = None
    ) -> ForecastModel:
        """Continue, for `warm_start_steps`, a model that was fitted on the start of these bars. It keeps the
        scales it began with."""
        from clm_core.models.networks import networks

        assert isinstance(older, ForecastModel)
        learn = material_of(bars, self.params)
        forecaster = networks.untrained(self.params, LEVELS, seed)
        forecaster.load_state_dict(older.forecaster.state_dict())
        return self._train(bars, learn, forecaster, self.params.warm_start_steps, seed, progress)

    def _begin(self, learn: Material, seed: int) -> "Forecaster":
        import torch

        from clm_core.models.networks import networks

        forecaster = networks.untrained(self.params, LEVELS, seed)
        futures, shown = learn.futures[learn.fit], learn.windows.features[learn.fit]
        # of the mirror images too: which way the market went while it was fitted is no forecast
        base = np.quantile(np.concatenate([futures, -futures]), LEVELS, axis=0).T
        deviation = shown.std(axis=0)
        forecaster.base.copy_(torch.from_numpy(base))
        forecaster.centre.copy_(torch.from_numpy(shown.mean(axis=0)))
        forecaster.scale.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))
        return forecaster

    def _train(
        self,
        bars: Bars,
        learn: Material,
        forecaster: "Forecaster",
        steps: int,
        seed: int,
        progress: Progress | None,
    ) -> ForecastModel:
        from clm_core.models.networks.network_training import train

        report, device = progress or (lambda done: None), torch_device(self.params.device)
        forecaster.trust.fill_(1.0)
        losses = train(forecaster, learn, self.params, steps, device, seed, report)
        measured = _measure(forecaster, learn, self.params.shrink) | {
            "steps": float(min((int(np.argmin(losses)) + 1) * self.params.check_steps, steps)),
            "gpu": float(device == "cuda"),
        }
        forecaster.trust.fill_(measured["trust"])
        report(1.0)
        return ForecastModel(self.params, TrainedOn.of(bars, seed), measured, forecaster, losses)


def recipe_of(params: NetworkParams, costs: Costs) -> ForecastRecipe:
    """
    Raises:
        InvalidTrainingParams: a GPU is asked for and there is none.
    """
    if params.device == "cuda":
        torch_device(params.device)
    return ForecastRecipe(params.priced(costs))


def load(folder: Path, card: ModelCard) -> ForecastModel:
    """The model of a verified bundle.

    Raises:
        BundleCorrupt: its weights cannot be read, or belong to another network.
        FeatureMismatch: it sees features that this release does not compute.
    """
    from clm_core.models.networks import networks

    shown = card.params["features"] if card.model_type is ModelType.NHITS else []
    require_features(shown)
    params = PARAMS[card.model_type].parse(card.params)
    forecaster = networks.untrained(params, LEVELS, card.trained_on.seed)
    networks.restore(forecaster, folder / FILE)
    return ForecastModel(params, card.trained_on, card.train_metrics, forecaster)


def material_of(bars: Bars, params: NetworkParams) -> Material:
    """Windows to fit on and, purged by the end of what they forecast, newer ones to stop early on."""
    windows = windows_of(bars, params.input_size, params.shown)
    futures, end = futures_of(bars, windows.volatility, params.horizon)
    label_end = np.full(len(bars), -1)
    label_end[windows.rows] = end[windows.rows]
    tail = purged_tail(label_end, params.validation_fraction, embargo=0)
    if len(tail.fit) < MIN_ROWS or len(tail.validation) < MIN_ROWS // 4:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(tail.fit)} windows to fit on and "
            f"{len(tail.validation)} to validate on; {MIN_ROWS} and {MIN_ROWS // 4} are needed. "
            "Give more days of bars, a shorter horizon or input_size, or fewer folds"
        )
    return Material(windows, futures, tail.fit, tail.validation)


def _measure(forecaster: "Forecaster", learn: Material, shrink: bool) -> dict[str, float]:
    """What it is worth on the validation windows, with the share of its forecasts kept that is worth most."""
    from clm_core.models.networks import networks

    said = networks.quantiles(forecaster, replace(learn.windows, rows=learn.validation))
    happened, base = learn.futures[learn.validation, -1], forecaster.base[-1].double().numpy()
    tried = SHARES if shrink else SHARES[-1:]
    losses = [_quantile_loss(base + share * (said - base), happened) for share in tried]
    best = int(np.argmin(losses))
    foreseen = (probability_of_rise(said) > 0.5) == (happened > 0)
    return {
        "fit_rows": float(len(learn.fit)),
        "validation_rows": float(len(learn.validation)),
        "validation_quantile_loss": losses[best],
        "validation_quantile_loss_of_constant": _quantile_loss(base[None], happened),
        "validation_accuracy": float(np.mean(foreseen)),
        "trust": float(tried[best]),
    }


def _quantile_loss(quantiles: Floats, happened: Floats) -> float:
    """Mean over levels and rows of max(level * miss, (level - 1) * miss), miss = happened - quantile."""
    miss = happened[:, None] - quantiles
    return float(np.mean(np.maximum(LEVELS * miss, (LEVELS - 1) * miss)))
