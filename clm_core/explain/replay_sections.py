"""Sections of the page of a replay: the curves, what happened, and the counts, for each policy."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clm_core.domain import measures
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.replays import PolicyReplay, ReplayCurve, ReplayEventKind, ReplayResult

COLOURS = {"production": "#2f6fed", "newest": "#c2701c", "never": "#7a7a7a", "hold": "#2c8a57"}
OTHER_COLOURS = ("#8a4fd0", "#c23b6b", "#3aa3b8", "#a58b1e")
COLUMNS = ("", "return", "Sharpe", "drawdown", "trades", "exposure", "lead of production")
NOTE = (
    "After costs. Lead: Sharpe ratio of the production minus that of the row, with a 95 % interval by block "
    "bootstrap; an interval that holds 0 decides nothing."
)
MAX_EVENTS = 400
"""Events shown on a page; the JSON has all."""


def replay_sections(result: ReplayResult) -> tuple[Section, ...]:
    """A section with all policies side by side, then a section for each policy."""
    policies = result.policies
    several = (_beside(result),) if len(policies) > 1 else ()
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


def markdown(result: ReplayResult, page: Path) -> str:
    """Summary for the page of a run, which shows no chart."""
    lines = [headline(each) for each in result.policies]
    for each in result.policies:
        heads = (each.policy, *COLUMNS[1:])
        lines.append("\n".join((_cells(heads), _cells(["---"] * len(heads)), *map(_cells, _rows(each)))))
    return "\n\n".join((*lines, f"Curves and time line: `{page}`. Digest `{result.digest[:12]}`."))


def _rows(replayed: PolicyReplay) -> Iterator[tuple[str, ...]]:
    return (figures_row(each) for each in replayed.curves)


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
    colours = dict(zip((name for name, _ in curves), OTHER_COLOURS * len(curves), strict=False))
    rows = tuple(figures_row(curve, name) for name, curve in curves)
    return Section(
        name="policies",
        title="Policies beside each other",
        sentences=tuple(headline(each) for each in result.policies),
        tables=(SectionTable(columns=COLUMNS[:-1], rows=tuple(row[:-1] for row in rows)),),
        charts=(_chart(result, [(name, curve, colours[name]) for name, curve in curves]),),
    )


def _section(result: ReplayResult, replayed: PolicyReplay) -> Section:
    drawn = [(each.name, each, COLOURS[each.name]) for each in replayed.curves]
    return Section(
        name=f"policy-{result.policies.index(replayed)}",
        title=f"Policy {replayed.policy}",
        sentences=(headline(replayed),),
        tables=(
            SectionTable(columns=COLUMNS, rows=tuple(_rows(replayed)), note=NOTE),
            SectionTable(title="Time line", columns=("UTC",), rows=tuple(_event_rows(replayed))),
        ),
        charts=(_chart(result, drawn),),
        values={"digest": replayed.digest, "trials": replayed.trials},
    )


def _event_rows(replayed: PolicyReplay) -> Iterator[tuple[str, ...]]:
    shown = [each for each in replayed.events if each.kind is not ReplayEventKind.PROBLEM]
    for each in shown[:MAX_EVENTS]:
        named = f"{each.kind} {each.version}" if each.version else each.kind
        # one cell: cells after the first are set as figures
        yield (f"{each.at:%Y-%m-%d %H:%M} {named}: {each.sentence}",)
    if len(shown) > MAX_EVENTS:
        yield (f"and {len(shown) - MAX_EVENTS:,} more: clm replay --json",)


def _chart(result: ReplayResult, curves: list[tuple[str, ReplayCurve, str]]) -> SectionChart:
    days = [f"{each:%Y-%m-%d}" for each in result.days]
    data: list[dict[str, Any]] = [
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
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "equity, 1 at the start"}},
    }
    figure = {"data": data, "layout": layout}
    return SectionChart(name="equity", height=420, figure=figure)
