"""Recipes at their defaults on real series, beside the baselines: results in docs/reference/recipes.md.

python -m benchmarks.recipes [KIND ...]             measure the kinds (default: the trees), and write the page
python -m benchmarks.recipes --choice [KIND ...]    the series and years on which the defaults were chosen
python -m benchmarks.recipes --before [KIND ...]    the recipes before sizing, labels and the band
python -m benchmarks.recipes --all                  every kind, both tables; two hours or more
python -m benchmarks.recipes [--choice] KIND --only SERIES [--seed N] [--param NAME=VALUE ...]
                                                    one series, with another seed or other parameters:
                                                    printed, not recorded

The bars are read from CLM_BENCHMARK_DATA, by default ../shared/data. Each kind is walked forward by the plan
of a retrain without further options (`retraining.plans`): folds at fixed dates, 40 % of the default span for
training, costs by market, the execution of new versions. The recipes of before had five equal folds.
A series-year is a year of out-of-sample bars, counted back from the end of a series. Volatility is measured
on the bars with a position: a model without an opinion stays flat, and the share of the bars in the market
is a column of its own. Figures of a kind are kept in benchmarks/recipes.json, so that a kind can be measured
anew alone.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from clm_core.backtest.baselines import run_baselines
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.backtest.walk_forward import OutOfSample, fold_rows, walk_forward
from clm_core.decisions.trading_terms import default_costs
from clm_core.domain.costs import Costs
from clm_core.domain.evaluations import BASELINE_LABELS
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.sizing import Sizing
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import EQUAL_FOLDS, WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.models import catalog
from clm_core.models.contract import Recipe
from clm_core.models.sizing import size_positions
from clm_core.retraining.plans import plan_of

DATA = Path(os.environ.get("CLM_BENCHMARK_DATA", Path(__file__).parents[2] / "shared" / "data"))
FIGURES = Path(__file__).with_name("recipes.json")
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "recipes.md"
MARK = "<!-- below: python -m benchmarks.recipes -->\n"
TREES = (ModelType.XGBOOST.value, ModelType.LIGHTGBM.value)
KINDS = (
    *TREES,
    *(each.value for each in (ModelType.NHITS, ModelType.PATCHTST, ModelType.RL_V2, ModelType.RL_V3)),
)
FREE = Costs(fee_bps=0.0, slippage_bps=0.0)
YEAR = 365 * 86_400_000_000_000
PRICES = ("open", "high", "low", "close")
CAP = 0.95
"""Exposure from which on a position counts as at the cap."""
CAPPED_SHARE = 0.1
DEEP = 0.2
"""Drawdown within a year that counts as deep."""
MAX_DEEP_SHARE = 3 / 20
"""Largest share of series-years with a deep drawdown."""
MAX_DRAWDOWN = 0.35
VOLATILITY = (0.07, 0.12)
"""Bounds of the yearly volatility of a series where the cap does not bind."""
MAX_TURNOVER = 60.0
"""Largest turnover a year of a series."""


@dataclass(frozen=True)
class Window:
    """Bars of a series between two dates, as a retrain would see them."""

    file: str
    symbol: str
    timeframe: str
    start: str
    end: str
    years: int
    """Newest out-of-sample years to report."""
    volatility: float | None = None
    """Yearly volatility to which the returns are scaled; None for bars as they are."""
    series: str | None = None
    """Name of the series; None for a series of its own. Windows of the same name are years of one series."""

    @property
    def name(self) -> str:
        return self.series or f"{self.symbol} {self.timeframe} to {self.end[:7]}"


REPORTED = (
    Window("BTCUSDT_1h", "BTCUSDT", "1h", "2020-09-20", "2025-09-20", 3),
    Window("ETHUSDT_1h", "ETHUSDT", "1h", "2020-09-20", "2025-09-20", 3),
    Window("SOLUSDT_1h", "SOLUSDT", "1h", "2020-09-20", "2025-09-20", 3),
    Window("BTCUSDT_1d", "BTCUSDT", "1d", "2020-09-20", "2025-09-20", 3),
    Window("XAUUSD_1h", "XAUUSD", "1h", "2017-03-05", "2022-03-05", 3),
    Window("SPY_1d", "SPY", "1d", "1998-01-01", "2021-04-01", 4),
    Window("EURUSD_1h", "EURUSD", "1h", "2017-01-01", "2018-01-01", 1),
)
"""Twenty series-years."""
CURRENCY = 0.07
"""Yearly volatility of a currency pair."""
CHOICE = (
    Window("BTCUSDT_1h", "BTCUSDT", "1h", "2017-08-17", "2020-09-20", 2),
    Window("XRPUSDT_1h", "XRPUSDT", "1h", "2020-09-20", "2022-09-20", 1),
    Window("BNBUSDT_1h", "BNBUSDT", "1h", "2020-09-20", "2022-09-20", 1),
    Window("BTCUSD-TT_1h", "BTCUSD", "1h", "2017-07-01", "2019-10-18", 1),
    Window("XAUUSD_1h", "XAUUSD", "1h", "2012-05-17", "2017-03-05", 3),
    Window("AAPL_1h", "AAPL", "1h", "2016-04-01", "2021-04-01", 3),
    Window("SPY_1d", "SPY", "1d", "1998-01-01", "2017-04-01", 4),
    # markets that move little, a year of bars each
    *(
        Window(
            "XAUUSD_1h",
            "XAUUSD",
            "1h",
            f"{year}-01-01",
            f"{year + 1}-01-01",
            1,
            CURRENCY,
            "XAUUSD 1h by year",
        )
        for year in (2013, 2014, 2015, 2016)
    ),
    # daily markets with as many bars as five years of trading every day
    Window("SPY_1d", "SPY", "1d", "1998-01-01", "2005-04-01", 4, series="SPY 1d by seven years"),
    Window("SPY_1d", "SPY", "1d", "2005-04-01", "2012-07-01", 4, series="SPY 1d by seven years"),
)
"""Series and years for choosing defaults; no series-year of `REPORTED` is among them."""


@dataclass(frozen=True)
class YearResult:
    """Results of a model or baseline in a series-year."""

    window: str
    end: str
    """Last day of the year."""
    sharpe: float
    """Annualised, after costs."""
    gross_sharpe: float
    """Annualised, of the same positions without costs."""
    max_drawdown: float
    """Negative fraction, within the year."""
    volatility: float
    """Of the bars with a position; 0 without any. Of all bars in figures without `in_market`."""
    turnover: float
    exposure: float
    is_capped: bool
    """True if the volatility aimed at is out of reach: the market moves less, or the position was at the cap
    of 1 in a tenth of the bars or more."""
    in_market: float | None = None
    """Share of the bars with a position, 0..1; None in figures measured before it was counted."""


@cache
def bars_of(window: Window) -> Bars:
    with tempfile.TemporaryDirectory() as home:
        market = MarketData(Path(home))
        now = datetime.now(UTC)
        path = DATA / f"{window.file}.parquet"
        market.import_file(path, window.symbol, window.timeframe, now=now)
        bars = market.bars(window.symbol, window.timeframe, closed_by=now)
    start, end = (np.datetime64(text, "ns").astype(np.int64) for text in (window.start, window.end))
    bars = bars[int(np.searchsorted(bars.time, start)) : int(np.searchsorted(bars.time, end))]
    return bars if window.volatility is None else scaled(bars, window.volatility)


def scaled(bars: Bars, volatility: float) -> Bars:
    """The bars with log returns multiplied to a yearly volatility."""
    moves = np.diff(np.log(bars.close))
    factor = volatility / (moves.std() * np.sqrt(bars.periods_per_year))
    prices = {name: bars.close[0] * (getattr(bars, name) / bars.close[0]) ** factor for name in PRICES}
    return replace(bars, **prices)


def measure(
    kind: str, window: Window, legacy: bool, seed: int = 0, changed: Mapping[str, str] | None = None
) -> list[YearResult]:
    """Results of a kind at its defaults, newest year last.

    Args:
        legacy: True for the defaults before sizing, labels, the band and folds at fixed dates.
        changed: training parameters in place of the defaults.
    """
    bars = bars_of(window)
    market = market_of(bars)
    model_type = ModelType(kind)
    params = catalog.stored_params(model_type, {}) if legacy else {}
    recipe = catalog.recipe(model_type, {**params, **(changed or {})}, market.terms.costs)
    out = out_of_sample(recipe, bars, EQUAL_FOLDS if legacy else None, seed)
    traded = market.under(recipe.execution)
    free = MarketTerms(traded.terms.model_copy(update={"costs": FREE}))
    tested = bars[out.rows]
    positions = out.positions[out.rows]
    return years_of(window, tested, traded.backtest(tested, positions), free.backtest(tested, positions))


def out_of_sample(recipe: Recipe, bars: Bars, folds: int | None = None, seed: int = 0) -> OutOfSample:
    """Walk-forward by the plan of a retrain with the default days of bars.

    Args:
        folds: number of equal folds in place of folds at fixed dates.
    """
    return walk_forward(recipe, bars, default_plan(recipe.model_type, bars, folds), seed)


def default_plan(model_type: ModelType, bars: Bars, folds: int | None = None) -> WalkForwardPlan:
    request = RetrainRequest(model_type=model_type, symbol=bars.symbol, timeframe=bars.timeframe.value)
    return plan_of(WalkForwardPlan(folds=folds), request, bars)


def measure_baselines(window: Window) -> dict[str, list[YearResult]]:
    """Results of the three baselines under the default sizing and execution, by name; on the bars on which
    trees are tested."""
    bars = bars_of(window)
    market = market_of(bars).under(NEW_VERSIONS)
    free = MarketTerms(market.terms.model_copy(update={"costs": FREE}))
    _, first = fold_rows(bars.time, default_plan(ModelType.XGBOOST, bars))[0]
    rows = slice(first.start, len(bars))
    paid = run_baselines(market, bars, rows, _sized)
    unpaid = run_baselines(free, bars, rows, _sized)
    return {
        one.name: years_of(window, bars[rows], one.result, other.result)
        for one, other in zip(paid, unpaid, strict=True)
    }


def _sized(bars: Bars, signal: Floats) -> Floats:
    return size_positions(bars, signal, Sizing())


def market_of(bars: Bars) -> MarketTerms:
    return MarketTerms(TradingTerms(costs=default_costs(bars.symbol, str(bars.calendar)).costs))


def years_of(window: Window, bars: Bars, paid: Backtest, free: Backtest) -> list[YearResult]:
    """Results of each of the newest years, oldest first."""
    last = int(bars.time[-1]) + bars.timeframe.nanoseconds
    edges = [int(np.searchsorted(bars.time, last - years * YEAR)) for years in range(window.years, -1, -1)]
    return [_year(window, bars, paid, free, slice(*edge)) for edge in pairwise(edges)]


def _year(window: Window, bars: Bars, paid: Backtest, free: Backtest, rows: slice) -> YearResult:
    year = bars[rows]
    annual = bars.periods_per_year
    own = paid.returns[rows]
    moves = np.diff(year.close) / year.close[:-1]
    equity = np.cumprod(np.concatenate([[1.0], 1.0 + own]))
    held = paid.exposure[rows] != 0
    return YearResult(
        window=window.name,
        end=f"{year.end:%Y-%m-%d}",
        sharpe=_sharpe(own, annual),
        gross_sharpe=_sharpe(free.returns[rows], annual),
        max_drawdown=float((equity / np.maximum.accumulate(equity) - 1.0).min()),
        volatility=float(own[held].std() * np.sqrt(annual)) if held.any() else 0.0,
        turnover=float(paid.turnover[rows].mean() * annual),
        exposure=float(np.abs(paid.exposure[rows]).mean()),
        is_capped=bool(
            moves.std() * np.sqrt(annual) < Sizing().target_volatility
            or np.mean(np.abs(paid.exposure[rows]) >= CAP) >= CAPPED_SHARE
        ),
        in_market=float(held.mean()),
    )


def _sharpe(returns: Floats, annual: float) -> float:
    deviation = returns.std()
    return float(returns.mean() / deviation * np.sqrt(annual)) if deviation > 0 else 0.0


def summary(results: Sequence[YearResult]) -> list[str]:
    """Cells of a row: the mean over the series-years, and the worst."""
    sharpes = np.array([each.sharpe for each in results])
    risk = Risk.of(results)
    return [
        f"{sharpes.mean():.2f} ± {sharpes.std(ddof=1) / np.sqrt(len(sharpes)):.2f}",
        f"{np.mean([each.gross_sharpe for each in results]):.2f}",
        f"{risk.worst_drawdown:.0%}",
        f"{risk.deep_years} of {len(results)}",
        # of all series if every cap binds
        _least_mean_most(risk.volatilities or [series_volatility(years) for years in held(results)]),
        f"{np.mean(risk.turnovers):.0f} / {max(risk.turnovers):.0f}",
        f"{np.mean([each.exposure for each in results]):.0%}",
        _in_market(results),
        ", ".join(risk.missed) or "none",
    ]


def _least_mean_most(volatilities: Sequence[float]) -> str:
    if not volatilities:
        return "not measurable"
    return f"{min(volatilities):.1%} / {np.mean(volatilities):.1%} / {max(volatilities):.1%}"


@dataclass(frozen=True)
class Risk:
    """Figures under the limits of docs/reference/recipes.md."""

    years: int
    worst_drawdown: float
    """Negative fraction, within a series-year."""
    deep_years: int
    """Series-years with a drawdown beyond `DEEP`."""
    volatilities: tuple[float, ...]
    """Of each series with positions and without a binding cap."""
    turnovers: tuple[float, ...]
    """Mean turnover a year of each series."""

    @classmethod
    def of(cls, results: Sequence[YearResult]) -> "Risk":
        series = by_series(results)
        free = [years for years in held(results) if not any(year.is_capped for year in years)]
        return cls(
            years=len(results),
            worst_drawdown=min(each.max_drawdown for each in results),
            deep_years=sum(each.max_drawdown < -DEEP for each in results),
            volatilities=tuple(series_volatility(years) for years in free),
            turnovers=tuple(float(np.mean([each.turnover for each in years])) for years in series),
        )

    @property
    def missed(self) -> tuple[str, ...]:
        """Names of the broken limits."""
        held = {
            "drawdown": self.worst_drawdown >= -MAX_DRAWDOWN,
            "deep years": self.deep_years <= MAX_DEEP_SHARE * self.years,
            "volatility": all(VOLATILITY[0] <= each <= VOLATILITY[1] for each in self.volatilities),
            "turnover": all(each <= MAX_TURNOVER for each in self.turnovers),
        }
        return tuple(name for name, holds in held.items() if not holds)


def _in_market(results: Sequence[YearResult]) -> str:
    shares = [each.in_market for each in results if each.in_market is not None]
    return f"{np.mean(shares):.0%}" if shares else "not counted"


def series_volatility(years: Sequence[YearResult]) -> float:
    """Mean over the years of a series, weighted by the bars with a position; one at least has any."""
    weights = [1.0 if year.in_market is None else year.in_market for year in years]
    return float(np.average([year.volatility for year in years], weights=weights))


def held(results: Sequence[YearResult]) -> list[list[YearResult]]:
    """Years of each series with any position."""
    return [years for years in by_series(results) if any(year.in_market != 0 for year in years)]


def by_series(results: Sequence[YearResult]) -> list[list[YearResult]]:
    names = dict.fromkeys(each.window for each in results)
    return [[each for each in results if each.window == name] for name in names]


HEADINGS = (
    "",
    "Sharpe net",
    "gross",
    "worst drawdown",
    "years below -20 %",
    "volatility of a series, least / mean / most",
    "turnover a year of a series, mean / most",
    "exposure",
    "in the market",
    "limits missed",
)


def page(figures: dict[str, Any]) -> str:
    """Tables in Markdown of every measured set of series."""
    parts = []
    for part, heading in PARTS.items():
        rows = figures.get(part, {})
        if not rows:
            continue
        years = {name: [YearResult(**each) for each in row["years"]] for name, row in rows.items()}
        count = max(map(len, years.values()))
        lines = [
            " | ".join([f"| {name}", *summary(results)]) + " |" for name, results in years.items() if results
        ]
        head = "| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS)
        parts.append(f"## {heading}\n\n{count} series-years.\n\n{head}\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


PARTS = {
    "reported": "Defaults, on series and years not used to choose them",
    "before": "The same before sizing, labels and the rebalancing band",
    "choice": "Series and years on which the defaults were chosen",
}


def windows_of(part: str) -> tuple[Window, ...]:
    return CHOICE if part == "choice" else REPORTED


def windows_named(part: str, name: str) -> list[Window]:
    """Windows of a part by the beginning of the series' name."""
    windows = [window for window in windows_of(part) if window.name.startswith(name)]
    if not windows:
        names = ", ".join(dict.fromkeys(window.name for window in windows_of(part)))
        raise SystemExit(f"no series begins with {name!r}: choose one of {names}")
    return windows


