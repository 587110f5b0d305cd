"""Report of a search for strategies, for the terminal and for a run's page."""

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from clm_core.backtest import chart_library
from clm_core.domain.evaluations import ratio_cell
from clm_core.domain.measures import NOT_MEASURED
from clm_core.domain.strategy_search import FoundStrategy, PeriodResult, StrategySearchResult, shown_params
from clm_core.platform.stack_state import PageAddresses
from clm_core.search import report_parts
from clm_core.search.report_parts import BLUE, GREY, OCHRE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LISTED = 12
"""Maximum number of strategies of the front in a table, spread over the front."""
MAX_DRAWN = 40
"""Maximum number of strategies of the front in the picture."""
COLUMNS = (
    "strategy",
    "parameters",
    "Sharpe",
    "deflated",
    "PBO",
    "drawdown",
    "win rate",
    "trades",
    "Sharpe held out",
    "leads there",
)
PAGE_COLUMNS = ("strategy", "Sharpe", "deflated", "PBO", "trades", "Sharpe held out", "leads there")
"""Columns on a run's page, which has no room for more; the parameters stand below."""


def headline(result: StrategySearchResult) -> str:
    """Number of strategies evaluated, and effective number of trials."""
    if not result.generations:
        return "No generation was completed. The search was interrupted."
    unmeasured = f", {result.unmeasured:,} with too few trades" if result.unmeasured else ""
    interrupted = " The search was interrupted." if result.interrupted else ""
    return (
        f"Generations 0 to {result.generations[-1].number}: {result.candidates:,} strategies{unmeasured}, as "
        f"many as {result.effective_trials:,.0f} independent trials.{interrupted}"
    )


def sentences(result: StrategySearchResult) -> list[str]:
    """Shrinkage on the held-out bars, risk of the choice, and advice."""
    if not result.front:
        return []
    return [each for each in (_shrunk(result), _risk(result), _advice(result)) if each]


def _shrunk(result: StrategySearchResult) -> str:
    if not result.held_out_bars or any(each.held_out is None for each in result.front):
        return "No bars were held out: the front is known from the bars of the choice alone."
    earlier = median([each.searched.sharpe_ratio for each in result.front])
    later = median([each.held_out.sharpe_ratio for each in result.front if each.held_out is not None])
    shrunk = "" if result.shrinkage is None else f", {_less(result.shrinkage)}"
    return (
        f"Median Sharpe ratio of the front: {earlier:.2f} on the bars of the search, {later:.2f} on "
        f"{result.held_out_bars:,} held-out bars{shrunk}."
    )


def _less(shrinkage: float) -> str:
    return f"{shrinkage:.0%} less" if shrinkage >= 0.0 else f"{-shrinkage:.0%} more"


def _risk(result: StrategySearchResult) -> str:
    if result.overfitting is None or result.loss is None:
        return "The risk of the choice could not be measured: too few days, or too few strategies."
    overfitting = f"{result.overfitting:.0%}"
    loss = f"{result.loss:.0%}"
    return f"Probability of backtest overfitting {overfitting}; of a loss on other bars {loss}."


def _advice(result: StrategySearchResult) -> str | None:
    """Caution where no strategy of the front is likely to be better than luck."""
    highest = max((each.deflated_sharpe or 0.0 for each in result.front), default=0.0)
    if highest >= 0.95:
        return None
    return (
        f"No strategy of the front is beyond the luck of {result.effective_trials:,.0f} trials (deflated "
        f"Sharpe ratio of at most {highest:.2f}, the gate asks for 0.95): the front may be luck."
    )


def listed(front: Sequence[FoundStrategy], count: int = MAX_LISTED) -> list[FoundStrategy]:
    """Up to `count` strategies, far apart on the front, by falling first objective.

    The next choice is the farthest strategy, in scores over the ranges, from the choices before (Gonzalez
    1985).
    """
    import numpy as np

    scores = np.array([[each or 0.0 for each in strategy.scores.values()] for strategy in front])
    widths = np.ptp(scores, axis=0)
    points = scores / np.where(widths > 0.0, widths, 1.0)
    chosen = [0]
    distances = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count and distances.max() > 0.0:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return [front[place] for place in sorted(chosen)]


