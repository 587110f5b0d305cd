"""Section of an explanation on the attribution of a profit."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.measures import count, finite_or_none, percent, signed_percent
from clm_core.explain.attribution import SIDES, TRADES, Attribution, AttributionRow, AttributionTable

NAME = "attribution"
TITLE = "Attribution of the result"
GAIN = "#12966a"
LOSS = "#d64545"
NEUTRAL = "#2f6fed"
KNOWN_AFTERWARDS = ("holding", "exit")
"""Tables by facts known only after a trade, whose rows differ without any edge."""
SPLIT_NOTE = (
    "Selection: the average position, held all the time. Timing: long, short or flat at the right time, at "
    "the average size. Sizing: larger and smaller positions than the average. Costs: fees, slippage, holding."
)
NOTE = (
    "Share of the starting capital, after costs. ±: standard error of the mean. Among many rows the largest "
    "looks like an edge by luck: beyond chance is a row only if named here."
)


def attribution_section(attribution: Attribution) -> Section:
    """The attribution in words, tables and charts."""
    return Section(
        name=NAME,
        title=TITLE,
        sentences=tuple(_sentences(attribution)),
        charts=tuple(_charts(attribution)),
        tables=tuple(_shown_tables(attribution)),
        values=attribution_values(attribution),
    )


def attribution_values(attribution: Attribution) -> dict[str, Any]:
    """Every number of the attribution, JSON-ready."""
    return {
        "total": attribution.total,
        "cost": attribution.cost,
        **{row.name: row.profit for row in attribution.split.rows if row.name != "cost"},
        **{side: attribution.table("side").profit_of(side) for side in SIDES},
        **{each.name: _values(each) for each in (attribution.split, attribution.months, *attribution.tables)},
    }


def _values(table: AttributionTable) -> dict[str, Any]:
    rows = [
        asdict(row) | {"mean": finite_or_none(row.mean), "error": finite_or_none(row.error)}
        for row in table.rows
    ]
    return {"unit": table.unit, "rows": rows, "beyond_chance": [row.name for row in table.beyond_chance]}


def _sentences(attribution: Attribution) -> Iterator[str]:
    if not attribution.months.rows:
        yield "No position was held: there is no result to attribute."
        return
    sides = attribution.table("side")
    best = max(attribution.months.rows, key=lambda row: row.profit)
    yield (
        f"Longs {_earned(sides.profit_of('long'))}, shorts {_earned(sides.profit_of('short'))} of the "
        f"starting capital after costs; costs took {percent(attribution.cost)}; without the best month, "
        f"{best.name}, the result would be {signed_percent(attribution.total - best.profit)} instead of "
        f"{signed_percent(attribution.total)}."
    )
    parts = ", ".join(f"{row.name} {signed_percent(row.profit)}" for row in attribution.split.rows)
    yield f"By decision: {parts}."
    named = [
        f"{row.name} ({row.score:+.1f})"
        for table in attribution.tables
        if table.name not in KNOWN_AFTERWARDS
        for row in table.beyond_chance
    ]
    if named:
        yield (
            f"Rows beyond chance, with the mean in standard errors: {', '.join(named)}. Without any edge one "
            "table in twenty has such a row."
        )
    else:
        yield "No row of any table lies beyond chance: differences between the rows are no edge."


def _earned(profit: float) -> str:
    return f"{'earned' if profit >= 0.0 else 'lost'} {percent(abs(profit))}"


def _shown_tables(attribution: Attribution) -> Iterator[SectionTable]:
    if attribution.months.rows:
        yield _table(attribution.split, SPLIT_NOTE)
        yield from (_table(each, _beyond(each)) for each in attribution.tables)


def _table(table: AttributionTable, note: str) -> SectionTable:
    one = "trade" if table.unit == TRADES else "bar"
    total = (
        "total",
        signed_percent(sum(row.profit for row in table.rows)),
        percent(sum(row.cost for row in table.rows)),
        "",
        "",
    )
    return SectionTable(
        title=table.title,
        columns=("", "P&L", "costs", table.unit, f"bps a {one}"),
        rows=(*map(_cells, table.rows), total),
        note=note,
    )


def _cells(row: AttributionRow) -> tuple[str, ...]:
    error = finite_or_none(row.error)
    mean = f"{1e4 * row.mean:+,.2f}"
    return (
        row.name,
        signed_percent(row.profit),
        percent(row.cost),
        count(row.count),
        mean if error is None else f"{mean} ± {1e4 * error:,.2f}",
    )


def _beyond(table: AttributionTable) -> str:
    if table.name in KNOWN_AFTERWARDS:
        return "Known only after the trade: a stop loses by definition, and no rule can choose such trades."
    named = ", ".join(row.name for row in table.beyond_chance)
    return f"Beyond chance (more than {table.limit:.1f} standard errors): {named or 'no row'}."


def _charts(attribution: Attribution) -> Iterator[SectionChart]:
    if not attribution.months.rows:
        return
    yield SectionChart(
        name="months",
        title="P&L by calendar month",
        figure=_months(attribution.months),
        height=260,
        note=NOTE,
    )
    by_time = next(each for each in attribution.tables if each.name in ("hour", "weekday"))
    yield SectionChart(
        name="time",
        title=f"Mean profit of a bar {by_time.title.replace('By', 'by')}",
        figure=_means(by_time),
        height=260,
        note="Whiskers: two standard errors. An interval that includes zero is no edge.",
    )


def _months(table: AttributionTable) -> dict[str, Any]:
    profits = [row.profit for row in table.rows]
    bars = {
        "type": "bar",
        "x": [row.name for row in table.rows],
        "y": profits,
        "marker": {"color": [GAIN if each >= 0.0 else LOSS for each in profits]},
        "hovertemplate": "%{x}: %{y:.2%}<extra></extra>",
    }
    layout = {"xaxis": {"type": "category", "nticks": 12}, "yaxis": {"tickformat": ".1~%"}}
    return {"data": [bars], "layout": layout}


def _means(table: AttributionTable) -> dict[str, Any]:
    bars = {
        "type": "bar",
        "x": [row.name for row in table.rows],
        "y": [1e4 * row.mean for row in table.rows],
        "marker": {"color": NEUTRAL},
        "error_y": {
            "type": "data",
            "array": [2e4 * (finite_or_none(row.error) or 0.0) for row in table.rows],
            "thickness": 1,
        },
        "hovertemplate": "%{x}: %{y:.2f} bps<extra></extra>",
    }
    layout = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "bps a bar, after costs"}}}
    return {"data": [bars], "layout": layout}
