"""`clm data …`: market data listed, drawn, imported and fetched."""

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from clm_core.cli import data_replace
from clm_core.cli.bar_sources import fetched_source
from clm_core.cli.output import AsJson, print_json, print_report
from clm_core.cli.running import services_with_status

if TYPE_CHECKING:
    from clm_core.domain.bar_age import BarAge
    from clm_core.market.bars import Bars
    from clm_core.market.sources import MarketData, SeriesInfo


class ImportedKind(StrEnum):
    """Content of an imported file."""

    BARS = "bars"
    SERIES = "series"


app = typer.Typer(help="Market data: list, draw, import, fetch and correct bars.", no_args_is_help=True)
app.add_typer(data_replace.app)
console = Console()

Symbol = Annotated[str, typer.Argument(help="BTCUSDT, BTC/USDT, BTC/USDT:USDT, ^GSPC.")]
Step = Annotated[
    str, typer.Argument(metavar="TIMEFRAME", help="Length of a bar: 1m, 15m, 1h, 4h, 1d, 1w ...; 60m is 1h.")
]
Trading = Annotated[
    str,
    typer.Option(
        "--calendar",
        help="Trading times: 24x7; 24x5 (closed at weekends, in a daily break, on holidays); an exchange "
        "such as XNYS (`clm data calendars` lists all); learn (from the bars); or auto: as stored, else "
        "recognised.",
    ),
]

Allowed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Overrule a rule named in the refusal, for these bars; repeatable, recorded with the bars.",
    ),
]


@app.command("list")
def list_series(as_json: AsJson = False) -> None:
    """List every series: imported, fetched or bundled bars, then own series."""
    _print(_market().series(), as_json)
    if not as_json:
        _print_own_series()


