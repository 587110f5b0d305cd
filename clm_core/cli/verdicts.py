"""Formatting of verdicts on the terminal."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from clm_core.domain.evaluations import Check, Verdict

PERCENTAGES = {"win_rate", "max_drawdown", "share_of_one_side"}
COUNTS = {"trades", "track_record_bars"}
FACTS = {"ruined"}
"""Checks of a fact: 1 for yes, 0 for no."""
TONES = {"pass": "green", "inconclusive": "yellow", "fail": "red"}


def colored_decision(verdict: "Verdict") -> str:
    return f"[{TONES[verdict.decision.value]}]{verdict.decision.value.upper()}[/]"


def formatted_limit(check: "Check") -> str:
    if math.isinf(check.limit):
        return "never"
    if check.name in FACTS:
        return _formatted(check.name, check.limit)
    return f"{check.comparison} {_formatted(check.name, check.limit)}"


def formatted_value(check: "Check") -> str:
    return f"{_formatted(check.name, check.value)} " + ("[green]✓[/]" if check.passed else "[red]✗[/]")


def symbols_table(verdict: "Verdict") -> "Table":
    """Results of each symbol of a pool."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    from clm_core.domain.evaluations import SYMBOL_COLUMNS

    table = Table(box=SIMPLE_HEAVY)
    table.add_column("symbol")
    for name in SYMBOL_COLUMNS:
        table.add_column(name, justify="right")
    for each in verdict.by_symbol:
        table.add_row(each.symbol, *each.cells)
    return table


def _formatted(criterion: str, value: float) -> str:
    if criterion in FACTS and not math.isnan(value):
        return "yes" if value else "no"
    if criterion in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.1%}" if criterion in PERCENTAGES else f"{value:.2f}"