def row(strategy: FoundStrategy) -> tuple[str, ...]:
    """Cells in the order of `COLUMNS`."""
    searched = strategy.searched
    held_out = strategy.held_out
    return (
        strategy.family.value,
        shown_params(strategy.params),
        f"{searched.sharpe_ratio:.2f}",
        NOT_MEASURED if strategy.deflated_sharpe is None else f"{strategy.deflated_sharpe:.2f}",
        NOT_MEASURED if strategy.overfitting is None else f"{strategy.overfitting:.0%}",
        f"{searched.max_drawdown:.1%}",
        NOT_MEASURED if searched.win_rate is None else f"{searched.win_rate:.0%}",
        f"{searched.trades:,}",
        "" if held_out is None else ratio_cell(held_out.sharpe_ratio, held_out.sharpe_interval),
        {None: "", True: "yes", False: "no"}[strategy.on_held_out_front],
    )


def _page_row(cells: Sequence[str]) -> str:
    """Row of a table on a run's page, which has no room for all columns."""
    return (
        f"| {' | '.join(cell for name, cell in zip(COLUMNS, cells, strict=True) if name in PAGE_COLUMNS)} |"
    )


def default_row(strategy: FoundStrategy) -> tuple[str, ...]:
    """Cells of a family at the defaults, in the order of `COLUMNS`."""
    family, *cells = row(strategy)
    return (f"{family} (defaults)", *cells)


def best_by_deflated(result: StrategySearchResult) -> FoundStrategy | None:
    """Strategy of the front with the highest deflated Sharpe ratio, known before the held-out bars."""
    return max(result.front, key=lambda each: each.deflated_sharpe or 0.0, default=None)


def retrain_command(result: StrategySearchResult, strategy: FoundStrategy) -> str:
    """Command for judging a strategy by the gate."""
    return (
        f"clm retrain --model {strategy.family.value} --symbol {result.symbol} "
        f"--timeframe {result.timeframe} --days {result.dataset_span_days} --params-from {strategy.candidate}"
    )


def write_picture(reports: Path, result: StrategySearchResult) -> StrategySearchResult:
    """Write the picture of a front below the folder of reports; the result with the path."""
    if not result.front:
        return result
    folder = reports / result.subject
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{result.name}.png"
    file.write_bytes(front_png(result))
    return result.model_copy(update={"picture": file})


def write_report(reports: Path, result: StrategySearchResult) -> StrategySearchResult:
    """Write the page below the folder of reports; the result with the path."""
    folder = reports / result.subject
    folder.mkdir(parents=True, exist_ok=True)
    chart_library.write_library(reports)
    page = folder / f"{result.name}.html"
    page.write_text(_render(result), encoding="utf-8")
    return result.model_copy(update={"report": page})


def _render(result: StrategySearchResult) -> str:
    best = best_by_deflated(result)
    return report_parts.render(
        "strategies.html",
        _figures(result),
        result=result,
        headline=headline(result),
        sentences=sentences(result),
        columns=COLUMNS,
        rows=[row(each) for each in result.front],
        defaults=[default_row(each) for each in result.defaults],
        command="" if best is None else retrain_command(result, best),
        facts={
            "series": f"{result.symbol} {result.timeframe}, the newest {result.dataset_span_days} days",
            "bars": f"{result.searched_bars:,} searched, {result.held_out_bars:,} held out",
            "strategies": ", ".join(each.value for each in result.families),
            "objectives": ", ".join(each.value for each in result.objectives),
            "generations": f"{len(result.generations):,}",
        },
    )


