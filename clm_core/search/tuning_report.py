"""The report of a study: a self-contained page with Optuna's plots, and a summary for other pages."""

import contextlib
import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from clm_core.backtest.tearsheet import packed_plotly, script_safe
from clm_core.domain.search_space import Between, Tuned
from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import Ended, TrialState, Tried, TuneResult
from clm_core.search.study import is_tuned, open_study
from clm_core.services import Services

if TYPE_CHECKING:
    import optuna

COMPLETE, PRUNED, MUTED = "#2f6fed", "#9a6700", "#8a94a6"
LISTED = 200
"""Trials the page lists, the best."""
FEWEST_FOR_IMPORTANCE = 10
"""Trials, completed, below which nothing can be said of which parameters matter."""
NUMBERED = 12
"""Trials, at most, each of which has its number on the axis."""
WHY = {
    Ended.ALL_TRIALS: "All trials have ended.",
    Ended.TIME_LIMIT: "The time was over.",
    Ended.INTERRUPTED: "It was interrupted.",
}


def write_report(services: Services, tuning: Tuning, result: TuneResult) -> TuneResult:
    """Write the page under the home folder; returns the result with its place."""
    folder = services.reports / tuning.model_id
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{tuning.name}.html"
    with open_study(services.database, tuning) as study:
        figures = _figures(study.optuna, result) if is_tuned(result.trials) else {}
    page.write_text(_render(tuning, result, figures), encoding="utf-8")
    return result.model_copy(update={"report": page})


def retrain_command(result: TuneResult) -> str:
    """What trains a model with the best parameters."""
    plugin = f" --plugin {result.plugin}" if result.plugin else ""
    return (
        f"clm retrain --model {result.model_type.value}{plugin} --symbol {result.symbol} "
        f"--timeframe {result.timeframe} --days {result.dataset_span_days} --params-from {result.study}"
    )


def headline(result: TuneResult) -> str:
    counted = ", ".join(f"{result.count(state)} {state.value}" for state in TrialState)
    return f"{len(result.trials)} trials: {counted}. {WHY[result.ended]}"


def comparison(result: TuneResult) -> list[tuple[str, str, str]]:
    """A row a parameter and a measure: its name, of the defaults, of the best."""
    best, defaults = result.best, result.defaults
    assert best is not None
    theirs: dict[str, Any] = defaults.params if defaults else {}
    rows = [
        (name, written(theirs[name]) if name in theirs else "", written(best.params[name]))
        for name in sorted(best.params)
    ]
    rows.append(
        (
            "Sharpe ratio on the bars searched on",
            ratio(defaults.sharpe_ratio if defaults else None),
            ratio(best.sharpe_ratio),
        )
    )
    if len(best.seed_sharpes) > 1:
        name = f"from the lowest to the highest of {len(best.seed_sharpes)} seeds"
        rows.append((name, _spread(defaults), _spread(best)))
    if result.unseen is not None:
        unseen = result.unseen
        rows.append(
            (f"Sharpe ratio on {unseen.bars:,} unseen bars", ratio(unseen.defaults), ratio(unseen.best))
        )
    return rows


def warning(result: TuneResult) -> str | None:
    """What somebody who only sees the best should know."""
    best, unseen = result.best, result.unseen
    if best is None:
        return None
    if not best.trades or not (best.sharpe_ratio or 0.0) > 0:
        return "Nothing was found that earns more than staying out of the market."
    if best.number == 0:
        return "Nothing that was tried did better than the defaults."
    if unseen is not None and (unseen.best is None or (unseen.defaults or 0.0) >= unseen.best):
        return "On the unseen bars the best did no better than the defaults: what it gained may be luck."
    return None


def summary_page(result: TuneResult) -> str:
    """Markdown for a run's page."""
    lines = [f"# {result.study}", "", headline(result), ""]
    if result.best is not None:
        lines += [
            *([f"**{told}**", ""] if (told := warning(result)) else []),
            f"| | defaults | trial {result.best.number}, the best |",
            "| --- | --- | --- |",
            *(f"| {name} | {theirs} | {ours} |" for name, theirs, ours in comparison(result)),
            "",
            f"![trials](data:image/png;base64,{b64encode(history_png(result)).decode()})",
            "",
            f"`{retrain_command(result)}`",
            "",
        ]
    if result.ended is not Ended.ALL_TRIALS:
        lines += [f"`clm tune --resume {result.study}` goes on.", ""]
    return "\n".join([*lines, f"Report: `{result.report}`"])


