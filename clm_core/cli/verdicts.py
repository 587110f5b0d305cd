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


def baseline_table(verdict: "Verdict") -> "Table":
    """The baselines' results, and the version's return against each with an interval of 95 %."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    columns = ("baseline", "net return", "Sharpe", "volatility", "drawdown", "excess a year", "alpha", "beta")
    table = Table(*columns, box=SIMPLE_HEAVY)
    for each in verdict.baselines:
        table.add_row(
            each.label,
            f"{each.total_return:+.1%}",
            f"{each.sharpe_ratio:.2f}",
            f"{each.volatility:.1%}",
            f"{each.max_drawdown:.1%}",
            each.excess_return.text(".1%"),
            each.alpha.text(".1%"),
            each.beta.text(".2f"),
        )
    return table


def _formatted(criterion: str, value: float) -> str:
    if criterion in FACTS and not math.isnan(value):
        return "yes" if value else "no"
    if criterion in COUNTS:
        return f"{value:,.0f}"
    return f"{value:.1%}" if criterion in PERCENTAGES else f"{value:.2f}"
