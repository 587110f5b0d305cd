"""`clm drift`: kept drift of a production version by feature and day."""

from collections.abc import Sequence
from typing import Annotated

import typer

from clm_core.cli.output import AsJson, console, listing, plain
from clm_core.cli.page_options import OpensPage, WritesPage, hand_over
from clm_core.cli.running import services_with_status

app = typer.Typer(rich_markup_mode=None)
BARS = "▁▂▃▄▅▆▇█"
FULL = 1.5
"""Score of the highest bar; 1 is the distance of the training's own furthest stretch."""


@app.command()
def drift(
    model: Annotated[str, typer.Argument(help="Model id, e.g. xgboost_btcusd_1h.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days of measurements, back from today.")] = 30,
    page: WritesPage = False,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Drift of the features and predictions of the production version, as the watch kept it by day."""
    with services_with_status() as services:
        from clm_core.lifecycle.drift_watch import drift_history, write_drift_page

        history = drift_history(services, model, days)
        path = write_drift_page(services, history) if page or open_page else None
    if path is not None:
        hand_over(path, open_page)
        return
    if as_json:
        typer.echo(history.model_dump_json(indent=2))
        return
    if history.newest_day is None:
        console.print(
            f"The watch has kept no drift of {model}@{history.version} in {days} days: it takes two weeks of "
            "bars after the training, and a training ten times as long. `clm watch` measures now."
        )
        return
    table = listing("feature", "score", "p-value", "PSI", "KS", "drifted", "score by day")
    for each in history.features:
        newest = each.measurements[-1]
        mark = "yes" if each.drifted else ""
        line = bars([measured.score for measured in each.measurements])
        psi, ks = ("" if value is None else f"{value:.2f}" for value in (newest.psi, newest.ks))
        table.add_row(each.name, f"{newest.score:.2f}", f"{newest.p_value:.2g}", psi, ks, mark, line)
    plain.print(table)
    count = sum(each.drifted for each in history.features)
    plain.print(
        f"{model}@{history.version}, {history.newest_day}: {count} of {len(history.features)} have drifted.",
        "Of those reported at most 5 % are false, over features and 30 days.",
        "Score 1: as far from the training as the furthest stretch of the training itself.",
        soft_wrap=True,
    )


def bars(scores: Sequence[float]) -> str:
    """A block for each score, the highest from `FULL` on."""
    steps = (min(int(score / FULL * len(BARS)), len(BARS) - 1) for score in scores)
    return "".join(BARS[step] for step in steps)
