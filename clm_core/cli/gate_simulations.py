"""`clm gate simulate`, `clm gate power`: errors of the gate, and the power of a window of bars."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from clm_core.cli.output import AsJson, console, print_json
from clm_core.cli.settings_in_force import settings_for_look

if TYPE_CHECKING:
    from clm_core.decisions.gate_policy import GatePolicy
    from clm_core.decisions.outlook import Outlook
    from clm_core.decisions.power import WindowPower
    from clm_core.decisions.simulated_market import World
    from clm_core.decisions.simulation import Estimate, Realised
    from clm_core.evidence.trials import TrialCount
    from clm_core.settings import Settings

EDGES = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
POWER_EDGES = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]

Shape = Annotated[
    str, typer.Option(help="Returns of a bar: normal, student-t(3), skewed, AR(1) 0.2 or GARCH(1,1).")
]
Volatility = Annotated[
    float, typer.Option(min=0.01, max=3, help="Yearly volatility of the market, as a fraction.")
]
Payoff = Annotated[
    str | None,
    typer.Option(
        help="Trades before costs and without an edge: symmetric, trend-like (35 % win), option-like "
        "(90 % win), or the ratio of mean gain to mean loss.",
        show_default="symmetric",
    ),
]
WinRate = Annotated[
    float | None,
    typer.Option(min=0.05, max=0.95, help="In place of --payoff: share of winning trades, as a fraction."),
]
Trades = Annotated[float, typer.Option(min=5, help="Trades a year.")]
HeldDays = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Mean days a position is held.", show_default="80 % of the time between entries"
    ),
]
CostsOfASide = Annotated[
    float, typer.Option(min=0, max=1000, help="Fee and slippage on each side of a trade, basis points.")
]
WindowDays = Annotated[
    int, typer.Option(min=1, help="Days of bars of a retrain; its record is the out-of-sample part.")
]
BarLength = Annotated[str, typer.Option(help="Length of a bar.")]


def simulate(
    edge: Annotated[
        list[float] | None, typer.Option(help="True annual Sharpe ratio; repeatable. Default: 0 to 3.")
    ] = None,
    shape: Shape = "normal",
    volatility: Volatility = 0.35,
    payoff: Payoff = None,
    win_rate: WinRate = None,
    trades: Trades = 73.0,
    held_days: HeldDays = None,
    costs: CostsOfASide = 7.0,
    days: WindowDays = 1825,
    timeframe: BarLength = "4h",
    retrains: Annotated[int, typer.Option(min=1, max=366, help="Retrains a year.")] = 52,
    retrain_correlation: Annotated[
        float,
        typer.Option(
            "--retrain-correlation",
            "--kinship",
            min=0,
            max=1,
            help="Correlation of two retrains' returns on the same bars; --kinship is the former name.",
        ),
    ] = 0.9,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="Policy preset; repeatable. Default: the configured preset and thresholds-only."),
    ] = None,
    streams: Annotated[
        int, typer.Option(min=10, help="Number of years without an edge, and of streams of each edge.")
    ] = 100,
    horizon: Annotated[float, typer.Option(min=0.5, max=10, help="Years to wait for a promotion.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Draw the outlook into a PNG or SVG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the gate on markets with a known edge: promotions by luck, and the wait of an edge.

    An edge is net of costs and after sizing; 0 just pays the costs.
    """
    from dataclasses import replace

    from clm_core.decisions.evidence_window import mean_tested_days
    from clm_core.decisions.gate_policy import load_document
    from clm_core.decisions.outlook import draw_picture, outlook
    from clm_core.decisions.simulated_market import DAYS_A_YEAR

    source = settings_for_look().policy
    configured = load_document(source.file, source.preset)
    policies = [
        load_document(source.file, name).policy("any model", "any market")
        for name in dict.fromkeys(preset or [configured.preset, "thresholds-only"])
    ]
    world = _world(shape, volatility, payoff, win_rate, trades, held_days, costs, timeframe)
    world = replace(
        world,
        retrains_per_year=retrains,
        retrain_correlation=retrain_correlation,
        record_years=mean_tested_days(days, world.timeframe) / DAYS_A_YEAR,
    )
    edges = EDGES if edge is None else edge
    for each in edges:
        _require_possible(replace(world, annual_sharpe=each))
    outlooks = []
    for levels in policies:
        with _progress(levels.name) as advance:
            outlooks.append(outlook(world, levels, edges, streams, horizon, seed, advance))
    if picture is not None:
        draw_picture(outlooks, picture)
    if as_json:
        print_json([each.to_json() for each in outlooks])
        return
    _show_outlooks(outlooks)
    if picture is not None:
        console.print(f"Picture: {picture}", highlight=False)