@app.command()
def show(
    symbol: Symbol,
    timeframe: Step,
    days: Annotated[int | None, typer.Option(min=1, help="Only the newest days of the series.")] = None,
    content_hash: Annotated[
        str | None, typer.Option("--hash", help="First digits of the hash of an earlier state.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the bars to an HTML page instead of the terminal.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw one series, with the period covered, the outages and the content hash."""
    from clm_core.cli import charts

    market = _market()
    bars = market.bars(symbol, timeframe, days, content_hash, closed_by=datetime.now(UTC))
    if html is not None:
        charts.write_page(bars, html)
        typer.echo(f"Wrote {html}", err=as_json)
    if as_json:
        print_json(_facts_json(bars, market.newest(symbol, timeframe)))
    if html is not None or as_json:
        return
    console.print(charts.braille(bars, width=min(console.width - 14, 100)), highlight=False)
    console.print(_facts(bars, market.newest(symbol, timeframe)), highlight=False)
    for line in data_replace.history(market.manifest(symbol, timeframe)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("import")
def import_file(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME] FILE",
            help="CSV (also .txt, .gz, .zip), parquet or feather; a series has a name in front.",
        ),
    ],
    *,
    kind: Annotated[
        ImportedKind, typer.Option("--as", help="Bars of a market, or a series of values beside the bars.")
    ] = ImportedKind.BARS,
    symbol: Annotated[
        str | None,
        typer.Option(help="BTCUSDT, BTC/USDT, BTC/USDT:USDT, ^GSPC; of a series: only for this market."),
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(help="Length of a bar: 1m, 15m, 1h, 4h, 1d, 1w ...; 60m is 1h.")
    ] = None,
    calendar: Trading = "auto",
    time_column: Annotated[str | None, typer.Option(help="Column with the open times of the bars.")] = None,
    time_format: Annotated[
        str | None, typer.Option(help="Format of times that are not ISO 8601, e.g. '%d.%m.%Y %H:%M'.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Zone of times without a zone: UTC, Europe/Athens.")
    ] = None,
    volume_column: Annotated[
        str | None, typer.Option(help="Column with the volume in the base asset.")
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="The file runs from the newest bar to the oldest.")
    ] = False,
    drop_open_bar: Annotated[
        bool, typer.Option("--drop-open-bar", help="Leave out a last bar still open.")
    ] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option(help="Download time of the file (UTC), to recognise a last bar still open at the time."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COLUMN",
            help="Column of time, open, high, low, close or volume, by name or number from 1; repeatable: "
            "--column close='Adj Close' --column volume=6.",
        ),
    ] = None,
    no_volume: Annotated[
        bool, typer.Option("--no-volume", help="The market has no volume: store 0.")
    ] = False,
    by_date: Annotated[
        bool,
        typer.Option(
            "--by-date", help="Store daily and weekly bars under their date, whatever hour they open at."
        ),
    ] = False,
    rows_of: Annotated[
        str | None, typer.Option(help="Import only the rows of one symbol of a file with several.")
    ] = None,
    allow: Allowed = None,
    known_column: Annotated[
        str | None, typer.Option(help="Series: column with the time each value became known.")
    ] = None,
    known_after: Annotated[
        str | None,
        typer.Option(help="Series: each value became known so long after its time: 0s, 30m, 8h, 1d."),
    ] = None,
    value_column: Annotated[str | None, typer.Option(help="Series: column with the values.")] = None,
    max_age: Annotated[
        str | None,
        typer.Option(
            help="Series: a value known longer ago is unknown again: 36h. Default: as stored, else no limit."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add the bars of a file, or the values of a series, to the store: all, or none and the problems."""
    from clm_core.market.reading import Layout

    if kind is ImportedKind.SERIES:
        layout = {"time_column": time_column, "known_column": known_column, "value_column": value_column}
        _import_series(
            words, symbol, known_after, max_age, layout | {"timezone": timezone, "time_format": time_format}
        )
        list_own_series(as_json)
        return
    if len(words) != 1 or symbol is None or timeframe is None:
        raise typer.BadParameter("bars are imported as: clm data import FILE --symbol SYMBOL --timeframe 1h")
    file = Path(words[0])
    info = _market().import_file(
        file,
        symbol,
        timeframe,
        calendar,
        now=datetime.now(UTC),
        as_of=None if as_of is None else as_of.replace(tzinfo=UTC),
        layout=Layout(
            time_column,
            time_format,
            timezone,
            volume_column,
            columns=_columns(column or []),
            no_volume=no_volume,
            by_date=by_date,
            rows_of=rows_of,
        ),
        reverse=reverse,
        drop_open_bar=drop_open_bar,
        allow=allow or (),
    )
    _print_one(info, as_json)


def _import_series(
    words: list[str],
    symbol: str | None,
    known_after: str | None,
    max_age: str | None,
    layout: dict[str, str | None],
) -> None:
    from clm_core.market.reading import content_of
    from clm_core.market.series_reading import SeriesLayout, duration, read_series

    if len(words) != 2:
        raise typer.BadParameter(
            "a series is imported as: clm data import --as series NAME FILE --known-column COLUMN"
        )
    name = words[0]
    file = Path(words[1])
    delay = None if known_after is None else duration(known_after)
    series = read_series(
        name,
        file.name,
        content_of(file),
        SeriesLayout(**layout, known_after=delay),
        None if max_age is None else duration(max_age),
    )
    _market().own_series.add(series, symbol, file.name, datetime.now(UTC), keep_age=max_age is None)


@app.command("series")
def list_own_series(as_json: AsJson = False) -> None:
    """List the own series beside the bars."""
    if as_json:
        manifests = _market().own_series.manifests()
        typer.echo(json.dumps([each.model_dump(mode="json") for each in manifests], indent=1))
    elif not _print_own_series():
        console.print("There is no own series: `clm data import --as series NAME FILE` adds one.")


def _print_own_series() -> bool:
    """Print the own series; False if there is none."""
    stored = _market().own_series.manifests()
    if not stored:
        return False
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("Own series", "Market", "From", "To"):
        table.add_column(name, no_wrap=True)
    for name in ("Values", "Revisions"):
        table.add_column(name, no_wrap=True, justify="right")
    for name in ("Known until (UTC)", "Max age", "Hash"):
        table.add_column(name, no_wrap=True)
    table.add_column("Source", overflow="fold")
    for each in stored:
        newest = each.snapshots[-1]
        days = (f"{moment:%Y-%m-%d}" for moment in (newest.start, newest.end))
        age = "-" if newest.max_age is None else f"{newest.max_age / 3.6e12:g} h"
        counts = (f"{newest.values:,}", f"{newest.revisions:,}", f"{newest.known_until:%Y-%m-%d %H:%M}", age)
        table.add_row(each.name, each.symbol or "all", *days, *counts, newest.content_hash[:8], newest.source)
    console.print(table)
    return True


Payments = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV file.")]
OfSymbol = Annotated[str, typer.Option("--symbol", help="BTCUSDT.P, SPY.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace the stored values within the span of the file.")
]


@app.command()
def import_funding(
    file: Payments, *, symbol: OfSymbol, replace: Replace = False, as_json: AsJson = False
) -> None:
    """Add funding rates of a perpetual (fractions per interval, as in Binance's dumps): all, or none."""
    _import_payments("funding", file, symbol, replace, as_json)


@app.command()
def import_dividends(
    file: Payments, *, symbol: OfSymbol, replace: Replace = False, as_json: AsJson = False
) -> None:
    """Add dividends of a share or fund (ex-date, cash per unit), for prices not adjusted for dividends."""
    _import_payments("dividends", file, symbol, replace, as_json)


@app.command()
def payments(as_json: AsJson = False) -> None:
    """List the stored funding rates and dividends."""
    stored = _market().payments.manifests()
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in stored], indent=1))
        return
    table = Table(
        "Symbol", "Kind", "From", "To", "Payments", "Hash", "Source", box=None, padding=(0, 2, 0, 0)
    )
    for each in stored:
        newest = each.snapshots[-1]
        days = (f"{moment:%Y-%m-%d}" for moment in (newest.start, newest.end))
        facts = (f"{newest.payments:,}", newest.content_hash[:8], newest.source)
        table.add_row(each.symbol, each.kind, *days, *facts)
    console.print(table if stored else "No funding rates or dividends are stored.")


