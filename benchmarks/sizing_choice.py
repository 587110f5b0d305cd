"""Choice of the sizing's constants, by the protocol of docs/reference/recipes.md.

python -m benchmarks.sizing_choice [KIND ...]     default: the trees; prints a row per set of constants

The signals of each kind are fitted once on the series of `recipes.CHOICE` and sized by every set of the
grid; the other constants are those of the first kind. No set is chosen by the Sharpe ratio on real series: a
set must hold the limits of risk and cost on every kind, and keep enough of a known signal. Among those that
do, the one with the least memory is taken, and of equals the one that keeps most.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.known_signal import OF_SIDES, compare
from benchmarks.recipes import (
    CHOICE,
    TREES,
    Risk,
    Window,
    YearResult,
    bars_of,
    market_of,
    out_of_sample,
    years_of,
)
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.sizing import size_positions

SMOOTHING = (12.0, 24.0, 36.0, 60.0, 72.0, 96.0)
SCALES = (40.0, 60.0, 120.0)
BANDS = (0.4, 0.6, 0.8)
"""Below 1: a constant signal wants a full position, and has to reach it from none."""
HALF_LIFE = 48
"""Half-life of the known signal, bars."""
KNOWN_SEEDS = 3
MIN_KEPT = 0.7


@dataclass(frozen=True, eq=False)
class Signal:
    """Out-of-sample signal of a kind before sizing."""

    kind: str
    window: Window
    bars: Bars
    rows: slice
    values: Floats
    market: MarketTerms


@dataclass(frozen=True)
class Outcome:
    sizing: Sizing
    kept: float
    """Smallest share kept of the known signal's net Sharpe ratio, over net ratios of 1, 2 and 3."""
    by_kind: dict[str, Risk]

    @property
    def turnovers(self) -> list[float]:
        return [each for risk in self.by_kind.values() for each in risk.turnovers]

    @property
    def volatilities(self) -> list[float]:
        return [each for risk in self.by_kind.values() for each in risk.volatilities]

    @property
    def deep_share(self) -> float:
        """Largest share, over the kinds, of series-years with a deep drawdown."""
        return max(risk.deep_years / risk.years for risk in self.by_kind.values())

    @property
    def worst_drawdown(self) -> float:
        return min(risk.worst_drawdown for risk in self.by_kind.values())

    @property
    def holds(self) -> bool:
        """True if every limit of risk and cost holds for every kind."""
        return self.kept >= MIN_KEPT and not any(risk.missed for risk in self.by_kind.values())


def signals(kinds: list[str]) -> Iterator[Signal]:
    for kind, window in product(kinds, CHOICE):
        bars = bars_of(window)
        market = market_of(bars)
        recipe = catalog.recipe(ModelType(kind), {"sizing": "none"}, market.terms.costs)
        out = out_of_sample(recipe, bars)
        yield Signal(kind, window, bars, out.rows, out.positions, market.under(NEW_VERSIONS))


def sized_years(signal: Signal, sizing: Sizing) -> list[YearResult]:
    values = signal.values.copy()
    values[: signal.rows.start] = 0.0
    positions = size_positions(signal.bars, values, sizing)[signal.rows]
    tested = signal.bars[signal.rows]
    result = signal.market.backtest(tested, positions)
    return years_of(signal.window, tested, result, result)


def outcome(fitted: list[Signal], sizing: Sizing) -> Outcome:
    of_sides = any(signal.kind in OF_SIDES for signal in fitted)
    kept = [
        np.mean(
            [compare(HALF_LIFE, sharpe, sizing, seed, of_sides=of_sides).kept for seed in range(KNOWN_SEEDS)]
        )
        for sharpe in (1.0, 2.0, 3.0)
    ]
    by_kind: dict[str, list[YearResult]] = {}
    for signal in fitted:
        by_kind.setdefault(signal.kind, []).extend(sized_years(signal, sizing))
    return Outcome(sizing, float(min(kept)), {kind: Risk.of(years) for kind, years in by_kind.items()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", default=TREES)
    console = Console(width=160)
    kinds = list(parser.parse_args().kinds)
    with console.status("fitting"):
        fitted = list(signals(kinds))
    declared = catalog.declared(ModelType(kinds[0]))
    own = (declared.sizing if declared is not None else None) or Sizing()
    columns = ("smoothing", "scale", "band", "bars", "kept", "turnover", "most", "volatility")
    table = Table(*columns, "deep years", "worst drawdown", "holds")
    for smoothing, scale, band in product(SMOOTHING, SCALES, BANDS):
        varied = {"smoothing_half_life": smoothing, "scale_half_life": scale, "no_trade_band": band}
        sizing = own.model_copy(update=varied)
        each = outcome(fitted, sizing)
        table.add_row(
            f"{smoothing:g}",
            f"{scale:g}",
            f"{band:g}",
            f"{sizing.bars_needed(1)}",
            f"{each.kept:.0%}",
            f"{np.mean(each.turnovers):.0f}",
            f"{max(each.turnovers):.0f}",
            f"{min(each.volatilities):.1%} to {max(each.volatilities):.1%}",
            f"{each.deep_share:.0%}",
            f"{each.worst_drawdown:.0%}",
            "yes" if each.holds else "",
        )
    console.print(table)


if __name__ == "__main__":
    main()
