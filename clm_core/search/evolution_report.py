"""Report of an evolution: a self-contained page, and a summary for the terminal and for a run's page."""

from pathlib import Path
from typing import Any

from clm_core.backtest import chart_library
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evolution import EvolveResult, Generation
from clm_core.models import catalog
from clm_core.platform.stack_state import PageAddresses
from clm_core.search import report_parts
from clm_core.search.evolution import Evolution
from clm_core.search.report_parts import BLUE, GREY, Row, formatted, formatted_ratio


def headline(result: EvolveResult) -> str:
    recorded = f", {result.found} of them measured before" if result.found else ""
    unmeasured = f", {result.unmeasured} could not be measured" if result.unmeasured else ""
    degenerate = f", {result.degenerate} degenerate and not ranked" if result.degenerate else ""
    last = result.generations[-1].number if result.generations else None
    generations = "No generation was completed" if last is None else f"Generations 0 to {last}"
    interrupted = " The evolution was interrupted." if result.interrupted else ""
    return f"{generations}: {result.candidates} candidates{recorded}{unmeasured}{degenerate}.{interrupted}"


def warning(result: EvolveResult) -> str | None:
    """Caution about the best candidate, if any is due."""
    best = result.best
    defaults = result.defaults
    unseen = result.unseen
    if best is None or not (best.fitness_score or 0.0) > 0:
        return "No parameters earned more than staying out of the market."
    if defaults is not None and best.id == defaults.id:
        return "No candidate did better than the defaults."
    if unseen is not None and not (unseen.best or 0.0) > max(0.0, unseen.defaults or 0.0):
        return (
            "On the held-out bars the best candidate did no better than the defaults, or than staying out of "
            "the market: the gain may be luck."
        )
    return None


def comparison(result: EvolveResult) -> list[Row]:
    """Parameters, then measures, of the defaults and of the best candidate."""
    rows = [
        (name, formatted(result.default_params[name]), formatted(value))
        for name, value in sorted(catalog.own_params(result.best_params).items())
    ]
    measures = report_parts.search_row(_fitness(result.defaults), _fitness(result.best))
    return [*rows, measures, *report_parts.held_out_rows(result.unseen)]


def _fitness(candidate: StrategyCandidate | None) -> str:
    if candidate is None:
        return formatted_ratio(None)
    return formatted_ratio(candidate.fitness_score, candidate.fitness_interval)


def retrain_command(result: EvolveResult) -> str:
    """The command that trains a model with the best candidate."""
    assert result.best is not None
    return report_parts.retrain_command(result, str(result.best.id))


def generation_row(generation: Generation) -> tuple[str, str, str, str]:
    return (
        str(generation.number),
        str(generation.new),
        formatted_ratio(generation.best, generation.best_interval),
        formatted_ratio(generation.mean),
    )


MAX_NUMBERED = 12
"""Maximum number of generations for which the axis numbers each."""


def write_report(reports: Path, evolution: Evolution, result: EvolveResult) -> EvolveResult:
    """Write the page below the folder of reports; returns the result with the path of the page."""
    folder = reports / evolution.model_id
    folder.mkdir(parents=True, exist_ok=True)
    chart_library.write_library(reports)
    page = folder / f"{evolution.name}.html"
    figures = _figures(evolution, result) if result.ranked else {}
    page.write_text(_render(evolution, result, figures), encoding="utf-8")
    return result.model_copy(update={"report": page})


def _render(evolution: Evolution, result: EvolveResult, figures: dict[str, Any]) -> str:
    return report_parts.render(
        "evolution.html",
        figures,
        evolution=evolution,
        result=result,
        headline=headline(result),
        warning=warning(result),
        comparison=comparison(result) if result.best else [],
        command=retrain_command(result) if result.best else "",
        generations=[generation_row(each) for each in result.generations],
        facts=report_parts.facts_of(evolution)
        | {
            "population": f"{evolution.population} sets of parameters, {evolution.generations} generations "
            "after the first",
            "operators": f"selection {evolution.selection.value}, crossover {evolution.crossover.value}, "
            f"mutation {evolution.mutation.value}",
        },
        space=report_parts.space_rows(evolution),
        names=sorted(evolution.space),
        candidates=[_row(evolution, result, each) for each in result.ranked],
        left_out=max(0, result.candidates - result.unmeasured - result.degenerate - len(result.ranked)),
    )


