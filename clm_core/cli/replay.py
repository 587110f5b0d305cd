"""`clm replay`: the past under the rules of continuous learning."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.output import AsJson, console, parsed_params, plain, print_json
from clm_core.cli.page_options import OpensPage, WritesPage, hand_over
from clm_core.cli.search_options import (
    KindName,
    Plugin,
    Timeframe,
    TrainingParams,
    TrainingSeed,
    validated,
)
from clm_core.cli.settings_in_force import settings_for_change

if TYPE_CHECKING:
    from clm_core.domain.replays import PolicyReplay, ReplayRequest, ReplayResult
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)
SHOWN_EVENTS = 12
Day = typer.Option("--from", metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="First day, in UTC.")


@app.command()
def replay(
    model: Annotated[KindName, typer.Option(help="Kind of model.")],
    symbol: Annotated[str, typer.Option(help="Market, as in `clm data list`.")],
    start: Annotated[datetime, Day],
    end: Annotated[
        datetime,
        typer.Option("--to", metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="Day after the last, in UTC."),
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|FILE.toml",
            help="Policy of the gate: a preset, or a file.",
            show_default="that of the installation",
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRESET|FILE.toml",
            help="Further policy to replay beside, with the same trainings; may be repeated.",
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            help="Days between two scheduled retrains.",
            show_default="as the kind of model is retrained",
        ),
    ] = None,
    plugin: Plugin = None,
    timeframe: Timeframe = "1h",
    days: Annotated[int | None, typer.Option(min=1, help="Days of bars of a training.")] = None,
    param: TrainingParams = None,
    seed: TrainingSeed = 0,
    page: WritesPage = False,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Replay a stretch of the past: what continuous learning would have done, and whether it paid.

    Retrains, the gate, shadow tests, promotions, protection and watch run day by day as in `clm up`, on the
    bars closed by then, in a ledger and a registry of their own. The production beside: always the newest
    version, the first version for ever, and holding.
    """
    from clm_core.domain.kinds import Kind
    from clm_core.domain.replays import ReplayRequest

    kind = Kind.named(model, plugin)
    request = validated(
        ReplayRequest,
        {
            "model_type": kind.model_type,
            "plugin": kind.plugin,
            "symbol": symbol,
            "timeframe": timeframe,
            "start": start.date(),
            "end": end.date(),
            "policy": policy,
            "compare": tuple(compare or ()),
            "every_days": every,
            "dataset_span_days": days,
            "training_params": parsed_params(param or []),
            "seed": seed,
        },
    )
    settings = settings_for_change()
    result = _replayed(settings, request)
    if page or open_page:
        from clm_core.lifecycle.replay import write_page

        hand_over(write_page(settings.home, result), open_page)
    elif as_json:
        print_json({**result.model_dump(mode="json"), "digest": result.digest})
    else:
        _show(result)


def _replayed(settings: "Settings", request: "ReplayRequest") -> "ReplayResult":
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from clm_core.lifecycle import replay as replaying
    from clm_core.platform.object_storage import market_data

    market = market_data(settings.home, settings.storage)
    with Progress(
        TextColumn("{task.description:<32}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        bar = progress.add_task("Opening a ledger of its own", total=1.0)
        return replaying.run(
            settings,
            market,
            request,
            lambda step, share: progress.update(bar, description=step, completed=share),
        )


def _show(result: "ReplayResult") -> None:
    from clm_core.explain.replay_sections import COLUMNS, figures_row, headline

    for each in result.policies:
        plain.print(headline(each), soft_wrap=True)
        table = Table(*COLUMNS, box=SIMPLE_HEAVY)
        for curve in each.curves:
            table.add_row(*figures_row(curve))
        console.print(table)
        _show_events(each)
    plain.print(f"Digest {result.digest[:12]}. Curves and time line: --page or --open; all events: --json.")


def _show_events(replayed: "PolicyReplay") -> None:
    from clm_core.domain.replays import ReplayEventKind

    told = [each for each in replayed.events if each.kind is not ReplayEventKind.RETRAIN]
    for each in told[-SHOWN_EVENTS:]:
        plain.print(
            f"{each.at.astimezone(UTC):%Y-%m-%d %H:%M} {each.kind} {each.version} {each.sentence}",
            soft_wrap=True,
        )
    if len(told) > SHOWN_EVENTS:
        plain.print(f"The last {SHOWN_EVENTS} of {len(told):,} events.")
    if told:
        plain.print("")