def show(part: str, kinds: Sequence[str], name: str, seed: int, changed: Mapping[str, str]) -> None:
    """Print the results of series by the beginning of the name, without a record."""
    windows = windows_named(part, name)
    for kind in kinds:
        years = [
            year for window in windows for year in measure(kind, window, part == "before", seed, changed)
        ]
        for year in years:
            print(
                f"{kind} {year.window} year to {year.end}: Sharpe ratio {year.sharpe:.2f}, "
                f"drawdown {year.max_drawdown:.0%}, volatility {year.volatility:.1%}, "
                f"turnover {year.turnover:.0f}"
            )
        risk = Risk.of(years)
        print(
            f"{kind}: turnover of a series at most {max(risk.turnovers):.0f}; "
            f"limits missed: {', '.join(risk.missed) or 'none'}"
        )


def run(part: str, kinds: Sequence[str]) -> None:
    windows = windows_of(part)
    console = Console()
    baselines: dict[str, list[YearResult]] = {}
    for window in windows:
        for name, years in measure_baselines(window).items():
            baselines.setdefault(BASELINE_LABELS[name], []).extend(years)
    record(part, baselines)
    for kind in kinds:
        started = time.monotonic()
        results = []
        for window in windows:
            with console.status(f"{kind} on {window.name}"):
                results += measure(kind, window, legacy=part == "before")
        record(part, {kind: results})
        console.print(f"{kind:<10} {time.monotonic() - started:6.0f} s  " + "  ".join(summary(results)))


