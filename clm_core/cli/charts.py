"""Charts of a series: braille dots in the terminal, or an HTML page."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats

# The dots of a braille character by row and column: bits of its code point above U+2800.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])

PAGE_BARS = 5_000
"""Largest number of bars drawn as candles; beyond, candles would be thinner than a pixel and a line of closes
is drawn."""


def braille(bars: Bars, width: int, height: int = 12) -> str:
    """The closes over time, `width` characters wide, with the price at the left; outages stay blank."""
    columns = 2 * width
    rows = 4 * height
    low = float(bars.close.min())
    high = float(bars.close.max())
    span = max(int(bars.time[-1] - bars.time[0]), 1)
    at = (bars.time - bars.time[0]).astype(np.float64) / span * (columns - 1)
    up = (bars.close - low) / (high - low or 1.0) * (rows - 1)
    cells = np.zeros((height, width), dtype=np.int64)
    for rows_of in bars.stretches():
        _draw(cells, at[rows_of], up[rows_of])
    labels = [""] * height
    labels[0] = f"{high:,.6g}"
    labels[-1] = f"{low:,.6g}"
    lines = ["".join(chr(0x2800 + dots) for dots in row) for row in cells.tolist()]
    axis = f"{bars.start:%Y-%m-%d}" + f"{bars.end:%Y-%m-%d}".rjust(width - 10)
    return "\n".join(
        [*(f"{label:>12} {line}" for label, line in zip(labels, lines, strict=True)), " " * 13 + axis]
    )


def _draw(cells: NDArray[np.int64], at: Floats, up: Floats) -> None:
    """Connect the points of an unbroken stretch: every dot between the low and the high of each column."""
    height = len(cells)
    column = np.rint(at).astype(np.int64)
    for x in np.unique(column):
        # the last point before the column joins it to the line
        inside = np.flatnonzero(column == x)
        reach = up[max(inside[0] - 1, 0) : inside[-1] + 1]
        for y in range(round(float(reach.min())), round(float(reach.max())) + 1):
            line = 4 * height - 1 - y
            cells[line // 4, x // 2] |= DOTS[line % 4, x % 2]


def write_page(bars: Bars, path: Path) -> None:
    """Write a zoomable, self-contained HTML page with plotly: candles, or closes beyond `PAGE_BARS` bars."""
    import plotly.graph_objects as go

    at = bars.index
    if len(bars) <= PAGE_BARS:
        trace = go.Candlestick(
            x=at, open=bars.open, high=bars.high, low=bars.low, close=bars.close, name="price"
        )
    else:
        trace = go.Scattergl(x=at, y=bars.close, mode="lines", line={"width": 1}, name="close")
    figure = go.Figure(trace)
    outage = {
        "type": "rect",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "fillcolor": "red",
        "opacity": 0.15,
        "line_width": 0,
    }
    figure.update_layout(
        shapes=[{**outage, "x0": gap.after, "x1": gap.before} for gap in bars.gaps],
        title=f"{bars.symbol} {bars.timeframe}: {len(bars):,} bars, {len(bars.gaps)} outages (red)",
        xaxis_title="UTC",
        yaxis_title="price",
        template="plotly_white",
    )
    figure.write_html(path, include_plotlyjs=True)
