"""Attention of a PatchTST network over the patches of its window, and whether it explains the forecast.

A patch attends to the patches with the weights of a softmax: the weights of a row sum to 1. Shown are means
over heads and layers. High attention is no evidence of an effect (Jain & Wallace 2019, "Attention is not
explanation"), so the effect is measured: the returns of a patch are set to 0, and the forecast moves. Where
the most attended patch moves the forecast more than another patch, drawn at random, in at least 80 % of the
windows, attention says what the forecast is made of; otherwise it explains nothing.
"""

from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from clm_core.domain import measures
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.explain.feature_charts import RISING, digits, thinned
from clm_core.explain.shares import CLEAR
from clm_core.market.bars import Bars, Floats
from clm_core.models.networks.forecasting import ForecastModel
from clm_core.models.networks.patchtst import PatchTSTParams
from clm_core.models.networks.windows import windows_of

if TYPE_CHECKING:
    from torch import Tensor

    from clm_core.models.networks.architecture import Forecaster

NAME = "attention"
TITLE = "Attention over the window"
BARS = 4_000
"""Newest bars from which windows are drawn."""
WINDOWS = 256
"""Windows explained, evenly spread."""
REQUIRED = 0.8
"""Share of the windows in which the most attended patch has to move the forecast more than another patch."""
SEED = 1
"""Seed of the patches drawn at random."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of a network, and the effect of its patches on the forecast."""

    symbol: str
    windows: int
    start: datetime
    """Open time of the last bar of the first window (UTC)."""
    end: datetime
    """Open time of the last bar of the last window (UTC)."""
    patches: tuple[slice, ...]
    """Bars of each patch, counted from the start of the window."""
    weights: Floats
    """Weight of each patch (second axis) for each patch (first axis), mean over windows, heads and layers,
    shape (n_patches, n_patches); rows sum to 1."""
    received: Floats
    """Mean weight of each patch in each window, shape (n_windows, n_patches); rows sum to 1."""
    effects: Floats
    """Size of the change of the mean forecast with the patch at 0, in standard deviations of the return over
    the horizon, shape (n_windows, n_patches)."""
    length: int
    """Bars in a window."""
    trust: float
    """Share of the network's forecast that the model keeps, 0..1."""

    @property
    def share(self) -> float:
        """Share of the windows in which the most attended patch moves the forecast more than another patch,
        drawn at random."""
        rng = np.random.default_rng(SEED)
        rows = np.arange(len(self.received))
        top = self.received.argmax(axis=1)
        other = (top + rng.integers(1, len(self.patches), len(rows))) % len(self.patches)
        return float(np.mean(self.effects[rows, top] > self.effects[rows, other]))

    @property
    def explains(self) -> bool:
        return self.share >= REQUIRED and self.trust > 0

    def names(self) -> list[str]:
        """Bars of each patch, counted back from the last bar of the window: "95 to 80", and "0"."""
        ends = [(self.length - 1 - each.start, self.length - each.stop) for each in self.patches]
        return [f"{first} to {last}" if first != last else f"{last}" for first, last in ends]


def explain_attention(model: ForecastModel, params: PatchTSTParams, bars: Bars) -> Attention:
    """Attention on windows of the newest bars.

    Args:
        model: model of a PatchTST network.
        params: parameters of the model.
        bars: bars of the model's market.

    Raises:
        NotEnoughBars: no bar has a whole window.
    """
    import torch

    from clm_core.models.networks.architecture import WindowTensors
    from clm_core.models.threads import single_threaded_torch

    bars = model.trained_on.accept(bars)
    windows = windows_of(bars[-BARS:], params.input_size, params.input_features)
    if not len(windows.rows):
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: no whole window of {params.input_size} bars. Import more bars"
        )
    rows = windows.rows[thinned(len(windows.rows), WINDOWS)]
    # a copy: hooks would be called by whoever shares the model
    forecaster = deepcopy(model.forecaster)
    weights = list[Floats]()
    for module in _attention_modules(forecaster):
        module.register_forward_hook(lambda _module, _inputs, output: weights.append(output[1].numpy()))
    with single_threaded_torch(), torch.inference_mode():
        batch = WindowTensors(windows, forecaster, "cpu").batch(torch.from_numpy(rows))
        usual = _mean_forecast(forecaster, batch)
        # shape (n_windows, n_patches, n_patches): mean over layers and heads
        attended = np.mean(weights, axis=(0, 2), dtype=np.float64)
        patches = _patches(params, attended.shape[1])
        moved = [np.abs(_mean_forecast(forecaster, _blanked(batch, each)) - usual) for each in patches]
    times = bars[-BARS:].index
    return Attention(
        symbol=bars.symbol,
        windows=len(rows),
        start=times[rows[0]].to_pydatetime(),
        end=times[rows[-1]].to_pydatetime(),
        patches=patches,
        weights=attended.mean(axis=0),
        received=attended.mean(axis=1),
        effects=np.stack(moved, axis=1),
        length=params.input_size,
        trust=float(model.forecaster.trust),
    )