def _row(evolution: Evolution, result: EvolveResult, candidate: StrategyCandidate) -> dict[str, Any]:
    params = _searched(evolution, result, candidate)
    return {
        "id": str(candidate.id),
        "origin": candidate.origin.value,
        "sharpe": _fitness(candidate),
        "params": {name: formatted(value) for name, value in params.items()},
    }


def _searched(evolution: Evolution, result: EvolveResult, candidate: StrategyCandidate) -> dict[str, Any]:
    """Searched parameters of a candidate; parameters at the defaults are not stored with the candidate."""
    return {name: (result.default_params | candidate.params).get(name) for name in sorted(evolution.space)}


def _figures(evolution: Evolution, result: EvolveResult) -> dict[str, Any]:
    """Fitness by generation, and the Sharpe ratio by the value of each parameter."""
    bests = [each for each in result.generations if each.best is not None]
    intervals = [each.best_interval for each in bests]
    error = {
        "type": "data",
        "symmetric": False,
        "array": [0 if each is None else each.high - each.value for each in intervals],
        "arrayminus": [0 if each is None else each.value - each.low for each in intervals],
        "color": GREY,
    }
    numbers = [each.number for each in bests]
    progress = [
        {"x": numbers, "y": [each.best for each in bests], "name": "best", "error_y": error},
        {"x": numbers, "y": [each.mean for each in bests], "name": "mean", "line": {"dash": "dot"}},
    ]
    ratios = [each.fitness_score for each in result.ranked]
    params = [_searched(evolution, result, each) for each in result.ranked]
    figures = {"generations": _figure(progress, "generation")}
    figures["generations"]["layout"]["xaxis"]["dtick"] = len(numbers) // MAX_NUMBERED + 1
    for name in sorted(evolution.space):
        values = [each[name] for each in params]
        if len({str(value) for value in values}) > 1:
            points = [{"x": values, "y": ratios, "mode": "markers", "name": name}]
            figures[f"slice-{name}"] = _figure(points, name)
    return figures


def _figure(traces: list[dict[str, Any]], title: str) -> dict[str, Any]:
    return {"data": traces, "layout": report_parts.plot_layout(title, "Sharpe ratio")}


def summary_page(addresses: PageAddresses, result: EvolveResult) -> str:
    """Markdown for a run's page; `addresses` are the targets of the links."""
    link = report_parts.report_link(addresses, result.model_id, result.name)
    lines = [f"# {result.name}", "", headline(result), "", link, ""]
    if result.best is not None:
        lines += [
            *([f"**{caution}**", ""] if (caution := warning(result)) else []),
            *report_parts.markdown_comparison("best", comparison(result)),
            f"Candidate `{result.best.id}`, origin {result.best.origin.value}. Train and judge it with",
            "",
            f"`{retrain_command(result)}`",
            "",
        ]
    if result.generations:
        first = result.generations[0]
        last = result.generations[-1]
        lines += [
            f"Best Sharpe ratio of generation 0: {formatted_ratio(first.best, first.best_interval)}, of "
            f"generation {last.number}: {formatted_ratio(last.best, last.best_interval)}; mean "
            f"{formatted_ratio(first.mean)} and {formatted_ratio(last.mean)}.",
            "",
            report_parts.markdown_picture("generations", generations_png(result)),
            "",
            "| generation | new candidates | best Sharpe ratio | mean |",
            "| ---: | ---: | ---: | ---: |",
            *(f"| {' | '.join(generation_row(each))} |" for each in result.generations),
        ]
    return "\n".join(lines)


def generations_png(result: EvolveResult) -> bytes:
    """Best and mean fitness of each generation, 900 x 360 pixels."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = report_parts.new_figure()
    bests = {each.number: each.best for each in result.generations if each.best is not None}
    means = {each.number: each.mean for each in result.generations if each.mean is not None}
    axes.plot(list(bests), list(bests.values()), "o-", color=BLUE, label="best")
    axes.plot(list(means), list(means.values()), "o--", color=GREY, label="mean")
    axes.set(xlabel="generation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return report_parts.png(figure, axes, legend_columns=2)
