"""Report of a study: a self-contained page with Optuna's plots, and a summary for a run's page."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_core.backtest import chart_library
from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import StopReason, TrialResult, TrialState, TuneResult
from clm_core.models import catalog
from clm_core.platform.database import Database
from clm_core.platform.stack_state import PageAddresses
from clm_core.search import report_parts
from clm_core.search.report_parts import BLUE, GREY, OCHRE, Row, formatted
from clm_core.search.study import has_completed, open_study

if TYPE_CHECKING:
    import optuna

MAX_LISTED = 200
"""Maximum number of trials listed on the page, best first."""
MIN_FOR_IMPORTANCE = 10
"""Minimum number of completed trials for a plot of parameter importance."""
MAX_NUMBERED = 12
"""Maximum number of trials for which the axis numbers each trial."""
STOP_SENTENCES = {
    StopReason.ALL_TRIALS: "All trials have ended.",
    StopReason.TIME_LIMIT: "The time limit was reached.",
    StopReason.INTERRUPTED: "The tuning was interrupted.",
}


def write_report(database: Database, reports: Path, tuning: Tuning, result: TuneResult) -> TuneResult:
    """Write the page below the folder of reports; returns the result with the path of the page."""
    folder = reports / tuning.model_id
    folder.mkdir(parents=True, exist_ok=True)
    chart_library.write_library(reports)
    page = folder / f"{tuning.name}.html"
    with open_study(database, tuning) as study:
        figures = _figures(study.optuna, result) if has_completed(result.trials) else {}
    page.write_text(_render(tuning, result, figures), encoding="utf-8")
    return result.model_copy(update={"report": page})


def retrain_command(result: TuneResult) -> str:
    """The command that trains a model with the best parameters."""
    return report_parts.retrain_command(result, result.study)


def headline(result: TuneResult) -> str:
    states = ", ".join(f"{result.count(state)} {state.value}" for state in TrialState)
    return f"{len(result.trials)} trials: {states}. {STOP_SENTENCES[result.ended]}"


def comparison(result: TuneResult) -> list[Row]:
    """Parameters, then measures, of the defaults and of the best trial."""
    best = result.best
    defaults = result.defaults
    assert best is not None
    default_params: dict[str, Any] = defaults.params if defaults else {}
    rows = [
        (
            name,
            formatted(default_params[name]) if name in default_params else "",
            formatted(best.params[name]),
        )
        # sizing and execution are the same for every trial
        for name in sorted(catalog.own_params(best.params))
    ]
    rows.append(report_parts.search_row(_ratio(defaults), _ratio(best)))
    if len(best.seed_sharpes) > 1:
        name = f"from the lowest to the highest of {len(best.seed_sharpes)} seeds"
        rows.append((name, _seed_range(defaults), _seed_range(best)))
    return [*rows, *report_parts.held_out_rows(result.unseen)]


def warning(result: TuneResult) -> str | None:
    """Caution about the best parameters, if any is due."""
    best = result.best
    unseen = result.unseen
    if best is None:
        return None
    defaults = result.defaults
    if defaults is not None and defaults.state is TrialState.DEGENERATE:
        return f"The defaults are no yardstick: {defaults.cause}."
    if not best.trades or not (best.sharpe_ratio or 0.0) > 0:
        return "No parameters earned more than staying out of the market."
    if best.number == 0:
        return "No trial did better than the defaults."
    if unseen is not None and (unseen.best is None or (unseen.defaults or 0.0) >= unseen.best):
        return (
            "On the held-out bars the best parameters did no better than the defaults: the gain may be luck."
        )
    return None


def summary_page(addresses: PageAddresses, result: TuneResult) -> str:
    """Markdown for a run's page; `addresses` are the targets of the links."""
    link = report_parts.report_link(addresses, result.model_id, result.study)
    lines = [f"# {result.study}", "", headline(result), "", link, ""]
    if result.best is not None:
        lines += [
            *([f"**{caution}**", ""] if (caution := warning(result)) else []),
            *report_parts.markdown_comparison(f"trial {result.best.number}, the best", comparison(result)),
            report_parts.markdown_picture("trials", history_png(result)),
            "",
            f"`{retrain_command(result)}`",
            "",
        ]
    if result.ended is not StopReason.ALL_TRIALS:
        lines += [f"Continue with `clm tune --resume {result.study}`.", ""]
    return "\n".join(lines)


