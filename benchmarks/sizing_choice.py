"""Choice of the sizing's constants, by the protocol of docs/reference/recipes.md.

python -m benchmarks.sizing_choice [KIND ...]     default: the trees; prints a row per set of constants
python -m benchmarks.sizing_choice [KIND ...] --limits
                                                  the bounds of the turnover instead
    --only SERIES                                 series by the beginning of the name

The models of each kind are fitted once on the folds of the series of `recipes.CHOICE`, and the signals of
each fold are sized by every set of the grid, as in the walk-forward of a retrain; the other constants are
those of the first kind. No set is chosen by the Sharpe ratio on real series: a set must hold the limits of
risk and cost on every kind, and keep enough of a known signal. Among those that do, the one with the least
memory is taken, and of equals the one that keeps most.
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
    TREES,
    Risk,
    Window,
    YearResult,
    bars_of,
    default_plan,
    market_of,
    windows_named,
    years_of,
)
from clm_core.backtest.terms import MarketTerms
from clm_core.backtest.walk_forward import fold_rows, history_start
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Timeframe
from clm_core.models import catalog
from clm_core.models.sizing import bars_per_year, size_positions

SMOOTHING = (12.0, 24.0, 36.0, 60.0, 72.0, 96.0)
SCALES = (40.0, 60.0, 120.0)
BANDS = (0.4, 0.6, 0.8)
"""Below 1: a constant signal wants a full position, and has to reach it from none."""
LIMITS = (None, 60.0, 55.0, 50.0, 45.0, 40.0)
"""Bounds of the turnover a year."""
HALF_LIFE = 48
"""Half-life of the known signal, bars."""
KNOWN_SEEDS = 3
MIN_KEPT = 0.7


@dataclass(frozen=True, eq=False)
class FoldSignal:
    """Signal of a fold's model before sizing."""

    begin: int
    """First row that the model knows."""
    test: slice
    """Test rows of the fold."""
    values: Floats
    """From the first known row to the last test row."""
    bars_per_year: float
    """By the bars of the training."""


@dataclass(frozen=True, eq=False)
class Signal:
    """Signals of a kind on a series, out of sample."""

    kind: str
    window: Window
    bars: Bars
    folds: tuple[FoldSignal, ...]
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


def signals(kinds: list[str], only: str) -> Iterator[Signal]:
    for kind, window in product(kinds, windows_named("choice", only)):
        bars = bars_of(window)
        market = market_of(bars)
        recipe = catalog.recipe(ModelType(kind), {"sizing": "none"}, market.terms.costs)
        plan = default_plan(recipe.model_type, bars)
        folds = []
        for train, test in fold_rows(bars.time, plan):
            begin = history_start(plan, train)
            model = recipe.fit(bars[train], 0)
            values = model.positions(bars[begin : test.stop])
            folds.append(FoldSignal(begin, test, values, bars_per_year(model.trained_on)))
        yield Signal(kind, window, bars, tuple(folds), market.under(NEW_VERSIONS))


def sized_years(signal: Signal, sizing: Sizing) -> list[YearResult]:
    bars = signal.bars
    positions = np.zeros(len(bars))
    for fold in signal.folds:
        known = bars[fold.begin : fold.test.stop]
        sized = size_positions(known, fold.values, sizing, periods_per_year=fold.bars_per_year)
        positions[fold.test] = sized[fold.test.start - fold.begin :]
    tested = slice(signal.folds[0].test.start, len(bars))
    result = signal.market.backtest(bars[tested], positions[tested])
    return years_of(signal.window, bars[tested], result, result)


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
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--only", metavar="SERIES", default="")
    arguments = parser.parse_args()
    console = Console(width=160)
    kinds = list(arguments.kinds)
    with console.status("fitting"):
        fitted = list(signals(kinds, arguments.only))
    declared = catalog.declared(ModelType(kinds[0]))
    own = (declared.sizing if declared is not None else None) or Sizing()
    columns = ("smoothing", "scale", "band", "limit", "bars", "kept", "turnover", "most", "volatility")
    table = Table(*columns, "deep years", "worst drawdown", "holds")
    for sizing in limited(own) if arguments.limits else grid(own):
        each = outcome(fitted, sizing)
        table.add_row(
            f"{sizing.smoothing_half_life:g}",
            f"{sizing.scale_half_life:g}",
            f"{sizing.no_trade_band:g}",
            "none" if sizing.max_turnover is None else f"{sizing.max_turnover:g}",
            f"{sizing.bars_needed(1, Timeframe.H1.seconds)}",
            f"{each.kept:.0%}",
            f"{np.mean(each.turnovers):.0f}",
            f"{max(each.turnovers):.0f}",
            _least_to_most(each.volatilities),
            f"{each.deep_share:.0%}",
            f"{each.worst_drawdown:.0%}",
            "yes" if each.holds else "",
        )
    console.print(table)


def grid(own: Sizing) -> Iterator[Sizing]:
    for smoothing, scale, band in product(SMOOTHING, SCALES, BANDS):
        varied = {"smoothing_half_life": smoothing, "scale_half_life": scale, "no_trade_band": band}
        yield own.model_copy(update=varied)


def limited(own: Sizing) -> Iterator[Sizing]:
    for max_turnover in LIMITS:
        yield own.model_copy(update={"max_turnover": max_turnover})


def _least_to_most(volatilities: list[float]) -> str:
    # none where the cap binds on every series
    return f"{min(volatilities):.1%} to {max(volatilities):.1%}" if volatilities else "capped"


if __name__ == "__main__":
    main()