def record(part: str, rows: dict[str, list[YearResult]]) -> None:
    """Keep the results of rows of a part, and write the page.

    The file is read anew: another kind may have been measured meanwhile.
    """
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept = figures.setdefault(part, {})
    for name, years in rows.items():
        kept[name] = {"years": [asdict(year) for year in years]}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    PAGE.write_text(PAGE.read_text().split(MARK)[0] + MARK + "\n" + page(figures))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", default=TREES)
    parser.add_argument("--only", metavar="SERIES", help="beginning of the name of a series; not recorded")
    parser.add_argument("--seed", type=int, default=0, help="with --only: seed of every fit")
    parser.add_argument(
        "--param", nargs="+", default=[], metavar="NAME=VALUE", help="with --only: training parameters"
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--choice", action="store_true")
    part.add_argument("--before", action="store_true")
    part.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    if arguments.all:
        for each in ("reported", "before"):
            run(each, KINDS)
        return
    if (arguments.seed or arguments.param) and not arguments.only:
        parser.error("--seed and --param need --only: the tables have the seed 0 and the defaults")
    part_name = "choice" if arguments.choice else "before" if arguments.before else "reported"
    if arguments.only:
        changed = dict(each.split("=", 1) for each in arguments.param)
        show(part_name, arguments.kinds, arguments.only, arguments.seed, changed)
        return
    run(part_name, arguments.kinds)


if __name__ == "__main__":
    main()