def power(
    days: WindowDays = 1825,
    timeframe: BarLength = "1h",
    symbol: Annotated[
        str | None,
        typer.Option(
            help="Market whose policy and trials count.",
            show_default="any market, the fewest trials presumed",
        ),
    ] = None,
    trials: Annotated[
        float | None,
        typer.Option(min=1, help="Independent trials made so far, in place of those of the market."),
    ] = None,
    edge: Annotated[
        list[float] | None, typer.Option(help="True annual Sharpe ratio; repeatable. Default: 0.5 to 4.")
    ] = None,
    streams: Annotated[
        int, typer.Option(min=0, help="Simulated retrains of each edge through the whole gate; 0 for none.")
    ] = 50,
    shape: Shape = "normal",
    volatility: Volatility = 0.35,
    payoff: Payoff = None,
    win_rate: WinRate = None,
    trades: Trades = 73.0,
    held_days: HeldDays = None,
    costs: CostsOfASide = 7.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """State what a window of bars can show: the chance that an edge passes at its first retrain.

    An edge is net of costs and after sizing. The options of the market concern the simulation alone.
    """
    from dataclasses import replace
    from datetime import UTC, datetime

    from clm_core.decisions import evidence_window as windows
    from clm_core.decisions.power import window_power
    from clm_core.decisions.simulated_market import DAYS_A_YEAR
    from clm_core.domain.spellings import default_span_days

    settings = settings_for_look()
    world = _world(shape, volatility, payoff, win_rate, trades, held_days, costs, timeframe)
    levels, counted = _policy_and_trials(settings, symbol, world.timeframe.value, trials)
    if levels.evidence is None:
        raise typer.BadParameter(
            f"the policy {levels.name} asks for no evidence: a window has to show nothing",
            param_hint="--symbol",
        )
    times = windows.open_times(days, world.timeframe, datetime.now(UTC))
    share = windows.tested_share(times, settings.walk_forward.for_request(days, days))
    window = windows.evidence_window(
        days=days,
        requested_days=days,
        longer_days=max(days, default_span_days(world.timeframe.value)),
        bars_per_day=world.bars_per_day,
        out_of_sample=share,
        trials=counted,
        levels=levels.evidence,
    )
    world = replace(world, record_years=share * days / DAYS_A_YEAR)
    edges = POWER_EDGES if edge is None else edge
    for each in edges:
        _require_possible(replace(world, annual_sharpe=each))
    with _progress("power") as advance:
        shown = window_power(window, world, levels, counted, edges, streams, seed, advance)
    if as_json:
        print_json(shown.to_json())
        return
    _show_power(shown)


def _world(
    shape: str,
    volatility: float,
    payoff: str | None,
    win_rate: float | None,
    trades: float,
    held_days: float | None,
    costs: float,
    timeframe: str,
) -> "World":
    """
    Raises:
        BadParameter: an option names nothing there is, or two options contradict each other.
    """
    from clm_core.decisions.payoffs import SYMMETRIC, win_rate_of
    from clm_core.decisions.return_streams import Shape
    from clm_core.decisions.simulated_market import World
    from clm_core.market.timeframes import Timeframe

    if shape not in list(Shape):
        raise typer.BadParameter(f"{shape!r} is none of {', '.join(Shape)}", param_hint="--shape")
    if payoff is not None and win_rate is not None:
        raise typer.BadParameter(
            "a win rate without an edge has one payoff: give --payoff or --win-rate, and the edge by --edge",
            param_hint="--win-rate",
        )
    try:
        length = Timeframe(timeframe)
    except ValueError as error:
        raise typer.BadParameter(
            f"{timeframe!r} is none of {', '.join(Timeframe)}", param_hint="--timeframe"
        ) from error
    try:
        wins = win_rate if win_rate is not None else win_rate_of(payoff or SYMMETRIC)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--payoff") from error
    return World(
        shape=Shape(shape),
        volatility=volatility,
        win_rate=wins,
        trades_per_year=trades,
        held_days=held_days,
        cost_bps=costs,
        timeframe=length,
    )


def _require_possible(world: "World") -> None:
    if world.problem:
        raise typer.BadParameter(world.problem)


def _policy_and_trials(
    settings: "Settings", symbol: str | None, timeframe: str, trials: float | None
) -> "tuple[GatePolicy, TrialCount]":
    """Policy of a market, and the trials of the market or as many as stated, at least the policy's fewest."""
    from clm_core.decisions.gate_policy import load_document
    from clm_core.domain.spellings import normalise_symbol
    from clm_core.retraining.window import trials_so_far
    from clm_core.services import open_services

    source = settings.policy
    if symbol is None:
        levels = load_document(source.file, source.preset).policy("any model", "any market")
        return levels, _stated(trials or levels.fewest_trials, levels)
    name = normalise_symbol(symbol)
    with open_services(settings) as services:
        levels = services.policy("any model", name)
        if trials is not None:
            return levels, _stated(trials, levels)
        return levels, trials_so_far(services, (name, timeframe, ()), levels.fewest_trials)


def _stated(trials: float, levels: "GatePolicy") -> "TrialCount":
    from clm_core.evidence.trials import TrialCount

    return TrialCount(0, max(trials, levels.fewest_trials))


@contextmanager
def _progress(name: str) -> Iterator[Callable[[float], None]]:
    """Progress bar of a simulation; yields a function of the completed share, 0..1."""
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda done: progress.update(task, completed=done)


def _show_outlooks(outlooks: "list[Outlook]") -> None:
    first = outlooks[0]
    world = first.world
    console.print(
        f"{first.streams} streams each, {world.shape} returns of {world.timeframe} bars, volatility "
        f"{world.volatility:.0%} a year, {world.trades_per_year:.0f} trades a year held for "
        f"{world.mean_held_bars / world.bars_per_day:.1f} days, win rate {world.win_rate:.0%} without an "
        f"edge, costs {world.cost_bps:g} bps a side; {world.retrains_per_year} retrains a year, correlation "
        f"{world.retrain_correlation:g}; records of {world.record_years:.2f} years at the first retrain.",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("true Sharpe", box=SIMPLE_HEAVY)
    for each in outlooks:
        table.add_column(each.policy, justify="right")
    lucky = [each.luck for each in outlooks if each.luck is not None]
    if lucky:
        table.add_row("0: years that promote luck", *(str(years.promoted) for years in lucky))
        table.add_row("0: promotions a year", *(f"{years.promotions:.2f}" for years in lucky))
        refreshed = [each.refreshed for each in outlooks if each.refreshed is not None]
        table.add_row("0: years that promote one refreshed recipe", *(str(it.promoted) for it in refreshed))
        table.add_row("0: as traded", *(_traded(years.realised) for years in lucky))
    for edge in first.edges:
        waits = [each.edges[edge] for each in outlooks]
        within = f"promoted within {first.horizon_years:g} years"
        table.add_row(f"{edge:g}: {within}", *(str(wait.promoted) for wait in waits))
        table.add_row(f"{edge:g}: at the first retrain", *(str(wait.promoted_at_once) for wait in waits))
        table.add_row(
            f"{edge:g}: median wait, years of record", *(_years(wait.median_years) for wait in waits)
        )
        table.add_row(
            f"{edge:g}: minimum track record, years", *(_years(wait.minimum_years) for wait in waits)
        )
        table.add_row(
            f"{edge:g}: textbook, one trial, years", *(_years(wait.textbook_years) for wait in waits)
        )
        table.add_row(f"{edge:g}: as traded", *(_traded(wait.realised) for wait in waits))
    console.print(table)


def _traded(realised: "Realised") -> str:
    sharpe = realised.sharpe_ratio
    return (
        f"Sharpe {sharpe.value:.2f} ± {sharpe.error:.2f}, win rate {realised.win_rate:.0%}, "
        f"payoff {realised.payoff_ratio:.2f}"
    )


def _show_power(shown: "WindowPower") -> None:
    console.print(f"{shown.window.sentence}.", highlight=False, soft_wrap=True)
    title = f"record of {shown.record_years:.2f} years, {shown.trials:.1f} independent trials"
    table = Table(title=title, box=SIMPLE_HEAVY)
    for column in ("true Sharpe", "passes the evidence", "passes the gate"):
        table.add_column(column, justify="right")
    table.add_column("minimum track record, years", justify="right")
    table.add_column("textbook, one trial, years", justify="right")
    for each in shown.edges:
        table.add_row(
            f"{each.annual_sharpe:g}",
            f"{each.by_evidence:.0%}",
            _simulated(each.by_gate),
            _years(each.minimum_years),
            _years(each.textbook_years),
        )
    console.print(table)


def _simulated(share: "Estimate | None") -> str:
    return "not simulated" if share is None else str(share)


def _years(value: float) -> str:
    if math.isnan(value):
        return "none"
    return f"{value:.2f}" if math.isfinite(value) else "more"
