"""Report of an evolution, for the terminal and for a run's page."""

from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.evolution import EvolveResult, Generation
from clm_core.models import catalog
from clm_core.search import report_parts
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
    best, defaults, unseen = result.best, result.defaults, result.unseen
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


def summary_page(result: EvolveResult) -> str:
    """Markdown for a run's page."""
    lines = [f"# {result.name}", "", headline(result), ""]
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
        first, last = result.generations[0], result.generations[-1]
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
