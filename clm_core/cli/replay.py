"""`clm replay`: the past under the rules of continuous learning."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from clm_core.cli.settings_in_force import settings_for_change, settings_for_look
from clm_core.domain.vocabulary import KnownWorld, PassInterval

if TYPE_CHECKING:
    from clm_core.domain.replays import PolicyReplay, ReplayRequest, ReplayResult
    from clm_core.settings import Settings

app = typer.Typer(rich_markup_mode=None)
SHOWN_EVENTS = 12
WORLD_START = datetime(2020, 1, 1)


def day(name: str, words: str) -> Any:
    return typer.Option(name, metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help=words, show_default=False)


@app.command()
def replay(
    model: Annotated[KindName, typer.Option(help="Kind of model.")],
    symbol: Annotated[str | None, typer.Option(help="Market, as in `clm data list`.")] = None,
    world: Annotated[
        KnownWorld | None, typer.Option(help="Made-up market with a known edge, in place of --symbol.")
    ] = None,
    start: Annotated[datetime | None, day("--from", "First day, in UTC; in a world 2020-01-01.")] = None,
    end: Annotated[
        datetime | None, day("--to", "Day after the last, in UTC; in a world a year later.")
    ] = None,
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
            metavar="PRESET|FILE.toml|never|newest",
            help="Further policy to replay beside, with the same trainings; may be repeated. Without a gate: "
            "never (the first version for ever) and newest (each version promoted).",
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
    passes: Annotated[
        PassInterval, typer.Option(help="Interval of watch and shadow; `clm up` has hourly passes.")
    ] = PassInterval.DAILY,
    plugin: Plugin = None,
    timeframe: Timeframe = "1h",
    days: Annotated[int | None, typer.Option(min=1, help="Days of bars of a training.")] = None,
    param: TrainingParams = None,
    seed: TrainingSeed = 0,
    world_seed: Annotated[int, typer.Option(min=0, help="Seed of the bars of the world.")] = 0,
    change: Annotated[
        datetime | None,
        day("--change", "Day from which the edge of the world dying or moving is another; else halfway."),
    ] = None,
    page: WritesPage = False,
    open_page: OpensPage = False,
    as_json: AsJson = False,
) -> None:
    """Replay a stretch of the past: what continuous learning would have done, and whether it paid.

    Retrains, the gate, shadow tests, promotions, protection and watch run as in `clm up`, in daily or hourly
    passes on the bars closed by then, in a ledger and a registry of their own. The production beside: always
    the newest version, the first version for ever, and holding.
    """
    from clm_core.domain.kinds import Kind
    from clm_core.domain.replays import ReplayRequest

    if world is not None:
        start = start or WORLD_START
        end = end or start.replace(year=start.year + 1)
    if start is None or end is None:
        raise typer.BadParameter("name the days: --from YYYY-MM-DD --to YYYY-MM-DD")
    kind = Kind.named(model, plugin)
    request = validated(
        ReplayRequest,
        {
            "model_type": kind.model_type,
            "plugin": kind.plugin,
            "symbol": symbol,
            "world": world,
            "world_seed": world_seed,
            "world_change": None if change is None else change.date(),
            "timeframe": timeframe,
            "start": start.date(),
            "end": end.date(),
            "policy": policy,
            "compare": tuple(compare or ()),
            "every_days": every,
            "passes": passes,
            "dataset_span_days": days,
            "training_params": parsed_params(param or []),
            "seed": seed,
        },
    )
    settings = settings_for_change()
    result = _replayed(settings, request)
    written = _kept_page(settings, result) if page or open_page else None
    if as_json:
        path = None if written is None else str(written)
        print_json({**result.model_dump(mode="json"), "digest": result.digest, "page": path})
        if written is not None and open_page:
            typer.launch(written.as_uri())
    elif written is not None:
        hand_over(written, open_page)
    else:
        _show(result)


@app.command()
def replays(as_json: AsJson = False) -> None:
    """List the replays with a page, newest first: those of Prefect and REST, and of `clm replay --page`."""
    from clm_core.lifecycle.kept_replays import kept_replays

    kept = kept_replays(settings_for_look().home / "reports")
    if as_json:
        print_json(kept.model_dump(mode="json"))
        return
    for each in kept.replays:
        request = each.request
        plain.print(
            f"{each.at.astimezone(UTC):%Y-%m-%d %H:%M} {each.name}: {request.kind} on {request.market} "
            f"{request.timeframe}, {request.start} to {request.end}, digest {each.digest[:12]}",
            soft_wrap=True,
        )
        for line in each.headlines:
            plain.print(f"  {line}", soft_wrap=True)
    for name in kept.unread:
        plain.print(f"{name} was kept by another release: replay again to see it.", soft_wrap=True)
    if not kept.replays and not kept.unread:
        plain.print("No replay has a page yet: `clm replay ... --page` writes one.")


def _kept_page(settings: "Settings", result: "ReplayResult") -> Path:
    from clm_core.lifecycle.kept_replays import keep
    from clm_core.lifecycle.replay import write_page

    written = write_page(settings.home, result)
    keep(written.parent.parent, written, result)
    return written


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
    from clm_core.explain.replay_sections import (
        COLUMNS,
        WORTH_COLUMNS,
        figures_row,
        gateless_sentence,
        headline,
        known_sentence,
        worth_row,
    )

    for each in result.policies:
        plain.print(headline(each), soft_wrap=True)
        if each.known is not None:
            plain.print(known_sentence(each.known), soft_wrap=True)
        table = Table(*COLUMNS, box=SIMPLE_HEAVY)
        for curve in each.curves:
            table.add_row(*figures_row(curve))
        console.print(table)
        table = Table(*WORTH_COLUMNS, box=SIMPLE_HEAVY)
        for worth in each.worth:
            table.add_row(*worth_row(worth))
        console.print(table)
        _show_events(each)
    if gateless_sentence(result.request):
        plain.print(gateless_sentence(result.request), soft_wrap=True)
    plain.print(f"Digest {result.digest[:12]}. Curves and time line: --page or --open; all events: --json.")


def _show_events(replayed: "PolicyReplay") -> None:
    from clm_core.domain.replays import ReplayEventKind

    events = [each for each in replayed.events if each.kind is not ReplayEventKind.RETRAIN]
    for each in events[-SHOWN_EVENTS:]:
        plain.print(
            f"{each.at.astimezone(UTC):%Y-%m-%d %H:%M} {each.kind} {each.version} {each.sentence}",
            soft_wrap=True,
        )
    if len(events) > SHOWN_EVENTS:
        plain.print(f"The last {SHOWN_EVENTS} of {len(events):,} events.")
    if events:
        plain.print("")
