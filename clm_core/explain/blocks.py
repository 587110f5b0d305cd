"""Contributions of the blocks of an N-HiTS network, which add up to its forecast.

The network adds the outputs of its blocks, from one on coarsely pooled returns to one on single bars (Challu
et al. 2023, "NHITS: neural hierarchical interpolation for time series forecasting"). So the mean of the
forecast is exactly the base plus a contribution of each block. A second pass with the features at their
training means divides each contribution: the part of the returns is that of the second pass, the part of the
features is the difference, their interaction with the returns included.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clm_core.domain import measures
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.explain.feature_charts import WHOLE, digits, thinned
from clm_core.market.bars import Bars, Floats
from clm_core.models.networks.forecasting import ForecastModel
from clm_core.models.networks.windows import windows_of

if TYPE_CHECKING:
    from torch import Tensor

    from clm_core.models.networks.architecture import Forecaster

NAME = "blocks"
TITLE = "Blocks of the network"
BARS = 1_000
"""Newest bars whose forecasts are taken apart."""
POINTS = 250
"""Points of a curve in the chart."""
COLOURS = ("#1f6f8b", "#c77b30", "#8b6fd8", "#4fa39b")


@dataclass(frozen=True, eq=False)
class BlockContributions:
    """Contributions to the mean forecast over the horizon, in standard deviations of the return over it."""

    symbol: str
    times: tuple[str, ...]
    """Open time of the last bar of each window, ISO 8601 (UTC)."""
    blocks: tuple[str, ...]
    """Name of each block by its pooling."""
    base: float
    """Mean of the base quantiles."""
    contributions: Floats
    """Shape (n_windows, n_blocks)."""
    of_features: Floats
    """Part of each contribution due to the features, shape (n_windows, n_blocks); 0 without features."""
    forecast: Floats
    """Mean of the model's quantiles, shape (n_windows,)."""

    @property
    def largest_error(self) -> float:
        """Largest distance of base and contributions from the forecast."""
        return float(np.abs(self.base + self.contributions.sum(axis=1) - self.forecast).max())


def explain_blocks(model: ForecastModel, bars: Bars) -> BlockContributions:
    """Contributions of the blocks of an N-HiTS model on the newest `BARS` bars.

    Args:
        bars: bars of the model's market, with its own series.

    Raises:
        NotEnoughBars: no bar has a whole window.
    """
    import torch

    from clm_core.models.networks import architecture
    from clm_core.models.threads import single_threaded_torch

    params = model.params
    newest = model.trained_on.accept(bars)[-(model.bars_needed + BARS) :]
    windows = windows_of(newest, params.input_size, params.input_features)
    if not len(windows.rows):
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: no whole window of {params.input_size} bars. Import more bars"
        )
    rows = windows.rows[-BARS:]
    # a copy: hooks would be called by whoever shares the model
    forecaster = deepcopy(model.forecaster)
    with single_threaded_torch(), torch.inference_mode():
        batch = architecture.WindowTensors(windows, forecaster, "cpu").batch(torch.from_numpy(rows))
        whole = _contributions(forecaster, batch)
        features = batch["hist_exog"]
        plain = None if features is None else batch | {"hist_exog": torch.zeros_like(features)}
        of_features = np.zeros_like(whole) if plain is None else whole - _contributions(forecaster, plain)
        base = float(forecaster.base[-1].double().mean())
    return BlockContributions(
        symbol=bars.symbol,
        times=tuple(each.isoformat() for each in newest.index[rows]),
        blocks=tuple(_name(each) for each in _blocks(forecaster)),
        base=base,
        contributions=whole,
        of_features=of_features,
        forecast=architecture.quantiles(forecaster, replace(windows, rows=rows)).mean(axis=1),
    )


