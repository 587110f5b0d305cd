"""`clm data replace`: stored bars replaced by the bars of a file, an exchange or a database."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from clm_core.cli.bar_sources import fetched_source
from clm_core.cli.output import AsJson, plain, print_json, user

if TYPE_CHECKING:
    from clm_core.market.sources import MarketData
    from clm_core.market.store import Replacement, SeriesManifest
    from clm_core.market.validation import Examined

app = typer.Typer()
LISTED = 10
"""Number of changed values in the preview."""


@app.command()
def replace(
    symbol: Annotated[str, typer.Argument(help="Symbol as in `clm data list`.")],
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME", help="Length of a bar: 1m, 1h, 1d ...")],
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="File with the new bars.")
    ] = None,
    *,
    exchange: Annotated[
        str | None, typer.Option(help="Exchange in ccxt with the new bars, in place of a file.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Database of the settings with the new bars, in place of a file.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="First bar (UTC) to replace; default: the whole series.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last bar (UTC) to replace; a date means the whole day.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, recorded with the new snapshot.")] = "",
    keep_stored: Annotated[
        bool,
        typer.Option("--keep-stored", help="Keep the stored bars that differ from the source's."),
    ] = False,
    calendar: Annotated[
        str | None,
        typer.Option(help="Other calendar of the whole series; without new bars the bars stay."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="Overrule a rule named in a refusal; repeatable.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Another address of the exchange's API.")] = None,
    deadline: Annotated[float, typer.Option(min=1, help="Seconds after which to give up.")] = 900.0,
    yes: Annotated[bool, typer.Option("--yes", help="Replace without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replace stored bars by those of a file, an exchange or a database; shows what would change, then asks.

    The bars are stored as a new snapshot; every earlier snapshot stays readable by its hash. Without --from
    and --to the whole series is replaced. With --json nothing is replaced without --yes. A file that needs
    options to be read goes through `clm data import`, whose refusal has the command that replaces.
    """
    from clm_core.platform.object_storage import market_data
    from clm_core.settings import load_settings

    settings = load_settings()
    market = market_data(settings.home, settings.storage)
    begin = None if first is None else _moment(first, whole_day_end=False)
    end = None if last is None else _moment(last, whole_day_end=True)
    sources = sum((file is not None, exchange is not None, database is not None, keep_stored))
    if sources > 1 or (sources == 0 and calendar is None):
        raise typer.BadParameter(
            "name one source: a FILE, --exchange NAME, --database NAME, --keep-stored or --calendar NAME"
        )
    if keep_stored:
        _keep_stored(market, symbol, timeframe, begin, end, as_json)
        return
    now = datetime.now(UTC)
    offered: Examined
    source = "stored bars"
    if file is not None:
        source = file.name
        offered = market.examine_file(file, symbol, timeframe, calendar or "auto", now=now, allow=allow or ())
    elif exchange is not None or database is not None:
        fetched = fetched_source(exchange, database, deadline, base_url)
        source = fetched.name
        logging.getLogger("stamina").setLevel(logging.ERROR)
        with Console(stderr=True).status(f"Fetching {symbol} {timeframe} from {source}"):
            offered = market.examine_source(
                symbol,
                timeframe,
                fetched,
                begin,
                end,
                now=now,
                calendar=calendar or "auto",
                allow=allow or (),
            )
    else:
        offered = market.with_calendar(symbol, timeframe, str(calendar))
    replacement = market.replacement(offered, begin, end)
    if not as_json:
        for line in preview(replacement):
            plain.print(line, soft_wrap=True)
        yes = yes or not replacement.differs or typer.confirm("Replace the bars?", abort=True)
    replaced = None
    if yes:
        info = market.replace(replacement, source, reason=reason, actor=user(), now=now)
        replaced = info.content_hash
    if as_json:
        print_json(_as_json(replacement, replaced))
    elif replacement.differs:
        plain.print(f"Stored as snapshot {str(replaced)[:12]}; every earlier snapshot stays readable.")


