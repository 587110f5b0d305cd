"""Parts common to the reports of tuning and evolution."""

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clm_core.backtest import chart_library
from clm_core.backtest.tearsheet import packed
from clm_core.domain.displayed_params import readable
from clm_core.domain.evaluations import IntervalEstimate, ratio_cell
from clm_core.domain.evolution import EvolveResult
from clm_core.domain.measures import NOT_MEASURED
from clm_core.domain.search_space import Between, SearchDimension
from clm_core.domain.searches import HeldOutSharpe, Search
from clm_core.domain.terms import cost_sentence
from clm_core.domain.tuning import TuneResult
from clm_core.domain.vocabulary import RuleFamily
from clm_core.platform.stack_state import PageAddresses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#2f6fed"
OCHRE = "#9a6700"
GREY = "#8a94a6"
GRID = "#e8ecf2"

Row = tuple[str, str, str]
"""A row of the comparison: name of a parameter or measure, value of the defaults, value of the best."""


def formatted(value: Any) -> str:
    """A parameter's value; numbers with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def formatted_ratio(value: float | None, interval: IntervalEstimate | None = None) -> str:
    """Sharpe ratio with the interval of 95 %, where one is known."""
    return NOT_MEASURED if value is None else ratio_cell(value, interval)


def search_row(defaults: str, best: str) -> Row:
    """The row of the searched bars.

    Args:
        defaults, best: ratios of the defaults and of the best as `formatted_ratio` writes them.
    """
    return ("Sharpe ratio on the bars of the search", defaults, best)


def held_out_rows(sharpe: HeldOutSharpe | None) -> list[Row]:
    """The row of the held-out bars, if any are held out."""
    if sharpe is None:
        return []
    name = f"Sharpe ratio on {sharpe.bars:,} held-out bars"
    defaults = formatted_ratio(sharpe.defaults, sharpe.defaults_interval)
    return [(name, defaults, formatted_ratio(sharpe.best, sharpe.best_interval))]


def markdown_comparison(best_title: str, rows: Sequence[Row]) -> list[str]:
    return [
        f"| | defaults | {best_title} |",
        "| --- | --- | --- |",
        *(f"| {name} | {defaults} | {best} |" for name, defaults, best in rows),
        "",
    ]


def markdown_picture(title: str, png: bytes) -> str:
    """The picture as a data URI, which a run's page shows without a file."""
    return f"![{title}](data:image/png;base64,{b64encode(png).decode()})"


def retrain_command(result: TuneResult | EvolveResult, params_from: str) -> str:
    """The command that trains a model with the best parameters.

    Args:
        params_from: name of a study, or id of a candidate.
    """
    plugin = f" --plugin {result.plugin}" if result.plugin else ""
    model = f"{result.model_type.value}{plugin}"
    if result.plugin in list(RuleFamily):
        model = str(result.kind)
    return (
        f"clm retrain --model {model} --symbol {result.symbol} "
        f"--timeframe {result.timeframe} --days {result.dataset_span_days} --params-from {params_from}"
    )


def report_link(addresses: PageAddresses, model_id: str, name: str) -> str:
    """Link to the report of a search on the home page."""
    address = addresses.search(model_id, name)
    return f"[Report]({address})" if address else "`clm up` serves the report on the page of the model"


def render(template: str, figures: dict[str, Any], **values: Any) -> str:
    """Page of a template, in the style and with the scripts of the tear sheet.

    Args:
        figures: data and layout of each plot, by the id of the place.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=ChoiceLoader([PackageLoader("clm_core.search"), PackageLoader("clm_core.backtest")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(
        figures=packed(figures), plotted=figures.keys(), library=chart_library.reference(), **values
    )


CLEAR: dict[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"t": 30, "r": 20, "b": 60, "l": 70},
    "font": {"size": 11},
}
"""Layout of every plot."""


def plot_layout(x: str, y: str) -> dict[str, Any]:
    """Layout of a plot with titles of the axes."""
    return CLEAR | {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "automargin": True}}


def space_rows(search: Search) -> list[tuple[str, str, str]]:
    """Name, values and default of each searched parameter."""
    return [
        (name, _range(dimension), formatted(dimension.default))
        for name, dimension in sorted(search.space.items())
    ]


def _range(dimension: SearchDimension) -> str:
    if not isinstance(dimension.values, Between):
        return ", ".join(map(str, dimension.values.choices))
    scale = ", logarithmic" if dimension.values.log else ""
    return f"{dimension.values.low:g} to {dimension.values.high:g}{scale}"


def facts_of(search: Search) -> dict[str, str]:
    """Definition of a search, formatted."""
    plan = search.plan
    fixed = readable(search.model_type, search.fixed).items()
    return {
        "series": f"{search.symbol} {search.timeframe}, the newest {search.dataset_span_days} days",
        "content hash": search.data_snapshot,
        "held out": f"the newest {search.holdout:.0%} of the bars",
        "walk-forward": f"{plan.equal_folds} folds, embargo {plan.embargo_bars} bars",
        "costs": cost_sentence(search.terms),
        "fixed parameters": ", ".join(f"{name} {formatted(value)}" for name, value in fixed) or "none",
        "seeds": ", ".join(str(search.seed + number) for number in range(search.seeds)),
        "started": f"{search.created_at:%Y-%m-%d %H:%M} UTC, by {search.requested_by}",
    }


def new_figure() -> "tuple[Figure, Axes]":
    """An empty figure, 900 x 360 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    return figure, figure.subplots()


def png(figure: "Figure", axes: "Axes", legend_columns: int) -> bytes:
    """The figure with legend and grid."""
    axes.set(ylabel="Sharpe ratio, out of sample")
    axes.legend(frameon=False, ncols=legend_columns)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[:].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