def history_png(result: TuneResult) -> bytes:
    """Sharpe ratio of every trial, and the best so far, 900 x 360 pixels."""
    figure, axes = report_parts.new_figure()
    for state, colour in ((TrialState.COMPLETE, BLUE), (TrialState.PRUNED, OCHRE)):
        sharpes = {
            trial.number: trial.sharpe_ratio
            for trial in result.trials
            if trial.state is state and trial.sharpe_ratio is not None
        }
        axes.scatter(list(sharpes), list(sharpes.values()), color=colour, s=18, label=state.value)
    numbers, records = _records(result)
    axes.step(numbers, records, where="post", color=GREY, label="best so far")
    axes.set(xlabel="trial")
    return report_parts.png(figure, axes, legend_columns=3)


def _ratio(trial: TrialResult | None) -> str:
    if trial is None:
        return report_parts.formatted_ratio(None)
    return report_parts.formatted_ratio(trial.sharpe_ratio, trial.sharpe_interval)


def _seed_range(trial: TrialResult | None) -> str:
    if trial is None or not trial.seed_sharpes:
        return "not measured"
    return f"{min(trial.seed_sharpes):.2f} to {max(trial.seed_sharpes):.2f}"


def _records(result: TuneResult) -> tuple[list[int], list[float]]:
    """Numbers and Sharpe ratios of the trials that were the best so far; the last trial repeats the best."""
    numbers = list[int]()
    values = list[float]()
    for trial in result.trials:
        better = not values or (trial.sharpe_ratio or 0.0) > values[-1]
        if trial.state is TrialState.COMPLETE and trial.sharpe_ratio is not None and better:
            numbers.append(trial.number)
            values.append(trial.sharpe_ratio)
    return [*numbers, result.trials[-1].number], [*values, values[-1]]


def _figures(study: "optuna.Study", result: TuneResult) -> dict[str, Any]:
    from optuna import visualization

    figures = {
        "history": visualization.plot_optimization_history(study, target_name="Sharpe ratio"),
        "parallel": visualization.plot_parallel_coordinate(study, target_name="Sharpe ratio"),
        "slice": visualization.plot_slice(study, target_name="Sharpe ratio"),
    }
    if len(result.trials) <= MAX_NUMBERED:
        figures["history"].update_xaxes(dtick=1)
    if result.count(TrialState.COMPLETE) >= MIN_FOR_IMPORTANCE:
        # Optuna raises where all trials have the same value
        with contextlib.suppress(ValueError, RuntimeError):
            figures["importances"] = visualization.plot_param_importances(study, target_name="Sharpe ratio")
            figures["importances"].update_yaxes(title=None)
    return {name: _plain(figure) for name, figure in figures.items()}


def _plain(figure: Any) -> Any:
    """Data and layout for the page: transparent, without a title."""
    figure.update_layout(template="none", title=None, width=None, height=None, **report_parts.CLEAR)
    figure.update_yaxes(automargin=True)
    return json.loads(figure.to_json())


def _render(tuning: Tuning, result: TuneResult, figures: dict[str, Any]) -> str:
    return report_parts.render(
        "tuning.html",
        figures,
        tuning=tuning,
        result=result,
        headline=headline(result),
        warning=warning(result),
        comparison=comparison(result) if result.best else [],
        command=retrain_command(result),
        facts=report_parts.facts_of(tuning),
        space=report_parts.space_rows(tuning),
        trials=[_row(trial) for trial in _listed(result)],
        left_out=max(0, len(result.trials) - MAX_LISTED),
        names=sorted(tuning.space),
    )


def _listed(result: TuneResult) -> list[TrialResult]:
    order = list(TrialState)

    def place(trial: TrialResult) -> tuple[int, float]:
        return order.index(trial.state), -(trial.sharpe_ratio if trial.sharpe_ratio is not None else -1e9)

    return sorted(result.trials, key=place)[:MAX_LISTED]


def _row(trial: TrialResult) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.value if trial.cause is None else f"{trial.state.value}: {trial.cause}",
        "sharpe": "" if trial.sharpe_ratio is None else _ratio(trial),
        "by_seed": ", ".join(f"{each:.2f}" for each in trial.seed_sharpes),
        "trades": "" if trial.trades is None else f"{trial.trades:,}",
        "params": {name: formatted(value) for name, value in catalog.own_params(trial.params).items()},
    }