def preview(replacement: "Replacement") -> Iterator[str]:
    """Sentences on the changes of a replacement."""
    from clm_core.market.corrections import moment

    comparison = replacement.comparison
    offered = replacement.offered
    series = f"{offered.symbol} {offered.timeframe}"
    span = f"{moment(replacement.first):%Y-%m-%d %H:%M} to {moment(replacement.last):%Y-%m-%d %H:%M} UTC"
    revision = comparison.revision()
    if offered.calendar != replacement.stored.calendar:
        yield f"{series}: calendar {replacement.stored.calendar} -> {offered.calendar}."
    if revision is None:
        yield f"{series}, {span}: all {len(offered):,} bars equal the stored bars."
        return
    yield (
        f"{series}, {span}: {revision.changed:,} bars changed, {revision.added:,} added, "
        f"{revision.removed:,} removed; first {revision.first:%Y-%m-%d %H:%M}, last "
        f"{revision.last:%Y-%m-%d %H:%M}; {len(comparison.common) - revision.changed:,} bars stay equal."
    )
    if revision.changed:
        yield f"Largest change of a price: {revision.largest_price_change:.2%}."
    if revision.cause:
        yield f"Recognised: {revision.cause}."
    for value in revision.values[:LISTED]:
        yield f"  {value}"
    more = revision.changed and sum(1 for _ in comparison.values()) - LISTED
    if more > 0:
        yield f"  and {more:,} more values"
    kept = replacement.earlier + replacement.later
    if kept and comparison.rescaled:
        yield (
            f"Warning: {kept:,} stored bars outside the span keep the old scale. Replace the whole series "
            "with a source that has all bars."
        )


def history(manifest: "SeriesManifest") -> Iterator[str]:
    """Corrections of a series and the bars that wait for a decision, in sentences."""
    revisions = manifest.revisions
    if revisions:
        bars = sum(revision.bars for _, revision in revisions)
        snapshots = f"{len(revisions):,} of {len(manifest.snapshots):,} snapshots"
        yield f"corrected {bars:,} bars in {snapshots}; newest:"
    for snapshot, revision in revisions[-3:]:
        who = f" by {revision.actor}" if revision.actor else f" from {snapshot.source}"
        why = f" ({revision.reason})" if revision.reason else ""
        yield f"          {snapshot.written_at:%Y-%m-%d %H:%M}{who}{why}: {revision}"
    if manifest.waiting:
        first = f"first {manifest.waiting[0]}"
        yield f"waiting   {len(manifest.waiting)} bars differ at the source, {first}: see `clm data update`"


def _as_json(replacement: "Replacement", replaced: str | None) -> dict[str, Any]:
    revision = replacement.comparison.revision()
    return {
        "symbol": replacement.offered.symbol,
        "timeframe": replacement.offered.timeframe.value,
        "changes": None if revision is None else revision.model_dump(mode="json"),
        "calendar": str(replacement.offered.calendar),
        "kept_before": replacement.earlier,
        "kept_after": replacement.later,
        "replaced": replaced is not None,
        "content_hash": replaced,
    }


def _keep_stored(
    market: "MarketData",
    symbol: str,
    timeframe: str,
    first: datetime | None,
    last: datetime | None,
    as_json: bool,
) -> None:
    info = market.keep_stored(symbol, timeframe, first, last)
    if as_json:
        print_json({"symbol": info.symbol, "timeframe": info.timeframe.value, "waiting": info.waiting})
    else:
        plain.print(f"The stored bars stay; {info.waiting} bars still differ and wait for a decision.")


def _moment(text: str, *, whole_day_end: bool) -> datetime:
    """Moment in UTC; a date without a time is the start or the end of the day."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time; write 2024-03-15 or 2024-03-15T14:00") from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when + timedelta(days=1, microseconds=-1) if whole_day_end and len(text) == 10 else when