def attention_section(attention: Attention) -> Section:
    return Section(
        name=NAME,
        title=TITLE,
        sentences=(
            _answer(attention),
            f"{attention.windows} windows of {attention.length} bars of {attention.symbol}, which end "
            f"{attention.start:%Y-%m-%d %H:%M} to {attention.end:%Y-%m-%d %H:%M} UTC.",
        ),
        charts=(_heat_map(attention), _effects(attention)),
        tables=(_table(attention),),
        values={
            "symbol": attention.symbol,
            "windows": attention.windows,
            "share_of_windows": attention.share,
            "explains": attention.explains,
            "trust": attention.trust,
            "patches": attention.names(),
            "attention": attention.received.mean(axis=0).tolist(),
            "effect": attention.effects.mean(axis=0).tolist(),
            "weights": attention.weights.tolist(),
        },
    )


def _answer(attention: Attention) -> str:
    if attention.trust == 0:
        return (
            "Attention explains nothing here: the model keeps no part of the network's forecasts, which were "
            "no better than a constant in its training."
        )
    share = (
        "the most attended patch, set to 0, moves the forecast more than another patch, drawn at random, in "
        f"{measures.percent(attention.share)} of the windows"
    )
    required = measures.percent(REQUIRED)
    if attention.explains:
        return f"Attention says what the forecast is made of: {share} ({required} required)."
    return f"Attention explains nothing here: {share}, and {required} would be required."


def _table(attention: Attention) -> SectionTable:
    means = zip(
        attention.names(), attention.received.mean(axis=0), attention.effects.mean(axis=0), strict=True
    )
    return SectionTable(
        columns=("bars back", "attention", "effect"),
        rows=tuple((name, measures.percent(weight), f"{effect:.4f}") for name, weight, effect in means),
        note="Attention: mean weight over windows, heads and layers; all patches together have 100 %. "
        "Effect: mean change of the forecast with the returns of the patch at 0, in standard deviations of "
        "the return over the horizon. Where the patches go beyond the window, the network repeats the last "
        "bar.",
    )


def _heat_map(attention: Attention) -> SectionChart:
    names = attention.names()
    cells: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [digits(row) for row in attention.weights],
        "zmin": 0,
        "zmax": float(attention.weights.max()),
        "colorscale": [[0, CLEAR], [1, RISING]],
        "showscale": False,
        "hovertemplate": "%{y} attends to %{x}: %{z}<extra></extra>",
    }
    layout = {
        "xaxis": {
            "type": "category",
            "title": {"text": "attends to the patch, bars back"},
            "showgrid": False,
        },
        "yaxis": {"type": "category", "title": {"text": "patch"}, "autorange": "reversed", "showgrid": False},
    }
    return SectionChart(
        name="weights",
        height=380,
        figure={"data": [cells], "layout": layout},
        note="The darker, the larger the weight; each row has a sum of 1. A plain square says that all "
        "patches are attended alike.",
    )


def _effects(attention: Attention) -> SectionChart:
    names = attention.names()
    effects = {
        "type": "bar",
        "x": names,
        "y": digits(attention.effects.mean(axis=0)),
        "marker": {"color": RISING},
        "hovertemplate": "%{x}: %{y}<extra></extra>",
    }
    layout = {
        "xaxis": {"type": "category", "title": {"text": "patch, bars back"}},
        "yaxis": {"title": {"text": "effect, standard deviations"}},
    }
    return SectionChart(
        name="effects",
        title="Effect of each patch on the forecast",
        height=260,
        figure={"data": [effects], "layout": layout},
    )


def _attention_modules(forecaster: "Forecaster") -> list[Any]:
    """Modules that return the weights of each layer, first layer first."""
    return [module for name, module in forecaster.named_modules() if name.endswith("sdp_attn")]


def _patches(params: PatchTSTParams, count: int) -> tuple[slice, ...]:
    """Bars of each patch; where the last patch goes beyond the window, the network repeats the last bar."""
    last = params.input_size - 1
    starts = [min(number * params.stride, last) for number in range(count)]
    return tuple(slice(start, min(start + params.patch_len, last + 1)) for start in starts)


def _mean_forecast(forecaster: "Forecaster", batch: "dict[str, Tensor | None]") -> Floats:
    """Mean of the quantiles over the whole horizon, as the model keeps them, shape (n_windows,)."""
    kept: Floats = (forecaster.trust * forecaster(batch)[:, -1].mean(dim=1)).double().numpy()
    return kept


def _blanked(batch: "dict[str, Tensor | None]", patch: slice) -> "dict[str, Tensor | None]":
    """Batch with the returns of a patch at 0, their mean."""
    returns = batch["insample_y"]
    assert returns is not None
    changed = returns.clone()
    changed[:, patch] = 0.0
    return batch | {"insample_y": changed}
