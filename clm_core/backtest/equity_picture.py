"""Equity curves over the drawdown as a small PNG, drawn with Pillow.

A library for figures takes half a second of processor time and 25 MB to import, for one picture of lines.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clm_core.market.bars import Floats
from clm_core.market.panel import Times

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SIZE = (900, 420)
"""Pixels."""
FINER = 3
"""Lines are drawn on a canvas finer by this factor, and reduced: smooth edges."""
LEFT = 80
"""Left edge of the canvas in the picture, in pixels. Outside the canvas are texts alone."""
TOP = 50
RIGHT = 896
BOTTOM = 398
COLOURS = 64
"""Colours of the file: enough for some lines, at a third of the size."""
COMPRESSION = 3
"""Level of zlib, 1-9: half the time of level 6, at 4 KB more."""
WHITE = "#ffffff"
GRID = "#e8ecf2"
INK = "#1c2430"
MUTED = "#5d6878"
MAX_TIMES = 8
"""Most labels of the time axis."""
TIME_STEPS = (
    *((unit, step, "%m-%d %H:%M") for unit, step in (("m", 1), ("m", 5), ("m", 15), ("h", 1), ("h", 6))),
    *(("D", step, "%Y-%m-%d") for step in (1, 2, 7, 14)),
    *(("M", step, "%Y-%m") for step in (1, 2, 3, 6)),
    *(("Y", step, "%Y") for step in (1, 2, 5, 10, 20, 50)),
)
"""Steps between labels of the time axis, the shortest first: unit of numpy, number of units, format."""


class EquityLine(NamedTuple):
    """A line of the picture."""

    label: str
    colour: str
    width: float
    """Pixels."""
    values: Floats
    """Shape (n_points,)."""


@dataclass(frozen=True)
class PlotArea:
    """Area with axes: pixels from the left upper corner of the picture, and the values at the edges."""

    left: int
    top: int
    right: int
    bottom: int
    first: int
    """Time at the left edge, nanoseconds since 1970-01-01 UTC."""
    last: int
    low: float
    """Value at the bottom."""
    high: float

    def x(self, times: Times) -> Floats:
        """Pixels of times, shape (n_points,)."""
        share = (times - self.first) / max(self.last - self.first, 1)
        return np.asarray(self.left + np.clip(share, 0.0, 1.0) * (self.right - self.left))

    def y(self, values: Floats) -> Floats:
        """Pixels of values, shape (n_points,)."""
        share = (values - self.low) / (self.high - self.low)
        return np.asarray(self.bottom - share * (self.bottom - self.top))


def equity_picture(
    title: str,
    times: Times,
    curves: Sequence[EquityLine],
    drawdown: Floats,
    shaded: Sequence[tuple[int, int]] = (),
    *,
    shade: str,
    loss: str,
) -> bytes:
    """PNG of curves, with a legend, over the filled drawdown.

    Args:
        times: time of each point, nanoseconds since 1970-01-01 UTC, ascending, shape (n_points,).
        drawdown: negative fractions, shape (n_points,).
        shaded: first and last time of each shaded stretch, nanoseconds since 1970-01-01 UTC.
        shade: colour of these stretches.
        loss: colour of the drawdown.
    """
    from PIL import Image, ImageDraw

    span = int(times[0]), int(times[-1])
    upper = PlotArea(84, 56, 890, 288, *span, *_with_margin(np.concatenate([each.values for each in curves])))
    lower = PlotArea(84, 302, 890, 392, *span, min(float(drawdown.min()) * 1.05, -0.01), 0.0)
    canvas = Image.new("RGB", ((RIGHT - LEFT) * FINER, (BOTTOM - TOP) * FINER), WHITE)
    drawn = ImageDraw.Draw(canvas)
    for ends in shaded:
        left, right = ((upper.x(np.array(ends)) - LEFT) * FINER).tolist()
        edges = (left, (upper.top - TOP) * FINER, right, (upper.bottom - TOP) * FINER)
        drawn.rectangle(edges, _on_white(shade, 0.14))
    _fill(drawn, lower, times, drawdown, _on_white(loss, 0.35))
    marks = time_marks(*span)
    values = {upper: value_marks(upper.low, upper.high, 6), lower: value_marks(lower.low, lower.high, 3)}
    for panel, ticks in values.items():
        _grid(drawn, panel, [time for time, _ in marks], ticks)
    for curve in curves:
        _line(drawn, upper, times, curve)
    picture = Image.new("RGB", SIZE, WHITE)
    picture.paste(canvas.reduce(FINER), (LEFT, TOP))
    _write(ImageDraw.Draw(picture), title, curves, marks, values)
    small = io.BytesIO()
    indexed = picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
    indexed.save(small, format="png", compress_level=COMPRESSION)
    return small.getvalue()


def time_marks(first: int, last: int) -> list[tuple[int, str]]:
    """Times to label between two times, at most `MAX_TIMES`, with their labels; UTC."""
    ends = np.array([first, last]).astype("M8[ns]")

    def numbers(unit: str, step: int) -> range:
        begin, end = ends.astype(f"M8[{unit}]").astype(np.int64).tolist()
        return range(-(-begin // step) * step, end + 1, step)

    # a mark may lie before the first time, whose unit is rounded down
    fitting = (each for each in TIME_STEPS if len(numbers(*each[:2])) <= MAX_TIMES)
    unit, step, form = next(fitting, TIME_STEPS[-1])
    marks = np.array(numbers(unit, step)).astype(f"M8[{unit}]")
    return [
        (int(mark.astype("M8[ns]").astype(np.int64)), mark.item().strftime(form))
        for mark in marks
        if mark >= ends[0]
    ]


def value_marks(low: float, high: float, max_marks: int) -> list[float]:
    """Round values to label between two values, at most `max_marks`."""
    rough = (high - low) / max_marks
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) <= max_marks)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _with_margin(values: Floats) -> tuple[float, float]:
    low = float(values.min())
    high = float(values.max())
    margin = 0.05 * (high - low) or max(0.01 * abs(high), 1e-9)
    return low - margin, high + margin


def _on_white(colour: str, opacity: float) -> str:
    """Colour of a translucent area on white."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - opacity * (255 - part)):02x}" for part in parts)


