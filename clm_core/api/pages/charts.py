"""Charts as SVG of the page's own colours: equity since the promotion inside the band of the backtest."""

from collections.abc import Iterable
from dataclasses import dataclass

from clm_core.domain.standings import ProductionStanding

WIDTH = 600
HEIGHT = 220
MARGIN = 6
"""Units of the picture, whose size is `WIDTH` by `HEIGHT`."""


@dataclass(frozen=True)
class EquityChart:
    """Coordinates of the parts of a chart, as SVG reads them."""

    band: str
    """Outline of the band; empty without a band."""
    middle: str
    """Line of the median to expect."""
    equity: str
    """Line of the equity."""
    base: float
    """Height of the equity at the promotion."""
    end: tuple[float, float]
    """Last point of the equity."""
    days: float
    """Days at the right edge."""


def equity_chart(standing: ProductionStanding) -> EquityChart | None:
    """Chart of a standing; None without a bar."""
    if not standing.equity:
        return None
    values = [1.0, *(each.equity for each in standing.equity)]
    values += [value for each in standing.band for value in (each.low, each.high)]
    low = min(values)
    high = max(values)
    span = (high - low) or 1.0
    last = (standing.band or standing.equity)[-1].days or 1.0

    def place(days: float, value: float) -> tuple[float, float]:
        x = MARGIN + days / last * (WIDTH - 2 * MARGIN)
        return round(x, 1), round(HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2 * MARGIN), 1)

    upper = [place(each.days, each.high) for each in standing.band]
    lower = [place(each.days, each.low) for each in reversed(standing.band)]
    equity = [place(each.days, each.equity) for each in standing.equity]
    return EquityChart(
        band=_points([*upper, *lower]),
        middle=_points(place(each.days, each.middle) for each in standing.band),
        equity=_points(equity),
        base=place(0.0, 1.0)[1],
        end=equity[-1],
        days=last,
    )


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