def blocks_section(decomposition: BlockContributions) -> Section:
    sizes = np.abs(decomposition.contributions).mean(axis=0)
    total = float(sizes.sum())
    shares = sizes / total if total > 0 else np.zeros(len(sizes))
    return Section(
        name=NAME,
        title=TITLE,
        sentences=(_answer(decomposition, shares), _parts(decomposition)),
        charts=(_chart(decomposition),),
        tables=(_table(decomposition, sizes, shares),),
        values={
            "symbol": decomposition.symbol,
            "windows": len(decomposition.forecast),
            "base": decomposition.base,
            "largest_error": decomposition.largest_error,
            "blocks": [
                {"block": name, "mean_absolute": float(size), "share": float(share)}
                for name, size, share in zip(decomposition.blocks, sizes, shares, strict=True)
            ],
        },
    )


def _answer(decomposition: BlockContributions, shares: Floats) -> str:
    if not shares.any():
        return (
            "No block contributes: the model keeps no part of the network's forecasts, which were no better "
            "than a constant in its training."
        )
    first = int(shares.argmax())
    return (
        f"Of the {len(decomposition.blocks)} blocks, the one of {decomposition.blocks[first]} contributes "
        f"most: {measures.percent(float(shares[first]))} of the sizes of all contributions."
    )


def _parts(decomposition: BlockContributions) -> str:
    return (
        f"{len(decomposition.forecast):,} forecasts of {decomposition.symbol}, "
        f"{decomposition.times[0][:16].replace('T', ' ')} to "
        f"{decomposition.times[-1][:16].replace('T', ' ')} UTC. Base {decomposition.base:+.4f} and "
        "contributions add up to the mean of each forecast, with an error of at most "
        f"{decomposition.largest_error:.0e}."
    )


def _table(decomposition: BlockContributions, sizes: Floats, shares: Floats) -> SectionTable:
    of_returns = np.abs(decomposition.contributions - decomposition.of_features).mean(axis=0)
    of_features = np.abs(decomposition.of_features).mean(axis=0)
    figures = zip(decomposition.blocks, sizes, shares, of_returns, of_features, strict=True)
    return SectionTable(
        columns=("block", "mean size", "share", "from returns", "from features"),
        rows=tuple(
            (name, f"{size:.4f}", measures.percent(float(share)), f"{own:.4f}", f"{other:.4f}")
            for name, size, share, own, other in figures
        ),
        note="Mean size of the contributions, in standard deviations of the return over the horizon. From "
        "returns: with the features at their training means; from features: the rest.",
    )


def _chart(decomposition: BlockContributions) -> SectionChart:
    at = thinned(len(decomposition.forecast), POINTS)
    times = [decomposition.times[row] for row in at]

    def curve(name: str, values: Floats, colour: str, width: float) -> dict[str, Any]:
        line = {"color": colour, "width": width}
        shown = {"type": "scatter", "mode": "lines", "name": name, "line": line}
        return shown | {"x": times, "y": digits(values[at])}

    curves = [
        curve(name, decomposition.contributions[:, number], COLOURS[number % len(COLOURS)], 1.2)
        for number, name in enumerate(decomposition.blocks)
    ]
    return SectionChart(
        name="contributions",
        height=320,
        figure={
            "data": [*curves, curve("forecast", decomposition.forecast, WHOLE, 2.0)],
            "layout": {
                "yaxis": {"title": {"text": "standard deviations"}},
                "legend": {"orientation": "h", "y": 1.12},
            },
        },
        note=f"Contributions to the mean forecast, {len(at)} of {len(decomposition.forecast):,} windows.",
    )


def _blocks(forecaster: "Forecaster") -> list[Any]:
    network: Any = forecaster.network
    return list(network.blocks)


def _name(block: Any) -> str:
    bars = int(np.max(block.pooling_layer.kernel_size))
    return "single bars" if bars == 1 else f"{bars} bars pooled"


def _contributions(forecaster: "Forecaster", batch: "dict[str, Tensor | None]") -> Floats:
    """Mean contribution of each block over the whole horizon, as the model keeps it, shape (n_windows,
    n_blocks)."""
    outputs = list[Floats]()

    def keep(_module: Any, _inputs: Any, output: "tuple[Tensor, Tensor]") -> None:
        outputs.append((forecaster.trust * output[1][:, -1].mean(dim=1)).double().numpy())

    hooks = [block.register_forward_hook(keep) for block in _blocks(forecaster)]
    try:
        forecaster(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return np.stack(outputs, axis=1)
