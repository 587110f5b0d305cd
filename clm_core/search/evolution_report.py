"""What people are told of an evolution."""

import io
from base64 import b64encode

from clm_core.domain.evolution import EvolveResult, Generation
from clm_core.search.tuning_report import COMPLETE, MUTED, ratio, written


def headline(result: EvolveResult) -> str:
    found = f", {result.found} of them measured before" if result.found else ""
    failed = f", {result.unmeasured} could not be measured" if result.unmeasured else ""
    last = result.generations[-1].number if result.generations else None
    bred = "No generation was finished" if last is None else f"Generations 0 to {last}"
    why = " It was interrupted." if result.interrupted else ""
    return f"{bred}: {result.candidates} candidates{found}{failed}.{why}"


def warning(result: EvolveResult) -> str | None:
    """What somebody who only sees the best should know."""
    best, defaults, unseen = result.best, result.defaults, result.unseen
    if best is None or not (best.fitness_score or 0.0) > 0:
        return "Nothing was found that earns more than staying out of the market."
    if defaults is not None and best.id == defaults.id:
        return "Nothing that was tried did better than the defaults."
    if unseen is not None and not (unseen.best or 0.0) > max(0.0, unseen.defaults or 0.0):
        return (
            "On the unseen bars the best did no better than the defaults, or than staying out of the market: "
            "what it gained may be luck."
        )
    return None


def comparison(result: EvolveResult) -> list[tuple[str, str, str]]:
    """A row a parameter and a measure: its name, of the defaults, of the best."""
    rows = [
        (name, written(result.default_params[name]), written(value))
        for name, value in sorted(result.best_params.items())
    ]
    rows.append(
        (
            "Sharpe ratio on the bars searched on",
            ratio(result.defaults.fitness_score if result.defaults else None),
            ratio(result.best.fitness_score if result.best else None),
        )
    )
    if (unseen := result.unseen) is not None:
        rows.append(
            (f"Sharpe ratio on {unseen.bars:,} unseen bars", ratio(unseen.defaults), ratio(unseen.best))
        )
    return rows


def retrain_command(result: EvolveResult) -> str:
    """What trains a model with the best candidate."""
    assert result.best is not None
    plugin = f" --plugin {result.plugin}" if result.plugin else ""
    return (
        f"clm retrain --model {result.model_type.value}{plugin} --symbol {result.symbol} "
        f"--timeframe {result.timeframe} --days {result.dataset_span_days} --params-from {result.best.id}"
    )


def generation_row(generation: Generation) -> tuple[str, str, str, str]:
    return (
        str(generation.number),
        str(generation.new),
        ratio(generation.best),
        ratio(generation.mean),
    )


def summary_page(result: EvolveResult) -> str:
    """Markdown for a run's page."""
    lines = [f"# {result.name}", "", headline(result), ""]
    if result.best is not None:
        lines += [
            *([f"**{told}**", ""] if (told := warning(result)) else []),
            "| | defaults | the best |",
            "| --- | --- | --- |",
            *(f"| {name} | {theirs} | {ours} |" for name, theirs, ours in comparison(result)),
            "",
            f"Candidate `{result.best.id}`, of origin {result.best.origin.value}. Train and judge it with",
            "",
            f"`{retrain_command(result)}`",
            "",
        ]
    if result.generations:
        first, last = result.generations[0], result.generations[-1]
        lines += [
            f"Best Sharpe ratio of generation 0: {ratio(first.best)}, of generation {last.number}: "
            f"{ratio(last.best)}; mean {ratio(first.mean)} and {ratio(last.mean)}.",
            "",
            f"![generations](data:image/png;base64,{b64encode(generations_png(result)).decode()})",
            "",
            "| generation | new candidates | best Sharpe ratio | mean |",
            "| ---: | ---: | ---: | ---: |",
            *(f"| {' | '.join(generation_row(each))} |" for each in result.generations),
        ]
    return "\n".join(lines)


def generations_png(result: EvolveResult) -> bytes:
    """Best and mean of each generation, 900 x 360 pixels."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    bests = {each.number: each.best for each in result.generations if each.best is not None}
    means = {each.number: each.mean for each in result.generations if each.mean is not None}
    axes.plot(list(bests), list(bests.values()), "o-", color=COMPLETE, label="best")
    axes.plot(list(means), list(means.values()), "o--", color=MUTED, label="mean")
    axes.set(xlabel="generation", ylabel="Sharpe ratio, out of sample")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, ncols=2)
    axes.grid(color="#e8ecf2", linewidth=0.8)
    axes.spines[:].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