def _figures(result: StrategySearchResult) -> dict[str, Any]:
    """Front in sample and on the held-out bars, and the hypervolume by generation."""
    if not result.front:
        return {}
    searched = [each.searched for each in result.front]
    held_out = [each.held_out for each in result.front if each.held_out is not None]
    progress = [
        {
            "x": [each.number for each in result.generations],
            "y": [each.hypervolume for each in result.generations],
        }
    ]
    fronts = [_points(searched, "bars of the search")]
    if held_out:
        fronts.append(_points(held_out, "held-out bars"))
    drawn = report_parts.plot_layout("largest drawdown", "Sharpe ratio")
    drawn["xaxis"]["tickformat"] = ".0%"
    return {
        "front": {"data": fronts, "layout": drawn},
        "progress": {"data": progress, "layout": report_parts.plot_layout("generation", "hypervolume")},
    }


def _points(results: Sequence[PeriodResult], name: str) -> dict[str, Any]:
    return {
        "x": [-each.max_drawdown for each in results],
        "y": [each.sharpe_ratio for each in results],
        "mode": "markers",
        "name": name,
    }


def summary_page(addresses: PageAddresses, result: StrategySearchResult) -> str:
    """Markdown for a run's page; `addresses` are the targets of the links."""
    link = report_parts.report_link(addresses, result.subject, result.name)
    lines = [f"# {result.name}", "", headline(result), "", link, ""]
    for each in sentences(result):
        lines += [each, ""]
    if result.front:
        best = best_by_deflated(result)
        assert best is not None
        lines += [
            report_parts.markdown_picture("front", front_png(result)),
            "",
            _page_row(COLUMNS),
            f"| {' | '.join(['---'] + ['---:'] * (len(PAGE_COLUMNS) - 1))} |",
            *(_page_row(row(each)) for each in listed(result.front)),
            *(_page_row(default_row(each)) for each in result.defaults),
            "",
            "Parameters, in the same order:",
            "",
            *(
                f"{number}. {strategy.family.value}: {shown_params(strategy.params)}"
                for number, strategy in enumerate(listed(result.front), 1)
            ),
            "",
            f"{len(result.front)} strategies are on the front. The one with the highest deflated Sharpe "
            "ratio is judged with",
            "",
            f"`{retrain_command(result, best)}`",
        ]
    return "\n".join(lines)


def front_png(result: StrategySearchResult) -> bytes:
    """Front in sample and on the held-out bars, and the hypervolume by generation, 1100 x 420 pixels."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(11, 4.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    front = listed(result.front, MAX_DRAWN)
    for each in front:
        if each.held_out is not None:
            points = (each.searched, each.held_out)
            left.plot(
                [-point.max_drawdown for point in points],
                [point.sharpe_ratio for point in points],
                color=GREY,
                linewidth=0.5,
                alpha=0.5,
            )
    _dots(left, [each.searched for each in front], BLUE, "on the bars of the search")
    _dots(left, [each.held_out for each in front if each.held_out], OCHRE, "the same, on held-out bars")
    left.axhline(0.0, color=GREY, linewidth=0.8)
    left.set(xlabel="largest drawdown", ylabel="Sharpe ratio after costs", title=_title(result))
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.legend(frameon=False)
    numbers = [each.number for each in result.generations]
    right.plot(numbers, [each.hypervolume for each in result.generations], color=BLUE)
    right.set(xlabel="generation", ylabel="hypervolume", title="Progress of the front")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.grid(color=report_parts.GRID, linewidth=0.8)
        axes.spines[:].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _dots(axes: "Axes", results: Sequence[PeriodResult], colour: str, label: str) -> None:
    if results:
        axes.scatter(
            [-each.max_drawdown for each in results],
            [each.sharpe_ratio for each in results],
            color=colour,
            s=22,
            label=label,
            zorder=3,
        )


def _title(result: StrategySearchResult) -> str:
    title = f"{result.symbol} {result.timeframe}: {len(result.front)} strategies of the front"
    return title if result.shrinkage is None else f"{title}, {_less(result.shrinkage)} Sharpe held out"