def _import_payments(kind: str, file: Path, symbol: str, replace: bool, as_json: bool) -> None:
    from clm_core.domain.spellings import normalise_symbol
    from clm_core.market.carry_store import PaymentKind

    stored = _market().payments.add(PaymentKind(kind), file, symbol, now=datetime.now(UTC), replace=replace)
    if as_json:
        print_json({"symbol": normalise_symbol(symbol), "kind": kind, **stored.model_dump(mode="json")})
        return
    span = f"{stored.start:%Y-%m-%d} to {stored.end:%Y-%m-%d}"
    facts = f"{stored.payments:,} from {span}, hash {stored.content_hash[:8]}"
    console.print(f"{symbol.upper()} {kind}: {facts}", highlight=False)


@app.command()
def fetch(
    symbol: Symbol,
    timeframe: Step,
    *,
    exchange: Annotated[
        str | None, typer.Option(help="Name of the exchange in ccxt; binance unless a database is named.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Name of a database of the settings: a section [databases.NAME].")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="First day (UTC) to fetch; default: from the last stored bar on."),
    ] = None,
    calendar: Trading = "auto",
    deadline: Annotated[float, typer.Option(min=1, help="Seconds after which to give up.")] = 900.0,
    base_url: Annotated[
        str | None, typer.Option(help="Another address of the same API, such as a proxy.")
    ] = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """Fetch closed bars from an exchange or a database; a repeated run continues after the stored bars."""
    source = fetched_source(exchange or (None if database else "binance"), database, deadline, base_url)

    # its lines carry their facts in fields that a terminal does not show; the last failure is raised anyway
    logging.getLogger("stamina").setLevel(logging.ERROR)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{source.name} {symbol} {timeframe}", total=1.0)
        market = _market()
        before = market.stored(symbol, timeframe)
        info = market.fetch(
            symbol,
            timeframe,
            source,
            None if since is None else since.replace(tzinfo=UTC),
            now=datetime.now(UTC),
            calendar=calendar,
            progress=lambda share: progress.update(task, completed=share),
            allow=allow or (),
        )
    _print_one(info, as_json)
    manifest = market.manifest(symbol, timeframe)
    for snapshot in manifest.snapshots[0 if before is None else before.snapshots :]:
        if snapshot.revision is not None:
            typer.echo(f"corrected: {snapshot.revision}", err=as_json)


