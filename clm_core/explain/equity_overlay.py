"""Equity of two versions over the time out of sample for both."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.backtest import metrics
from clm_core.backtest.tearsheet import drawdown, rows_to_draw
from clm_core.domain import measures
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.market.bars import Bars, Floats

NAME = "equity"
TITLE = "Equity beside each other"
COLOURS = ("#2f6fed", "#c2701c")
DAY = 86_400_000_000_000
MIN_DAYS = 20
"""Fewest common days with a correlation."""
BUCKETS = 150
NOTE = (
    "Out-of-sample positions of both versions, traded under the costs of the home in force, from the first "
    "moment that is out of sample for both. A lead may be luck: only the gate and the shadow judge that."
)
MEASURES = {
    "total_return": measures.signed_percent,
    "volatility": measures.percent,
    "sharpe_ratio": measures.ratio,
    "max_drawdown": measures.percent,
}


@dataclass(frozen=True, eq=False)
class TradedCurve:
    """Out-of-sample returns of a version, after costs."""

    name: str
    """`MODEL@VERSION`."""
    bars: Bars
    """Out-of-sample bars; of a pool, the common axis."""
    returns: Floats
    """Simple return of the equity in each bar, as a fraction, shape (n_bars,)."""

    @property
    def closes(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Close times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,)."""
        return self.bars.time + self.bars.timeframe.nanoseconds

    def within(self, first: int, last: int) -> "TradedCurve":
        """The bars from the open time `first` on that close by `last`, nanoseconds since 1970-01-01 UTC."""
        rows = slice(
            int(np.searchsorted(self.bars.time, first)), int(np.searchsorted(self.closes, last, "right"))
        )
        return TradedCurve(self.name, self.bars[rows], self.returns[rows])

    @property
    def equity(self) -> Floats:
        """Equity after each bar as a multiple of the equity at the start, shape (n_bars,)."""
        return np.asarray(np.cumprod(1.0 + self.returns))

    def measured(self) -> dict[str, float]:
        """Return, volatility, Sharpe ratio and drawdown, by the names of `MEASURES`."""
        a_year = self.bars.periods_per_year
        return {
            "total_return": metrics.total_return(self.returns),
            "volatility": metrics.volatility(self.returns, a_year),
            "sharpe_ratio": metrics.sharpe_ratio(self.returns, a_year),
            "max_drawdown": metrics.max_drawdown(self.returns),
        }


def common_span(one: TradedCurve, other: TradedCurve) -> tuple[TradedCurve, TradedCurve] | None:
    """Both curves over the common time; None for fewer than two common bars of either."""
    if not (len(one.bars) and len(other.bars)):
        return None
    first = max(int(each.bars.time[0]) for each in (one, other))
    last = min(int(each.closes[-1]) for each in (one, other))
    pair = one.within(first, last), other.within(first, last)
    return pair if all(len(each.bars) > 1 for each in pair) else None


def equity_section(one: TradedCurve, other: TradedCurve) -> Section:
    """Both equity curves and drawdowns, with the figures over the common time."""
    pair = common_span(one, other)
    if pair is None:
        return without_curves(
            "No bar was out of sample for both versions: there is no common time to compare."
        )
    figures = [each.measured() for each in pair]
    related = correlation(*pair)
    first = pair[0].bars.start
    last = pair[0].bars.end
    rows = tuple(
        (measures.label_of(name), *(write(each[name]) for each in figures))
        for name, write in MEASURES.items()
    )
    return Section(
        name=NAME,
        title=TITLE,
        sentences=tuple(_sentences(pair, figures, related)),
        tables=(SectionTable(columns=("", *(each.name for each in pair)), rows=rows),),
        charts=(SectionChart(name="curves", height=460, figure=_figure(pair), note=NOTE),),
        values={
            "first": first.isoformat(),
            "last": last.isoformat(),
            **{name: [measures.finite_or_none(each[name]) for each in figures] for name in MEASURES},
            "correlation": measures.finite_or_none(related),
        },
    )


def without_curves(reason: str) -> Section:
    """Section in place of the curves."""
    return Section(name=NAME, title=TITLE, sentences=(reason,))


def correlation(one: TradedCurve, other: TradedCurve) -> float:
    """Correlation of the daily log returns on the UTC days of both, -1..1.

    NaN for fewer than `MIN_DAYS` common days, for returns that never vary, and after a ruin.
    """
    daily = [_daily(each) for each in (one, other)]
    days = sorted(daily[0].keys() & daily[1].keys())
    if len(days) < MIN_DAYS:
        return math.nan
    ours, theirs = (np.array([each[day] for day in days]) for each in daily)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()) or ours.std() == 0 or theirs.std() == 0:
        return math.nan
    return float(np.corrcoef(ours, theirs)[0, 1])


def _daily(curve: TradedCurve) -> dict[int, float]:
    """Log return of each UTC day, by the number of the day."""
    days, first = np.unique(curve.bars.time // DAY, return_index=True)
    # a ruin has a return of -1, whose logarithm is minus infinity
    with np.errstate(divide="ignore"):
        growth = np.log1p(curve.returns)
    return dict(zip(days.tolist(), np.add.reduceat(growth, first).tolist(), strict=True))


def _sentences(
    pair: tuple[TradedCurve, TradedCurve], figures: list[dict[str, float]], related: float
) -> Iterator[str]:
    bars = pair[0].bars
    earned = [measures.signed_percent(each["total_return"]) for each in figures]
    yield (
        f"Out of sample for both from {bars.start:%Y-%m-%d} to {bars.end:%Y-%m-%d}: {earned[0]} for the "
        f"first, {earned[1]} for the second, after costs."
    )
    if math.isfinite(related):
        yield f"The correlation of their daily returns is {measures.ratio(related)}."


def _figure(pair: tuple[TradedCurve, TradedCurve]) -> dict[str, Any]:
    data = [trace for curve, colour in zip(pair, COLOURS, strict=True) for trace in _traces(curve, colour)]
    layout = {
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"type": "date", "anchor": "y2", "hoverformat": "%Y-%m-%d %H:%M"},
        "yaxis": {"domain": [0.36, 1.0], "title": {"text": "equity, 1 at the start"}},
        "yaxis2": {"domain": [0.0, 0.3], "tickformat": ".0%", "title": {"text": "drawdown"}},
    }
    return {"data": data, "layout": layout}


def _traces(curve: TradedCurve, colour: str) -> Iterator[dict[str, Any]]:
    fall = drawdown(curve.equity, 1.0)
    rows = rows_to_draw([curve.equity, fall], BUCKETS)
    # plotly's dates are milliseconds
    times = (curve.closes[rows] // 1_000_000).tolist()
    for values, axis, digits in ((curve.equity, "y", ".3f"), (fall, "y2", ".1%")):
        yield {
            "type": "scatter",
            "mode": "lines",
            "name": curve.name,
            "x": times,
            "y": [round(value, 6) for value in values[rows].tolist()],
            "yaxis": axis,
            "showlegend": axis == "y",
            "line": {"color": colour, "width": 2 if axis == "y" else 1},
            "hovertemplate": f"%{{y:{digits}}}",
        }