def history_png(result: TuneResult) -> bytes:
    """Every trial's Sharpe ratio and the best so far, 900 x 360 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    for state, colour in ((TrialState.COMPLETE, COMPLETE), (TrialState.PRUNED, PRUNED)):
        shown = {
            tried.number: tried.sharpe_ratio
            for tried in result.trials
            if tried.state is state and tried.sharpe_ratio is not None
        }
        axes.scatter(list(shown), list(shown.values()), color=colour, s=18, label=state.value)
    numbers, records = _records(result)
    axes.step(numbers, records, where="post", color=MUTED, label="best so far")
    axes.set(xlabel="trial", ylabel="Sharpe ratio, out of sample")
    axes.legend(frameon=False, ncols=3)
    axes.grid(color="#e8ecf2", linewidth=0.8)
    axes.spines[:].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ratio(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _spread(tried: Tried | None) -> str:
    if tried is None or not tried.seed_sharpes:
        return "not measured"
    return f"{min(tried.seed_sharpes):.2f} to {max(tried.seed_sharpes):.2f}"


def _records(result: TuneResult) -> tuple[list[int], list[float]]:
    """Where a completed trial was the best so far, and the last trial with the best."""
    numbers, values = list[int](), list[float]()
    for tried in result.trials:
        better = not values or (tried.sharpe_ratio or 0.0) > values[-1]
        if tried.state is TrialState.COMPLETE and tried.sharpe_ratio is not None and better:
            numbers.append(tried.number)
            values.append(tried.sharpe_ratio)
    return [*numbers, result.trials[-1].number], [*values, values[-1]]


def _figures(study: "optuna.Study", result: TuneResult) -> dict[str, Any]:
    from optuna import visualization

    drawn = {
        "history": visualization.plot_optimization_history(study, target_name="Sharpe ratio"),
        "parallel": visualization.plot_parallel_coordinate(study, target_name="Sharpe ratio"),
        "slice": visualization.plot_slice(study, target_name="Sharpe ratio"),
    }
    if len(result.trials) <= NUMBERED:
        drawn["history"].update_xaxes(dtick=1)
    if result.count(TrialState.COMPLETE) >= FEWEST_FOR_IMPORTANCE:
        # of trials that all did the same nothing can be told apart
        with contextlib.suppress(ValueError, RuntimeError):
            drawn["importances"] = visualization.plot_param_importances(study, target_name="Sharpe ratio")
            drawn["importances"].update_yaxes(title=None)
    return {name: _plain(figure) for name, figure in drawn.items()}


def _plain(figure: Any) -> Any:
    """Data and layout, in the page's colours and without a title of its own."""
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template="none",
        title=None,
        width=None,
        height=None,
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        margin={"t": 30, "r": 20, "b": 60, "l": 70},
        font={"size": 11},
    )
    figure.update_yaxes(automargin=True)
    return json.loads(figure.to_json())


def _render(tuning: Tuning, result: TuneResult, figures: dict[str, Any]) -> str:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    templates = Environment(
        # the tear sheet's style, and how it draws
        loader=ChoiceLoader([PackageLoader("clm_core.search"), PackageLoader("clm_core.backtest")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("tuning.html").render(
        tuning=tuning,
        result=result,
        headline=headline(result),
        warning=warning(result),
        comparison=comparison(result) if result.best else [],
        command=retrain_command(result),
        facts=_facts(tuning),
        space=[(name, _range(tuned), written(tuned.default)) for name, tuned in sorted(tuning.space.items())],
        trials=[_row(tried) for tried in _listed(result)],
        left_out=max(0, len(result.trials) - LISTED),
        names=sorted(tuning.space),
        figures=script_safe(figures),
        drawn=figures.keys(),
        plotly=packed_plotly(),
    )


def _listed(result: TuneResult) -> list[Tried]:
    order = list(TrialState)

    def place(tried: Tried) -> tuple[int, float]:
        return order.index(tried.state), -(tried.sharpe_ratio if tried.sharpe_ratio is not None else -1e9)

    return sorted(result.trials, key=place)[:LISTED]


def _row(tried: Tried) -> dict[str, Any]:
    return {
        "number": tried.number,
        "state": tried.state.value if tried.cause is None else f"{tried.state.value}: {tried.cause}",
        "sharpe": "" if tried.sharpe_ratio is None else f"{tried.sharpe_ratio:.2f}",
        "by_seed": ", ".join(f"{each:.2f}" for each in tried.seed_sharpes),
        "trades": "" if tried.trades is None else f"{tried.trades:,}",
        "params": {name: written(value) for name, value in tried.params.items()},
    }


def _range(tuned: Tuned) -> str:
    if not isinstance(tuned.values, Between):
        return ", ".join(map(str, tuned.values.choices))
    scale = ", by factors" if tuned.values.log else ""
    return f"{tuned.values.low:g} to {tuned.values.high:g}{scale}"


def _facts(tuning: Tuning) -> dict[str, str]:
    plan, costs = tuning.plan, tuning.costs
    return {
        "series": f"{tuning.symbol} {tuning.timeframe}, the newest {tuning.dataset_span_days} days",
        "series' hash": tuning.data_snapshot,
        "held out": f"the newest {tuning.holdout:.0%} of the bars",
        "walk-forward": f"{plan.folds} folds, embargo {plan.embargo_bars} bars",
        "costs": f"{costs.fee_bps:g} bps fee and {costs.slippage_bps:g} bps slippage on each side",
        "fixed parameters": ", ".join(f"{name} {written(value)}" for name, value in tuning.fixed.items())
        or "none",
        "seeds": ", ".join(str(tuning.seed + number) for number in range(tuning.seeds)),
        "begun": f"{tuning.created_at:%Y-%m-%d %H:%M} UTC, by {tuning.requested_by}",
    }
