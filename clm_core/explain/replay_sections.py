"""Sections of the page of a replay: the curves, what happened, and the counts, for each policy."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from clm_core.domain import measures
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.replays import (
    LOOK_DAYS,
    KnownCourse,
    KnownService,
    PolicyReplay,
    ReplayCurve,
    ReplayEvent,
    ReplayEventKind,
    ReplayRequest,
    ReplayResult,
    TriggerWorth,
)

Trace = dict[str, Any]
"""Trace of a plotly chart."""

COLOURS = {"production": "#2f6fed", "newest": "#c2701c", "never": "#7a7a7a", "hold": "#2c8a57"}
OTHER_COLOURS = ("#8a4fd0", "#c23b6b", "#3aa3b8", "#a58b1e")
COLUMNS = ("", "return", "Sharpe", "drawdown", "trades", "exposure", "lead of production")
NOTE = (
    "After costs. Lead: Sharpe ratio of the production minus that of the row, with a 95 % interval by block "
    "bootstrap; an interval that holds 0 decides nothing."
)
WORTH_COLUMNS = (
    "reason",
    "retrains",
    "PASS, INCONCLUSIVE, FAIL",
    "in production",
    "days",
    "earned",
    "without",
    "fits",
    "trials",
    "seconds",
)
WORTH_NOTE = (
    "Earned: by the production while versions of these retrains were in production. Without: over the same "
    "time, had the version before stayed. Seconds: processor time of the trainings when they were done."
)
KNOWN_NOTE = (
    "Expected: return of the positions given the hidden state of the world, less the costs, over the time in "
    f"production and {LOOK_DAYS} days at least; a promotion without a gain by expectation is false. Expected "
    f"after: over {LOOK_DAYS} days after a rollback or halt, had the version stayed; with a gain, taking the "
    "version back was false."
)
TIME_LINE = {
    "retrain PASS": "#2c8a57",
    "retrain INCONCLUSIVE": "#c2a21c",
    "retrain FAIL": "#b0b0b0",
    "request of the watch": "#3aa3b8",
    "shadow: retire": "#8a4fd0",
    "shadow: expire": "#8a4fd0",
    "shadow: promote": "#8a4fd0",
    "promotion": "#2f6fed",
    "rollback": "#c0392b",
    "halt": "#c0392b",
    "loss": "#c0392b",
}
"""Rows of the time line with their colours, from above."""
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
MAX_HOVER = 160
MAX_EVENTS = 400
"""Events shown on a page; the JSON has all."""


def replay_sections(result: ReplayResult) -> tuple[Section, ...]:
    """A section with all policies side by side, then a section for each policy."""
    policies = result.policies
    several = (_beside(result),) if len(policies) + len(result.request.gateless) > 1 else ()
    return (*several, *(_section(result, each) for each in policies))


def headline(replayed: PolicyReplay) -> str:
    """Sentence about a policy: trainings, promotions and the earned return."""
    earned = measures.signed_percent(replayed.production.figures.total_return)
    held = next(each for each in replayed.curves if each.name == "hold")
    return (
        f"Under {replayed.policy}: retrains: {replayed.retrains}, passed the gate: {replayed.passed}, "
        f"promotions: {replayed.promotions}, rollbacks and halts: {replayed.rollbacks}. Production earned "
        f"{earned} in {replayed.days_in_production:,.0f} days of service; holding earned "
        f"{measures.signed_percent(held.figures.total_return)}."
    )


def known_sentence(known: KnownCourse) -> str:
    """Sentence about promotions and rollbacks by the knowledge of the world."""
    promotions = sum(each.is_promotion for each in known.services)
    endings = sum(each.is_taken_back for each in known.services)
    outlived = (
        f" Days in production after the edge changed, of versions trained before: {known.outlived_days:.0f}."
    )
    return (
        f"The world knows: false promotions {known.false_promotions} of {promotions}, false rollbacks and "
        f"halts {known.false_endings} of {endings}; the production's expected return was "
        f"{measures.signed_percent(known.expected_return)}.{outlived if known.outlived_days else ''}"
    )


def gateless_sentence(request: ReplayRequest) -> str:
    """Sentence about policies without a gate to compare with; empty if none is named."""
    if not request.gateless:
        return ""
    return f"Without a gate: {' and '.join(request.gateless)}, in the rows of these names under every policy."


def worth_row(worth: TriggerWorth) -> tuple[str, ...]:
    """Cells of a reason to retrain, in the order of `WORTH_COLUMNS`."""
    return (
        worth.reason.value.replace("_", " "),
        f"{worth.retrains:,}",
        f"{worth.passed}, {worth.inconclusive}, {worth.failed}",
        f"{worth.promoted:,}",
        f"{worth.days_in_production:,.0f}",
        measures.signed_percent(worth.earned),
        measures.signed_percent(worth.without),
        f"{worth.fits:,}",
        f"{worth.trials:,}",
        f"{worth.seconds:,.1f}",
    )


def markdown(result: ReplayResult, page: Path) -> str:
    """Summary for the page of a run, which shows no chart."""
    lines = [headline(each) for each in result.policies]
    for each in result.policies:
        lines += [] if each.known is None else [known_sentence(each.known)]
        lines.append(_markdown_table((each.policy, *COLUMNS[1:]), _rows(each)))
        lines.append(_markdown_table(WORTH_COLUMNS, map(worth_row, each.worth)))
    return "\n\n".join((*lines, f"Curves and time line: `{page}`. Digest `{result.digest[:12]}`."))


def _rows(replayed: PolicyReplay) -> Iterator[tuple[str, ...]]:
    return (figures_row(each) for each in replayed.curves)


def _markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join((_cells(heads), _cells(["---"] * len(heads)), *map(_cells, rows)))


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figures_row(curve: ReplayCurve, name: str = "") -> tuple[str, ...]:
    """Cells of a curve, in the order of `COLUMNS`."""
    figures = curve.figures
    lead = "-" if curve.lead is None else f"{curve.lead[0]:+.2f} to {curve.lead[1]:+.2f}"
    return (
        name or curve.name,
        measures.signed_percent(figures.total_return),
        "-" if figures.sharpe_ratio is None else measures.ratio(figures.sharpe_ratio),
        measures.percent(figures.max_drawdown),
        f"{figures.trades:,}",
        measures.percent(figures.exposure),
        lead,
    )


def _beside(result: ReplayResult) -> Section:
    curves = [(each.policy, each.production) for each in result.policies]
    named = {each.name: each for each in result.policies[0].curves}
    curves += [(name, named[name]) for name in result.request.gateless]
    colours = dict(zip((name for name, _ in curves), OTHER_COLOURS * len(curves), strict=False))
    rows = tuple(figures_row(curve, name) for name, curve in curves)
    gateless = gateless_sentence(result.request)
    return Section(
        name="policies",
        title="Policies beside each other",
        sentences=(*(headline(each) for each in result.policies), *((gateless,) if gateless else ())),
        tables=(SectionTable(columns=COLUMNS[:-1], rows=tuple(row[:-1] for row in rows)),),
        charts=(_chart(result, [(name, curve, colours[name]) for name, curve in curves]),),
    )


def _section(result: ReplayResult, replayed: PolicyReplay) -> Section:
    drawn = [(each.name, each, COLOURS[each.name]) for each in replayed.curves]
    known = replayed.known
    return Section(
        name=f"policy-{result.policies.index(replayed)}",
        title=f"Policy {replayed.policy}",
        sentences=(headline(replayed), *(() if known is None else (known_sentence(known),))),
        tables=(
            SectionTable(columns=COLUMNS, rows=tuple(_rows(replayed)), note=NOTE),
            SectionTable(
                title="Retrains by reason",
                columns=WORTH_COLUMNS,
                rows=tuple(map(worth_row, replayed.worth)),
                note=WORTH_NOTE,
            ),
            *(() if known is None else (_services_table(known),)),
            SectionTable(title="Events", columns=("UTC",), rows=tuple(_event_rows(replayed))),
        ),
        charts=(
            _chart(result, drawn, _changes(result, replayed)),
            _time_line(result, replayed),
            *(() if known is None else (_known_chart(result, known),)),
        ),
        values={"digest": replayed.digest, "trials": replayed.trials},
    )


def _services_table(known: KnownCourse) -> SectionTable:
    rows = tuple(_service_row(each) for each in known.services)
    return SectionTable(
        title="Versions in production, by the knowledge of the world",
        columns=("version", "from", "to", "expected", "expected after", "judged"),
        rows=rows,
        note=KNOWN_NOTE,
    )


def _service_row(service: KnownService) -> tuple[str, ...]:
    after = service.expected_after
    judged = [
        *(["false promotion"] if service.is_false_promotion else []),
        *(["false rollback or halt"] if service.is_false_ending else []),
    ]
    return (
        service.version,
        f"{service.since:%Y-%m-%d}",
        f"{service.until:%Y-%m-%d}",
        measures.signed_percent(service.expected),
        "-" if after is None else measures.signed_percent(after),
        ", ".join(judged) or "right",
    )


def _event_rows(replayed: PolicyReplay) -> Iterator[tuple[str, ...]]:
    shown = [each for each in replayed.events if each.kind is not ReplayEventKind.PROBLEM]
    for each in shown[:MAX_EVENTS]:
        named = f"{each.kind} {each.version}" if each.version else each.kind
        # one cell: cells after the first are set as figures
        yield (f"{each.at:%Y-%m-%d %H:%M} {named}: {each.sentence}",)
    if len(shown) > MAX_EVENTS:
        yield (f"and {len(shown) - MAX_EVENTS:,} more: clm replay --json",)


def _chart(
    result: ReplayResult,
    curves: list[tuple[str, ReplayCurve, str]],
    changes: Sequence[Trace] = (),
) -> SectionChart:
    days = [f"{each:%Y-%m-%d}" for each in result.days]
    data: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": days,
            "y": [round(value, 5) for value in curve.equity],
            "line": {"color": colour, "width": 2 if curve.name == "production" else 1.2},
        }
        for name, curve, colour in curves
    ]
    layout = {
        "hovermode": "x unified",
        "legend": LEGEND,
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "equity, 1 at the start"}},
        "shapes": _shapes(result.request),
    }
    return SectionChart(name="equity", height=420, figure={"data": [*data, *changes], "layout": layout})


def _changes(result: ReplayResult, replayed: PolicyReplay) -> list[Trace]:
    """Marks of promotions and of versions taken back, on the curve of the production."""
    production_events = [each for each in replayed.events if each.kind is ReplayEventKind.PRODUCTION]
    marks = (
        ("promotion", COLOURS["production"], "triangle-up", lambda each: each.outcome == "promotion"),
        ("rollback or halt", "#c0392b", "triangle-down", lambda each: each.outcome in ("rollback", "halt")),
    )
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [f"{each.at:%Y-%m-%d}" for each in events],
            "y": [round(_equity_at(result, replayed, each), 5) for each in events],
            "marker": {"color": colour, "symbol": symbol, "size": 11},
        }
        for name, colour, symbol, belongs in marks
        if (events := [each for each in production_events if belongs(each)])
    ]


def _equity_at(result: ReplayResult, replayed: PolicyReplay, event: ReplayEvent) -> float:
    past = bisect_right(result.days, event.at)
    return replayed.production.equity[past - 1] if past else 1.0


def _time_line(result: ReplayResult, replayed: PolicyReplay) -> SectionChart:
    """Every retrain by verdict, decision of a shadow, request and change of production, a row each."""
    rows: dict[str, list[ReplayEvent]] = {name: [] for name in TIME_LINE}
    for each in replayed.events:
        name = _row_of(each)
        if name in rows:
            rows[name].append(each)
    data: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [f"{each.at:%Y-%m-%d %H:%M}" for each in events],
            "y": [name] * len(events),
            "text": [f"{each.version} {each.sentence[:MAX_HOVER]}" for each in events],
            "hovertemplate": "%{x}<br>%{text}<extra></extra>",
            "marker": {"color": TIME_LINE[name], "size": 9},
            "showlegend": False,
        }
        for name, events in rows.items()
        if events
    ]
    shown = [name for name in TIME_LINE if rows[name]]
    layout = {
        "xaxis": {"type": "date", "range": _span(result)},
        "yaxis": {"type": "category", "categoryarray": shown[::-1], "automargin": True},
        "shapes": _shapes(result.request),
    }
    return SectionChart(
        name="time-line",
        title="Time line",
        height=110 + 32 * len(shown),
        figure={"data": data, "layout": layout},
    )


def _row_of(event: ReplayEvent) -> str:
    if event.kind is ReplayEventKind.RETRAIN:
        return f"retrain {event.outcome.upper()}"
    if event.kind is ReplayEventKind.REQUEST:
        return "request of the watch"
    return event.outcome if event.kind is ReplayEventKind.PRODUCTION else f"shadow: {event.outcome}"


def _known_chart(result: ReplayResult, known: KnownCourse) -> SectionChart:
    largest = max(1.0, *(1e4 * abs(each) for each in known.drift))
    days = [f"{each:%Y-%m-%d}" for each in result.days]
    data: list[Trace] = [
        {
            "type": "bar",
            "name": "market by expectation, bps an hour",
            "x": days,
            "y": [round(1e4 * each, 3) for each in known.drift],
            "marker": {"color": "#b9c3d3"},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "position of the production",
            "x": days,
            "y": [round(each, 4) for each in known.positions],
            "yaxis": "y2",
            "line": {"color": COLOURS["production"], "width": 1.5},
        },
    ]
    layout = {
        "legend": LEGEND,
        "bargap": 0,
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "bps an hour"}, "range": [-largest, largest]},
        "yaxis2": {
            "overlaying": "y",
            "side": "right",
            "range": [-1, 1],
            "tickvals": [-1, -0.5, 0, 0.5, 1],
            "showgrid": False,
        },
        "shapes": _shapes(result.request),
    }
    return SectionChart(
        name="known",
        title="Position of each day beside the expected return of the market",
        height=300,
        figure={"data": data, "layout": layout},
    )


def _span(result: ReplayResult) -> list[str]:
    # a mark on the first or last day is drawn whole
    aside = timedelta(days=max(1, result.request.days // 60))
    return [f"{result.request.start - aside}", f"{result.request.end + aside}"]


def _shapes(request: ReplayRequest) -> list[dict[str, Any]]:
    """Line at the change of the edge."""
    if request.world is None or not request.world.changes:
        return []
    day = f"{request.change}"
    line = {"color": "#7a7a7a", "width": 1, "dash": "dot"}
    return [
        {"type": "line", "xref": "x", "yref": "paper", "x0": day, "x1": day, "y0": 0, "y1": 1, "line": line}
    ]
