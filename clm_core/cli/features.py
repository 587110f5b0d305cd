"""`clm features …`: features of this installation, and the examination of own features on real bars."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.output import AsJson, listing, plain, print_table
from clm_core.cli.settings_in_force import settings_for_look
from clm_core.domain.errors import CLMError

if TYPE_CHECKING:
    from clm_core.market.bars import Bars
    from clm_core.market.own_features import OwnFeature

app = typer.Typer(help="Features of models: list, and examine your own.", no_args_is_help=True)


@app.command("list")
def list_features(as_json: AsJson = False) -> None:
    """List the features that models can use: built-in, of your files and of plug-ins."""
    from clm_core.market import own_features
    from clm_core.market.features import FEATURES

    with own_features.use(settings_for_look().features.files):
        own = own_features.table()
    rows = [
        *((each.name, each.warm_up, each.memory, "built-in", each.description) for each in FEATURES.values()),
        *(
            (each.name, each.warm_up, each.memory, each.origin.source, each.description)
            for each in own.values()
        ),
    ]
    names = ("name", "warm_up", "memory", "source", "description")
    if as_json:
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
        return
    table = listing("Name", "Warm-up", "Memory", "Source", "Formula")
    for name, warm_up, memory, source, description in rows:
        table.add_row(name, f"{warm_up:,}", f"{memory:,}", source, description)
    print_table(table, "")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="Python file to examine; default: all own features in force.")
    ] = None,
    symbol: Annotated[str, typer.Option(help="Series to examine the features on.")] = "BTCUSD",
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rows examined.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Examine own features on real bars: look-ahead, memory, warm-up, and time for 10,000 bars."""
    from clm_core.market import own_features
    from clm_core.platform.object_storage import market_data

    settings = settings_for_look()
    with own_features.use(settings.features.files):
        features = own_features.table() if file is None else own_features.load_file(file)
        market = market_data(settings.home, settings.storage)
        bars = market.bars(symbol, timeframe, closed_by=datetime.now(UTC))
        bars = market.with_series(bars, sorted({name for each in features.values() for name in each.series}))
        results = [_examined(each, bars, seed) for each in features.values()]
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        _print(results)
    if any(each["problem"] for each in results):
        raise typer.Exit(ExitCode.FAILED)


def _examined(feature: "OwnFeature", bars: "Bars", seed: int) -> dict[str, Any]:
    """Measurements of a feature, or the problem found."""
    import numpy as np

    from clm_core.market.feature_check import examine
    from clm_core.market.features import FEATURES, Stretch

    try:
        if feature.name in FEATURES:
            return _problem(feature, f"{feature.origin} has the name of a built-in feature: rename it")
        examined = examine(feature, bars, np.random.default_rng(seed))
        began = time.perf_counter()
        for rows in bars.stretches():
            feature.compute(Stretch(bars[rows]))
        seconds = (time.perf_counter() - began) * 10_000 / len(bars)
    except CLMError as error:
        return _problem(feature, str(error))
    return {**asdict(examined), "milliseconds_per_10k_bars": round(1_000 * seconds, 1), "problem": None}


def _problem(feature: "OwnFeature", text: str) -> dict[str, Any]:
    return {"name": feature.name, "source": feature.origin.source, "problem": text}


def _print(results: Sequence[dict[str, Any]]) -> None:
    table = listing(
        "Name", "Warm-up", "First value", "Memory", "Bars needed", "ms per 10,000 bars", "Verdict"
    )
    for each in results:
        if each["problem"]:
            table.add_row(each["name"], *["-"] * 5, "refused")
        else:
            counts = (f"{each[name]:,}" for name in ("warm_up", "first_value", "memory", "bars_needed"))
            table.add_row(
                each["name"], *counts, f"{each['milliseconds_per_10k_bars']:,.1f}", "no fault found"
            )
    print_table(table, "There is no own feature: name a file, or set \\[features] files in the settings.")
    for each in results:
        if each["problem"]:
            plain.print(f"{each['name']}: {each['problem']}", soft_wrap=True)