@app.command("calendars")
def list_calendars(as_json: AsJson = False) -> None:
    """List every calendar that --calendar takes by name, aliases included."""
    from clm_core.market.timeframes import Calendar, exchange_names

    names = {"24x7": "24x7", "24x5": "24x5"} | exchange_names()
    if as_json:
        typer.echo(json.dumps(names, indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("Calendar", "Other names"):
        table.add_column(column, overflow="fold")
    for calendar in dict.fromkeys(names.values()):
        others = [name for name, own in names.items() if own == calendar and name != calendar]
        table.add_row(str(Calendar(calendar)), ", ".join(others))
    console.print(table, highlight=False)


@app.command()
def update(as_json: AsJson = False) -> None:
    """Fetch the bars closed since the last update, for every market of the universe with an exchange or a
    database, and compute the ranks of pools."""
    logging.getLogger("stamina").setLevel(logging.ERROR)
    with services_with_status(lambda step, share: f"{step}: {share:.0%}", makes_home=True) as services:
        from clm_core.operations import ingest

        report = ingest.run(services)
    print_report(report, as_json)


def _columns(options: list[str]) -> dict[str, str]:
    """`close=Adj Close` as {"close": "Adj Close"}.

    Raises:
        DataError: an option has no `=`, or names no field.
    """
    from clm_core.domain.errors import DataError

    fields = ("time", "open", "high", "low", "close", "volume")
    columns = dict(option.partition("=")[::2] for option in options)
    if wrong := [field for field, column in columns.items() if field not in fields or not column]:
        raise DataError(f"--column {wrong[0]}: write FIELD=COLUMN with one of {', '.join(fields)}")
    return columns


def _market() -> "MarketData":
    from clm_core.platform.object_storage import market_data
    from clm_core.settings import load_settings

    settings = load_settings()
    return market_data(settings.home, settings.storage)


def _print_one(info: "SeriesInfo", as_json: bool) -> None:
    """Print a series with the description of the calendar, or as an object of `clm data list --json`."""
    if as_json:
        typer.echo(json.dumps(_as_json(info, _age(info)), default=datetime.isoformat, indent=1))
        return
    from clm_core.market.calendars import describe

    _print([info], as_json=False)
    text = f"Calendar {info.calendar}: {describe(info.calendar)}"
    console.print(text, highlight=False, soft_wrap=True)


def _age(info: "SeriesInfo") -> "BarAge":
    from clm_core.decisions.staleness import age_of
    from clm_core.market.newest_bars import NewestBar
    from clm_core.settings import load_settings

    newest = NewestBar(info.symbol, info.timeframe, info.calendar, info.end)
    return age_of(newest, datetime.now(UTC), load_settings().watch.stale_bars)


def _as_json(info: "SeriesInfo", age: "BarAge") -> dict[str, object]:
    ages = {"newest_close": age.newest_close, "late_bars": age.late_bars, "is_stale": age.is_stale}
    return asdict(info) | ages


def _print(series: "list[SeriesInfo]", as_json: bool) -> None:
    ages = [_age(info) for info in series]
    if as_json:
        listed = [_as_json(info, age) for info, age in zip(series, ages, strict=True)]
        typer.echo(json.dumps(listed, default=datetime.isoformat, indent=1))
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("Series", "From", "To"):
        table.add_column(name, no_wrap=True)
    for name in ("Bars", "Gaps", "Missing", "Late"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("Hash", no_wrap=True)
    table.add_column("Source", overflow="fold")
    for info, age in zip(series, ages, strict=True):
        table.add_row(
            f"{info.symbol} {info.timeframe}",
            f"{info.start:%Y-%m-%d}",
            f"{info.end:%Y-%m-%d}",
            f"{info.bars:,}",
            f"{info.gaps:,}",
            f"{info.missing_bars:,}",
            f"[red]{age.late_bars:,}[/]" if age.is_stale else f"{age.late_bars:,}",
            info.content_hash[:8],
            _origin(info),
        )
    console.print(table)


def _origin(info: "SeriesInfo") -> str:
    """Source of a series with the symbol of the source, overruled rules and corrections."""
    parts = [info.source if info.native is None else f"{info.native} from {info.source}"]
    if info.allowed:
        parts.append("allowed: " + ", ".join(f"{rule} ({count})" for rule, count in info.allowed.items()))
    if info.adjusted:
        parts.append("adjusted: " + ", ".join(f"{rule} ({count})" for rule, count in info.adjusted.items()))
    return "; ".join(parts)


def _facts_json(bars: "Bars", info: "SeriesInfo") -> dict[str, object]:
    """Facts of the drawn bars."""
    return {
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.value,
        "calendar": str(bars.calendar),
        "bars": len(bars),
        "start": bars.start.isoformat(),
        "end": bars.end.isoformat(),
        "close": {"min": bars.close.min(), "max": bars.close.max(), "last": bars.close[-1]},
        "gaps": [{"after": gap.after.isoformat(), "missing": int(gap.missing)} for gap in bars.gaps],
        "bridged": int(bars.bridged.sum()),
        "closures": int(bars.closures),
        "content_hash": bars.content_hash,
        "source": info.source,
    }


def _facts(bars: "Bars", info: "SeriesInfo") -> str:
    from clm_core.market.calendars import describe

    age = _age(info)
    longest = sorted(bars.gaps, key=lambda gap: gap.missing, reverse=True)[:3]
    outages = "; ".join(f"{gap.missing} bars after {gap.after:%Y-%m-%d %H:%M}" for gap in longest)
    return "\n".join(
        [
            f"{bars.symbol} {bars.timeframe}, calendar {bars.calendar}: {len(bars):,} bars",
            f"range     {bars.start:%Y-%m-%d %H:%M} to {bars.end:%Y-%m-%d %H:%M} UTC",
            f"age       the newest bar closed {age.age} ago: {age.late}{', STALE' if age.is_stale else ''}",
            f"close     {bars.close.min():,.6g} to {bars.close.max():,.6g}, last {bars.close[-1]:,.6g}",
            f"outages   {len(bars.gaps)}, {sum(gap.missing for gap in bars.gaps)} bars missing, "
            f"{bars.bridged.sum()} carried through" + (f"; longest: {outages}" if outages else ""),
            f"closures  {bars.closures}; the market {describe(bars.calendar)}",
            f"hash      {bars.content_hash}",
            f"source    {_origin(info)}",
        ]
    )