def _points(panel: PlotArea, times: Times, values: Floats) -> list[tuple[float, float]]:
    x = (panel.x(times) - LEFT) * FINER
    y = (panel.y(values) - TOP) * FINER
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _line(drawn: "ImageDraw", panel: PlotArea, times: Times, curve: EquityLine) -> None:
    drawn.line(_points(panel, times, curve.values), curve.colour, round(curve.width * FINER), joint="curve")


def _fill(drawn: "ImageDraw", panel: PlotArea, times: Times, values: Floats, colour: str) -> None:
    points = _points(panel, times, values)
    top = (panel.top - TOP) * FINER
    drawn.polygon([(points[0][0], top), *points, (points[-1][0], top)], colour)


def _grid(drawn: "ImageDraw", panel: PlotArea, times: Sequence[int], values: Sequence[float]) -> None:
    left = (panel.left - LEFT) * FINER
    top = (panel.top - TOP) * FINER
    right = (panel.right - LEFT) * FINER
    bottom = (panel.bottom - TOP) * FINER
    # in the middle of a pixel, whose colour would else be shared with its neighbour
    columns = (np.floor(panel.x(np.array(times, dtype=np.int64))) - LEFT) * FINER + FINER // 2
    for x in columns.tolist():
        drawn.line((x, top, x, bottom), GRID, FINER)
    rows = (np.floor(panel.y(np.array(values))) - TOP) * FINER + FINER // 2
    for y in rows.tolist():
        drawn.line((left, y, right, y), GRID, FINER)


def _write(
    drawn: "ImageDraw",
    title: str,
    curves: Sequence[EquityLine],
    marks: Sequence[tuple[int, str]],
    values: dict[PlotArea, list[float]],
) -> None:
    from PIL import ImageFont

    large = ImageFont.load_default(15)
    small = ImageFont.load_default(12)
    drawn.text((84, 18), title, INK, large, anchor="ls")
    left = 84.0
    for curve in curves:
        drawn.line((left, 38, left + 22, 38), curve.colour, 3)
        drawn.text((left + 28, 38), curve.label, INK, small, anchor="lm")
        left += 28 + drawn.textlength(curve.label, small) + 20
    upper, lower = values
    for panel, form in ((upper, _amount(values[upper])), (lower, "{:,.1%}".format)):
        for value, y in zip(values[panel], panel.y(np.array(values[panel])).tolist(), strict=True):
            drawn.text((panel.left - 8, y), form(value).replace(".0%", "%"), MUTED, small, anchor="rm")
    drawn.text((lower.left + 6, lower.bottom - 6), "drawdown", MUTED, small, anchor="lb")
    for x, (_, label) in zip(lower.x(np.array([time for time, _ in marks])).tolist(), marks, strict=True):
        # a label at an edge stays within the picture
        half = drawn.textlength(label, small) / 2
        centre = min(x, SIZE[0] - 4 - half)
        drawn.text((centre, lower.bottom + 8), label, MUTED, small, anchor="mt")


def _amount(marks: Sequence[float]) -> Callable[[float], str]:
    """Format of amounts of money, with the digits that tell the marks apart."""
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.1e}"
